"""Pairs of observations (x, y) from worlds and from views of images, packed as inputs of joint embeddings.

To pack is to concatenate x, y and the features of the action that leads from x to y.
Letters: s draws (training seeds), n pairs, p dimensions of an observation, a of an action.
"""

import functools
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from goldilocks_zone.data import datasets, image_worlds, two_rooms, world_shapes, worlds
from goldilocks_zone.measurements.jepa_training import JepaTrainingStudy
from goldilocks_zone.models.jepa import Sizes
from goldilocks_zone.storage import netcdf

HARD = np.pi / 8  # turn of the fast angle in hard pairs, in radians


@dataclass(frozen=True)
class Pairs:
    """Source of fresh pairs of observations.

    training, evaluation: worlds that generate pairs for training, and for measurements at the end. These differ only
    for views of images: the first has training images, the second test images. observation: dimension p of an
    observation. action: number a of an action's features. classes: number of classes of the images, 1 for worlds.
    checksum: checksum of the images, empty for worlds.
    """

    training: worlds.World
    evaluation: worlds.World
    observation: int
    action: int
    classes: int = 1
    checksum: str = ""

    def sizes(self, embedding: int) -> Sizes:
        """Dimensions of an observation, an action and an embedding; the last is given as `embedding`."""
        return Sizes(self.observation, self.action, embedding)

    def packed(self, draws: Sequence[int], step: int, count: int) -> np.ndarray:
        """Draw `count` fresh pairs for each of the `draws` at a training step, packed as (s, n, 2p + a)."""
        return pack(worlds.batch(self.training, draws, step, count))

    def evaluated(self, draws: Sequence[int], count: int) -> worlds.Batch:
        """Draw `count` pairs (s, n, …) for each of the `draws`, for measurements at the end of training."""
        return worlds.batch(self.evaluation, draws, 0, count, "evaluation")

    def curved(self, draw: int, count: int) -> worlds.Batch:
        """Draw the `count` pairs on which the curvature of one `draw` is measured, as a batch with s = 1."""
        return worlds.batch(self.training, [draw], 0, count, "curvature")

    def turned(self, batch: worlds.Batch) -> np.ndarray | None:
        """Observations (s, n, p) that replace the y of a `batch` in hard pairs; None in worlds other than ring.

        They are y with the fast angle turned by +HARD or −HARD.
        """
        return self.evaluation.turned(batch, HARD) if isinstance(self.evaluation, worlds.Ring) else None


def pack(batch: worlds.Batch) -> np.ndarray:
    """Pack a batch into one array (s, n, 2p + a): x, y and the features of the action, side by side."""
    return np.concatenate([batch.x, batch.y, batch.action], -1)


def of(study: JepaTrainingStudy, dataset: str, path: str, seed: int) -> Pairs:
    """Source of pairs from a `dataset`, for a study that has a single value for each varied key.

    The dataset is a world or, with the file `path`, a dataset of images. `seed` is the seed of the run, which names the
    random streams. Raises ValueError if a dataset of images has no training or no test images, or the study no `views`.
    """
    known = world_shapes.of(dataset)
    if known:
        world = _world(study, dataset, seed)
        return Pairs(world, world, known.observation, known.action)
    if study.views is None:
        raise ValueError(f"the study has no key views: say which views of an image of {dataset} form a pair")
    parts = [_images(path, split) for split in (datasets.TRAIN, datasets.TEST)]
    training, test = (image_worlds.ImageWorld(seed, images, labels, study.views) for images, labels, _, _ in parts)
    sizes = world_shapes.of_views(study.views)
    return Pairs(training, test, sizes.observation, sizes.action, *parts[0][2:])


def _world(study: JepaTrainingStudy, dataset: str, seed: int) -> worlds.World:
    if dataset == "ring":
        options = ("noise", "slow", "frozen", "causes", "cause_step", "amplitude", "reach")
        return worlds.Ring(seed, **{key: getattr(study, key) for key in options})
    if dataset == "two_rooms":
        return two_rooms.TwoRooms(seed)
    if dataset == "gaussian_pairs":
        return worlds.GaussianPairs(seed, study.correlation)
    return worlds.Rings(seed, world_shapes.known(dataset).observation // world_shapes.RINGS)


@functools.lru_cache(maxsize=2)
def _images(path: str, split: int) -> tuple[np.ndarray, np.ndarray, int, str]:
    """Read a split of the dataset file at `path`: images (n, 14, 14), labels (n,), number of classes, and checksum.

    `split` is `datasets.TRAIN` or `datasets.TEST`. Raises ValueError if the split has no images.
    """
    with netcdf.opened(path) as file:
        members = file["split"].values == split
        images, labels = file["images"].values[members], file["labels"].values[members].astype(np.int64)
        if not len(images):
            raise ValueError(f"{path} has no {'test' if split else 'training'} images, which views need: add some")
        return image_worlds.small(images), labels, int(file.attrs["classes"]), file.attrs["checksum"]
