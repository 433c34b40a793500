"""Selection of examples from a dataset file for a study, and preprocessing of their inputs.

A dataset file (results/data/<name>.nc) has the variables images (uint8), labels, and split (0 for training examples, 1
for test examples).
"""

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import scipy.linalg
import xarray as xr

from goldilocks_zone.randomness import stream
from goldilocks_zone.storage import netcdf

Arrays = tuple[np.ndarray, np.ndarray]
INPUTS = ("standardised", "unit_interval", "minus_one_to_one", "mean_image_removed", "gaussian")
LABELS = ("original", "shuffled")
TRAIN, TEST = 0, 1
BLOCK = 1024  # images that are converted at once


@dataclass(frozen=True)
class Examples:
    """Inputs (n, c, h, w) and labels (n,) of examples, and the checksum of the dataset file that they come from.

    Labels are int64, from 0 to `classes` − 1.
    """

    inputs: np.ndarray
    labels: np.ndarray
    classes: int
    checksum: str


@dataclass(frozen=True)
class Splits:
    training: Examples
    validation: Examples
    test: Examples


def as_dataset(
    name: str, training: Arrays, test: Arrays, classes: int, source: str, licence: str, class_names: Sequence[str] = ()
) -> xr.Dataset:
    """Content of a dataset file with the examples `training` and `test`.

    Both are pairs of images (n, c, h, w), uint8, and labels (n,). `classes` is the number of classes. Names, `source`
    and `licence` become attributes of the file.
    """
    images, labels = (np.concatenate(parts) for parts in zip(training, test))
    if labels.dtype != np.uint8:
        labels = labels.astype(np.min_scalar_type(classes - 1))
    split = np.repeat(np.array([TRAIN, TEST], np.int8), (len(training[1]), len(test[1])))
    variables = {
        "images": (("example", "channel", "height", "width"), images, {"units": "grey level, 0 to 255"}),
        "labels": ("example", labels, {"units": "1", "long_name": "class"}),
        "split": ("example", split, {"flag_values": [TRAIN, TEST], "flag_meanings": "train test"}),
    }
    origin = {"class_names": ", ".join(class_names), "source": source, "licence": licence}
    return xr.Dataset(
        variables, attrs={"dataset": name, "checksum": checksum(images, labels, split), "classes": classes, **origin}
    )


def checksum(*arrays: np.ndarray) -> str:
    """SHA-256 of the entries of several arrays, one array after another.

    The entries of an array are taken in C order, whatever its layout in memory.
    """
    digest = hashlib.sha256()
    for array in arrays:
        digest.update(np.ascontiguousarray(array).data)
    return digest.hexdigest()


def balanced_order(labels: np.ndarray, random: np.random.Generator) -> np.ndarray:
    """Random permutation (n,) of the examples with these `labels` (n,), in which every prefix is class-balanced.

    Class counts of a prefix differ by at most one, until a class runs out.
    """
    shuffled = random.permutation(len(labels))
    rounds = np.empty(len(labels), dtype=int)
    for value in np.unique(labels):
        members = shuffled[labels[shuffled] == value]
        rounds[members] = np.arange(len(members))
    return np.lexsort((random.random(len(labels)), rounds))


def in_balanced_order(content: xr.Dataset) -> xr.Dataset:
    """Put the examples of each split of a dataset file's `content` in a class-balanced random order.

    Studies take the first examples of a split, and a user's files often hold one class after another. The order depends
    on the labels alone.
    """
    labels, split = content["labels"].values, content["split"].values
    members = [np.flatnonzero(split == part) for part in (TRAIN, TEST)]
    random = stream("order of a user's examples")
    order = np.concatenate([each[balanced_order(labels[each], random)] for each in members])
    content = content.isel(example=order)
    return content.assign_attrs(checksum=checksum(*(content[name].values for name in ("images", "labels", "split"))))


def validation_split(labels: np.ndarray, size: int, dataset: str, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Hold out `size` class-balanced examples for validation, drawn at random.

    Returns the indices of training and of validation examples into `labels` (n,), both ascending. The validation
    examples of a smaller `size` are a subset of those of a larger one. `seed` and `dataset` name the random stream,
    which no other choice of examples uses.
    """
    order = balanced_order(labels, stream(seed, "validation", dataset))
    return np.sort(order[size:]), np.sort(order[:size])


def load(
    path: str | Path,
    dataset: str,
    count: int,
    inputs: str,
    labels: str,
    validation: int,
    seed: int,
    classes: int | None = None,
    example_set: int = 0,
) -> Examples:
    """Load `count` training examples of a dataset file, in class-balanced random order.

    First, `validation` examples are held out. The others are put in random order; `example_set` 0 has the first `count`
    of them, 1 the next `count`, and so on. `seed` and `dataset` name the random streams. `classes` restricts training
    and validation examples to the first classes.
    `inputs` is the preprocessing. Its means and deviations come from the whole training set, with all classes.
    `standardised` subtracts the global mean and divides by the global standard deviation. `unit_interval` divides grey
    levels by 255, and `minus_one_to_one` rescales them to [-1, 1]. `mean_image_removed` subtracts the mean image, and
    divides by the global standard deviation of the differences. `gaussian` replaces each image by a draw from the
    Gaussian with the training set's mean image and pixel covariance, and standardises it as above.
    `labels`: `original`, or `shuffled`: permuted at random among the training and validation examples of these classes.
    Raises ValueError if `count`, `validation` or `classes` is too large.
    """
    images, targets, available, checksum = _read(path, TRAIN)
    classes = _restricted(classes, available, dataset)
    members = np.flatnonzero(targets < classes)
    targets = targets[members]
    place = dataset if classes == available else f"{dataset} with {classes} classes"
    _refuse_all_held_out(validation, len(targets), place)
    training, _ = validation_split(targets, validation, dataset, seed)
    first = example_set * count
    if first + count > len(training):
        has = f"{len(training)} for training beside {validation} for validation"
        raise ValueError(f"{first + count} examples of {place} are asked for, but it has {has}: ask for fewer")
    chosen = training[balanced_order(targets[training], stream(seed, "examples", dataset))[first : first + count]]
    if labels == "shuffled":
        targets = stream(seed, "shuffled labels", dataset).permutation(targets)
    name = (example_set,) if example_set else ()
    if inputs == "gaussian":
        pixels = _gaussian_images(images, count, stream(seed, "gaussian inputs", dataset, *name))
    else:
        pixels = images[members[chosen]] / 255
    return Examples(_preprocessing(images, inputs)(pixels), targets[chosen], classes, checksum)


def load_splits(
    path: str | Path,
    dataset: str,
    inputs: str,
    labels: str,
    validation: int,
    seed: int,
    test: int | None = None,
    dtype: type = np.float32,
    examples: int | None = None,
    classes: int | None = None,
) -> Splits:
    """Load the training set, the `validation` examples held out of it, and the first `test` test examples.

    Without `test`, all test examples are loaded. `classes` restricts all three sets to the first classes. `examples`
    reduces the training set to the examples that `load` returns for `count` = `examples`. `inputs` is the
    preprocessing, as in `load`, but not `gaussian`; the inputs get the type `dtype`. `labels`: `original`; `shuffled`,
    as in `load`; `groups_of_two` or `groups_of_five`, which merge every 2 or 5 successive classes into one class.
    Raises ValueError if `classes` or `examples` is too large, if `validation` leaves no training example, or if there
    is no test example.
    """
    images, targets, available, checksum = _read(path, TRAIN)
    first = _restricted(classes, available, dataset)
    grouped = {"groups_of_two": 2, "groups_of_five": 5}.get(labels, 1)
    classes = -(-first // grouped)
    if classes < 2:
        raise ValueError(f"labels: {labels} leaves one class of the {first} of {dataset}: merge fewer")
    # Preprocessing still takes its means from the whole training set.
    prepare = _preprocessing(images, inputs)
    if first < available:
        images, targets = images[targets < first], targets[targets < first]
    _refuse_all_held_out(validation, len(targets), dataset)
    trained, held_out = validation_split(targets, validation, dataset, seed)
    if examples is not None:
        if examples > len(trained):
            has = f"it has {len(trained)} for training"
            raise ValueError(f"{examples} examples of {dataset} are asked for, but {has}: ask for fewer")
        trained = trained[balanced_order(targets[trained], stream(seed, "examples", dataset))[:examples]]
    if labels == "shuffled":
        targets = stream(seed, "shuffled labels", dataset).permutation(targets)

    def prepared(images: np.ndarray, targets: np.ndarray) -> Examples:
        # In blocks: a copy of the whole set in double precision would dominate the memory.
        result = np.empty(images.shape, dtype)
        for start in range(0, len(images), BLOCK):
            result[start : start + BLOCK] = prepare(images[start : start + BLOCK] / 255)
        return Examples(result, targets // grouped, classes, checksum)

    training, validation_set = (prepared(images[part], targets[part]) for part in (trained, held_out))
    images, targets, *_ = _read(path, TEST)
    if first < available:
        images, targets = images[targets < first], targets[targets < first]
    if not len(targets):
        raise ValueError(f"{dataset} has no test examples, which a study of training needs: add some")
    return Splits(training, validation_set, prepared(images[:test], targets[:test]))


def load_draws(
    path: str | Path, dataset: str, draws: Sequence[int], count: int, seed: int, only: Sequence[int] = (), test: int = 0
) -> tuple[list[Examples], Examples]:
    """Load `count` standardised training examples for each of the `draws`, and the first `test` test examples.

    Returns a list of the training examples of each draw, and the test examples. A draw is a number. It has its own
    class-balanced random order of the training set, and its examples are the first `count` in this order, so examples
    of different draws may coincide. `seed`, `dataset` and the draw name the random stream. `only` selects classes (by
    default all); labels are renumbered in the order of `only`. Raises ValueError if the dataset lacks one of these
    classes, has fewer than `count` training examples of them, or no test examples of them.
    """
    images, targets, available, checksum = _read(path, TRAIN)
    classes = list(only) or list(range(available))
    _restricted(max(classes) + 1, available, dataset)
    prepare = _preprocessing(images, "standardised")

    def chosen(images: np.ndarray, targets: np.ndarray, members: np.ndarray) -> Examples:
        labels = np.array(classes)[:, None] == targets[members]
        return Examples(prepare(images[members] / 255), labels.argmax(0), len(classes), checksum)

    members = np.flatnonzero(np.isin(targets, classes))
    if count > len(members):
        raise ValueError(
            f"{count} examples of {dataset} are asked for, but it has {len(members)} training examples of the chosen "
            "classes: ask for fewer"
        )
    orders = (balanced_order(targets[members], stream(seed, "examples", dataset, draw)) for draw in draws)
    trained = [chosen(images, targets, members[order[:count]]) for order in orders]
    images, targets, _, _ = _read(path, TEST)
    members = np.flatnonzero(np.isin(targets, classes))
    if not len(members):
        raise ValueError(f"{dataset} has no test examples of these classes: add some")
    return trained, chosen(images, targets, members[:test])


def _refuse_all_held_out(validation: int, available: int, place: str) -> None:
    if validation >= available:
        held = f"validation: {validation} leaves none of the {available} training examples of {place}"
        raise ValueError(f"{held}: hold out fewer")


def _restricted(classes: int | None, available: int, dataset: str) -> int:
    if classes and classes > available:
        raise ValueError(
            f"classes: {classes} is impossible; {dataset} has {available} classes, so use {available} at most"
        )
    return classes or available


def _read(path: str | Path, split: int) -> tuple[np.ndarray, np.ndarray, int, str]:
    """Read one `split`, TRAIN or TEST, of a dataset file.

    Returns images (n, c, h, w), uint8, labels (n,), int64, the number of classes, and the checksum of the file.
    """
    with netcdf.opened(path) as file:
        members = file["split"].values == split
        images, targets = file["images"].values[members], file["labels"].values[members].astype(np.int64)
        return images, targets, int(file.attrs["classes"]), file.attrs["checksum"]


def _preprocessing(images: np.ndarray, kind: str) -> Callable[[np.ndarray], np.ndarray]:
    """Function that maps images in [0, 1] to preprocessed inputs of a `kind`, one of INPUTS.

    Means and deviations are those of `images` / 255, where `images` is the training set in grey levels from 0 to 255.
    Raises ValueError for an unknown kind.
    """
    if kind == "unit_interval":
        return lambda pixels: pixels
    if kind == "minus_one_to_one":
        return lambda pixels: 2 * pixels - 1
    # In blocks, to avoid a wider copy of the whole training set.
    blocks = np.array_split(images, 64)
    histogram = sum(np.bincount(block.reshape(-1), minlength=256) for block in blocks)
    values = np.arange(256) / 255
    mean = histogram @ values / images.size
    if kind in ("standardised", "gaussian"):
        deviation = np.sqrt(histogram @ (values - mean) ** 2 / images.size)
        return lambda pixels: (pixels - mean) / deviation
    if kind == "mean_image_removed":
        mean_image = images.mean(axis=0, dtype=np.float64) / 255
        remaining = histogram @ values**2 / images.size - np.mean(mean_image**2)
        return lambda pixels: (pixels - mean_image) / np.sqrt(remaining)
    raise ValueError(f"inputs {kind!r} is unknown: use one of {', '.join(INPUTS)}")


def _gaussian_images(images: np.ndarray, count: int, random: np.random.Generator) -> np.ndarray:
    """Draw `count` images (count, c, h, w) from the Gaussian with the mean and pixel covariance of `images` / 255.

    With a larger `count`, the first images stay as they are.
    """
    n, pixels = len(images), images[0].size
    total, products = np.zeros(pixels), np.zeros((pixels, pixels))
    for start in range(0, n, 1024):
        block = images[start : start + 1024].reshape(-1, pixels).astype(np.float64)
        total += block.sum(axis=0)
        products += block.T @ block
    # The sums so far are of integers and thus exact, so nothing cancels for pixels that hardly vary.
    covariance = n * products
    covariance -= np.outer(total, total)
    covariance /= (255.0 * n) ** 2
    variances, axes = scipy.linalg.eigh(covariance, overwrite_a=True, check_finite=False)
    # Unlike the eigenvectors, the symmetric square root is the same on every machine. The covariance may be singular.
    deviations = np.sqrt(np.maximum(variances, 0))
    draws = (random.standard_normal((count, pixels)) @ axes * deviations) @ axes.T
    return (draws + total / (255 * n)).reshape(count, *images.shape[1:])
