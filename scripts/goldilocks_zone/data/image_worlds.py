"""Worlds (see `worlds`) whose frames are images of digits, for joint embeddings.

A frame shows two images side by side, called panes, or a view of one image, which is shifted or noisy. N images and
their labels (N,) come from a dataset file; `small` prepares the images.
"""

from dataclasses import dataclass, field

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view

from goldilocks_zone.data import world_shapes
from goldilocks_zone.data.worlds import SINGLE, Arrays

SIDE = world_shapes.SIDE


def small(images: np.ndarray) -> np.ndarray:
    """Convert grey levels (N, 1, h, w) or (N, h, w) to images (N, 14, 14), standardised over all pixels of all images.

    Images of 28 × 28 pixels are averaged over blocks of 2 × 2 pixels. Raises ValueError for other sizes.
    """
    images = images.reshape(len(images), *images.shape[-2:]).astype(SINGLE)
    if images.shape[-1] == 2 * SIDE:
        images = images.reshape(-1, SIDE, 2, SIDE, 2).mean((2, 4))
    if images.shape[-2:] != (SIDE, SIDE):
        raise ValueError(f"images are {images.shape[-2]} × {images.shape[-1]}: give {SIDE} or {2 * SIDE} pixels a side")
    return (images - SINGLE(images.mean(dtype=np.float64))) / SINGLE(images.std(dtype=np.float64))


class _Shifted:
    """Images (N, 14, 14) that can be shifted by up to `most` pixels.

    Pixels that a shift uncovers get the smallest value of all images.
    """

    def __init__(self, images: np.ndarray, most: int):
        edges = ((0, 0), (most, most), (most, most))
        padded = np.pad(images, edges, constant_values=images.min())
        self._most, self._windows = most, sliding_window_view(padded, (SIDE, SIDE), (1, 2))

    def __call__(self, numbers: np.ndarray, shifts: np.ndarray) -> np.ndarray:
        """Pixels (…, 196) of the images with indices `numbers` (…), moved down and right by `shifts` (…, 2) pixels."""
        down, right = self._most - shifts[..., 0], self._most - shifts[..., 1]
        return self._windows[numbers, down, right].reshape(*numbers.shape, -1)


@dataclass(frozen=True, eq=False)
class ImageWorld:
    """World whose frames show small images (N, 14, 14) with labels (N,).

    views: what a frame shows, in one of four ways. Shifts are uniform over whole pixels and independent.
    `panes`: two images side by side. The left image is the same in all frames of a sequence, and each frame shifts it
    by up to 2 pixels along both axes. The right image is a new one in each frame, and is not shifted.
    `shift_1`, `shift_2`: one image, the same in all frames of a sequence. Each frame shifts it by up to 1 or 2 pixels.
    `noise`: one image, the same in all frames of a sequence, not shifted. Each frame adds fresh N(0, `deviation`²) to
    each pixel.

    States: left and right, indices of images (…); label and right_label, their labels (…); shift (…, 2) in pixels, down
    and to the right; noise (…, 196). Only `panes` has right and right_label, and only `noise` has noise. There are no
    actions.
    """

    seed: int
    images: np.ndarray
    labels: np.ndarray
    views: str = "panes"
    deviation: float = 0.5
    _shifted: _Shifted = field(init=False, repr=False)

    def __post_init__(self):
        object.__setattr__(self, "_shifted", _Shifted(self.images, self._most))

    @property
    def name(self) -> str:
        """Name of this world in the names of random streams, equal to `views`."""
        return self.views

    def drawn(self, random: np.random.Generator, count: int, frames: int) -> tuple[Arrays, Arrays]:
        """Draw the states (`count`, `frames`, …) of `count` sequences, by name.

        The second dictionary, for variables between frames, is empty.
        """
        left = np.repeat(random.integers(0, len(self.images), (count, 1)), frames, 1)
        states = {"left": left, "label": self.labels[left]}
        states["shift"] = random.integers(-self._most, self._most + 1, (count, frames, 2))
        if self.views == "panes":
            states["right"] = random.integers(0, len(self.images), (count, frames))
            states["right_label"] = self.labels[states["right"]]
        if self.views == "noise":
            states["noise"] = SINGLE(self.deviation) * random.standard_normal((count, frames, SIDE**2), SINGLE)
        return states, {}

    def seen(self, states: Arrays) -> np.ndarray:
        """Observations of `states`: pixels (…, 196), or (…, 392) if there are two panes, the left one first."""
        pixels = self._shifted(states["left"], states["shift"])
        if "noise" in states:
            pixels += states["noise"]
        if "right" not in states:
            return pixels
        return np.concatenate([pixels, self.images[states["right"]].reshape(pixels.shape)], -1)

    @property
    def _most(self) -> int:
        return {"panes": 2, "shift_2": 2, "shift_1": 1, "noise": 0}[self.views]
