"""Pairs of views of images from a dataset file, for measuring the curvature of joint embeddings.

A view is an image that has been shifted at random, or to which noise has been added.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from goldilocks_zone.data import datasets, image_worlds, worlds
from goldilocks_zone.randomness import stream
from goldilocks_zone.storage import netcdf

VIEWS = ("shift_2", "shift_1", "noise", "shuffled")
AT_MOST = 10_000  # images that views are drawn from


@dataclass(frozen=True)
class Images:
    """Small standardised images (N, 14, 14), labels (N,) below `classes`, and the checksum of their dataset."""

    images: np.ndarray
    labels: np.ndarray
    classes: int
    checksum: str


@dataclass(frozen=True)
class Pairs:
    """Pairs of views x and y (n, 196), float64, and the labels (n,) of the images that x shows."""

    x: np.ndarray
    y: np.ndarray
    labels: np.ndarray


def images_of(path: str | Path, dataset: str, validation: int, seed: int) -> Images:
    """Load at most 10,000 class-balanced training images from a dataset file.

    `validation` images are held out first. `seed` and `dataset` name the random streams. Raises ValueError if no images
    are left.
    """
    with netcdf.opened(path) as file:
        members = np.flatnonzero(file["split"].values == datasets.TRAIN)
        labels = file["labels"].values[members].astype(np.int64)
        if validation >= len(labels):
            raise ValueError(f"validation: {validation} leaves none of the {len(labels)} training images of {dataset}")
        training, _ = datasets.validation_split(labels, validation, dataset, seed)
        order = datasets.balanced_order(labels[training], stream(seed, "examples", dataset))
        chosen = np.sort(training[order[:AT_MOST]])
        images = image_worlds.small(file["images"].values[members[chosen]])
        return Images(images, labels[chosen], int(file.attrs["classes"]), file.attrs["checksum"])


def pairs(images: Images, views: str, count: int, seed: int, draw: int) -> Pairs:
    """Draw `count` pairs of views, each pair of one random image; each `draw` has its own random streams.

    `views` says how views are made. With `shift_2` and `shift_1`, each view is shifted independently by up to 2 or 1
    pixels. With `noise`, independent noise is added to each view. With `shuffled`, views are made as with `shift_2`,
    but the second views are permuted among the pairs, so that the views of a pair share nothing.
    """
    world = image_worlds.ImageWorld(seed, images.images, images.labels, "shift_2" if views == "shuffled" else views)
    batch = worlds.batch(world, [draw], 0, count, "curvature")
    x, y = (each[0].astype(np.float64) for each in (batch.x, batch.y))
    if views == "shuffled":
        y = y[stream(seed, "shuffled views", draw).permutation(count)]
    return Pairs(x, y, batch.truth["label"][0])
