"""Reader of a user's own dataset: an .npz file of arrays, a folder of images, or an archive of such a folder.

Members of archives are read one by one, within a limit on their unpacked size; nothing is unpacked to disk or executed.
"""

import logging
import tokenize
import zipfile
from pathlib import Path

import numpy as np
import xarray as xr

from goldilocks_zone.data import catalogue, folders, image_folders
from goldilocks_zone.data.datasets import BLOCK, TEST, TRAIN, as_dataset
from goldilocks_zone.data.image_folders import Refused, beyond
from goldilocks_zone.storage import files

SPLITS = {"train": TRAIN, "test": TEST}
CHANNELS = (1, 3, 4)  # numbers of channels that identify the axis of channels
DARK = 32  # images darker than this must be on another scale than 0 to 255
# Names of images and labels of one split in Keras and MedMNIST.
_FAMILIES = {"x_{}": "y_{}", "{}_images": "{}_labels"}


def read(
    name: str,
    path: Path,
    licence: str,
    limit_mib: int = catalogue.LIMIT_MIB,
    channels: str | None = None,
    white: float | None = None,
) -> xr.Dataset:
    """Read the dataset at `path`: <file>.npz, a folder, or its archive (.tar, .tar.xz, .tar.gz, .tgz, .tar.bz2, .zip).

    An .npz file has these arrays: `images` of shape (n, height, width), (n, channels, height, width) or (n, height,
    width, channels); `labels` of shape (n,) or (n, 1), numbered from 0 or 1, or one-hot (n, k); `split` (n,), 0 for
    training and 1 for test; and optionally `class_names` (k,). Alternatively, it has separate arrays of images and
    labels for each split, named as in Keras or MedMNIST. `channels`, first or last, is the position of the channels if
    the shape of `images` is ambiguous. Folders and archives hold train/<class>/<image> and test/<class>/<image>, PNG or
    JPEG.

    Grey levels are whole numbers from 0 to 255. If `white` is given, they go from 0 to `white` instead, and are
    rescaled to 255 and rounded. Validation examples are added to the training examples; if there is no test set, they
    become the test set. Raises Refused for invalid data and before unpacking more than `limit_mib` MiB, and OSError if
    files cannot be read. Reading takes three to four times the memory of the images.
    """
    try:
        if catalogue.suffix_of(path.name) == ".npz" and not path.is_dir():
            images, labels, split, class_names = _arrays(path, limit_mib << 20, channels)
        else:
            images, labels, split, class_names = image_folders.read(path, limit_mib << 20)
            split = _numbers_of(split)
        images = _grey_levels(images, white)
        _check(images, labels, split, class_names)
    except Refused as refusal:
        raise Refused(f"{path}: {refusal}") from None
    except Exception as error:
        if reason := files.unreadable(error):
            place = getattr(error, "filename", None) or path
            raise OSError(f"{place} cannot be read: {reason} and run again") from error
        # Libraries raise any kind of error on hostile or damaged files.
        raise Refused(
            f"{path}: it is damaged or of another kind than its name says ({error}); make it again"
        ) from error
    training, test = ((images[split == part], labels[split == part]) for part in (TRAIN, TEST))
    return as_dataset(name, training, test, len(class_names), f"the user's {path.name}", licence, class_names)


def _numbers_of(splits: list[str]) -> np.ndarray:
    """Numbers (n,) of the splits of n examples, TRAIN or TEST, from their names in `splits`: train, val or test.

    Examples in val count as training examples or, if there are no test examples, as test examples.
    """
    place = "train" if "test" in splits else "test"
    if "val" in splits:
        use = "training examples, of which the studies hold some out" if place == "train" else "the test set"
        logging.warning("%d examples for validation are taken as %s", splits.count("val"), use)
    return np.array([SPLITS[place if split == "val" else split] for split in splits])


def _check(images: np.ndarray, labels: np.ndarray, split: np.ndarray, class_names: list[str]) -> None:
    for part, number in SPLITS.items():
        if not np.any(split == number):
            raise Refused(f"it has no {part} examples; both train and test are needed")
    if len(class_names) < 2:
        raise Refused("it has one class; at least two are needed")
    for name in class_names:
        if not name.isprintable() or not name.strip() or "," in name:
            raise Refused(
                f"the class name {name!r} cannot be written (it is empty, or has a comma or a control character); use "
                "letters and digits"
            )
    folded = [name.casefold() for name in class_names]
    if len(set(folded)) < len(folded):
        twice = next(name for name in class_names if folded.count(name.casefold()) > 1)
        raise Refused(f"two classes are named {twice}, if case is ignored; rename one of them, or merge them")
    counts = np.bincount(labels[split == TRAIN], minlength=len(class_names))
    if not counts.all():
        empty = class_names[int(np.argmin(counts))]
        raise Refused(f"the class {empty!r} has no training example; add some, or leave the class out")
    training = images[split == TRAIN]
    if training.min() == training.max():
        raise Refused(
            "all training images have one and the same grey level, so they cannot be standardised; check them"
        )


def _arrays(path: Path, limit: int, channels: str | None) -> tuple[np.ndarray, np.ndarray, np.ndarray, list[str]]:
    if not zipfile.is_zipfile(path):
        raise Refused("it is no .npz file (a zip archive of arrays); write it with numpy.savez_compressed")
    with zipfile.ZipFile(path) as archive:
        if parts := _parts_of(archive):
            images, labels, split = _joined(archive, parts, limit)
        else:
            images = _array(archive, "images", limit)
            labels = _labels(_array(archive, "labels", limit), "labels", len(images))
            split = _split(_array(archive, "split", limit), len(images))
        named = "class_names.npy" in archive.namelist()
        given = _array(archive, "class_names", limit, most_names=len(images)) if named else None
    images = _channels_first(images, channels)
    labels, classes = _from_zero(labels, None if given is None else len(given))
    return images, labels, split, [str(name) for name in (range(classes) if given is None else given)]


def _parts_of(archive: zipfile.ZipFile) -> list[tuple[str, str, str]]:
    """List of (split, name of images, name of labels), with one entry for each split that has arrays of its own.

    The list is empty for an .npz file that has one array for all splits.
    """
    names = {name.removesuffix(".npy").casefold(): name.removesuffix(".npy") for name in archive.namelist()}
    for images, labels in _FAMILIES.items():
        if images.format("train") in names:
            found = [(split, images.format(alias), labels.format(alias)) for alias, split in folders.SPLITS.items()]
            return [(split, names[x], names.get(y, y)) for split, x, y in found if x in names]
    return []


def _joined(archive: zipfile.ZipFile, parts: list[tuple[str, str, str]], limit: int) -> tuple[np.ndarray, ...]:
    images, labels, splits = [], [], []
    for split, of_images, of_labels in parts:
        images.append(_array(archive, of_images, limit - sum(each.nbytes for each in images)))
        labels.append(_labels(_array(archive, of_labels, limit), of_labels, len(images[-1])))
        splits += [split] * len(images[-1])
        if images[-1].shape[1:] != images[0].shape[1:]:
            shapes = f"{images[-1].shape} and {parts[0][1]} {images[0].shape}"
            raise Refused(f"{of_images} has the shape {shapes}; give all images one size")
    return np.concatenate(images), np.concatenate(labels), _numbers_of(splits)


def _array(archive: zipfile.ZipFile, key: str, limit: int, most_names: int | None = None) -> np.ndarray:
    """Read the array `key` of an .npz file.

    With `most_names`, the array must be a list of at most that many texts. Raises Refused, before unpacking the array,
    if it is missing, has an invalid header or exceeds `limit` bytes.
    """
    if f"{key}.npy" not in archive.namelist():
        needed = "images, labels and split are needed, or x_train, y_train, x_test and y_test"
        raise Refused(f"the array {key} is missing; {needed}")
    with archive.open(f"{key}.npy") as member:
        try:
            version = np.lib.format.read_magic(member)
            header = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
            shape, _, dtype = header(member)
        except (ValueError, tokenize.TokenError, MemoryError, RecursionError):
            raise Refused(f"{key} is no array; write it with numpy.savez_compressed") from None
    if dtype.hasobject:
        raise Refused(f"{key} holds Python objects, which are never loaded; save plain numbers")
    if most_names is not None and (dtype.kind != "U" or len(shape) != 1 or shape[0] > most_names):
        raise Refused(f"{key} has the type {dtype} and shape {shape}; a list of texts, one for each class, is needed")
    size = int(np.prod(shape, dtype=object)) * max(dtype.itemsize, 1)
    if size > limit:
        raise Refused(f"{key} unpacks to {size >> 20} MiB, {beyond(limit)}")
    with archive.open(f"{key}.npy") as member:
        return np.lib.format.read_array(member, allow_pickle=False)


def _channels_first(images: np.ndarray, channels: str | None) -> np.ndarray:
    """Reorder `images`, of shape (n, h, w), (n, c, h, w) or (n, h, w, c), to (n, c, h, w).

    `channels`, first or last, says which of an image's three axes holds the channels. If it is None, this follows from
    the lengths of the axes. The last axis holds the channels if its length is 1, 3 or 4 and the length of the first
    axis is not. It also holds them if the first and the middle axis have equal lengths and the last axis has another
    length. The same rules apply to the first axis, with first and last exchanged. Raises Refused if the rules choose
    neither or both of these axes, for other numbers of axes, and for empty axes.
    """
    if images.ndim not in (3, 4) or 0 in images.shape:
        expected = "(n, height, width), (n, channels, height, width) or (n, height, width, channels)"
        raise Refused(f"images has the shape {images.shape}; {expected} is needed")
    if images.ndim == 3:
        return images[:, None]
    _, first, middle, last = images.shape
    is_last = (last in CHANNELS and first not in CHANNELS) or first == middle != last
    is_first = (first in CHANNELS and last not in CHANNELS) or first != middle == last
    if not channels and is_last == is_first:
        advice = "add channels: first or channels: last to the dataset's entry in the configuration"
        raise Refused(f"images has the shape {images.shape}, which does not tell where the channels are; {advice}")
    return images.transpose(0, 3, 1, 2) if channels == "last" or (not channels and is_last) else images


def _grey_levels(images: np.ndarray, white: float | None) -> np.ndarray:
    """Convert `images` to grey levels from 0 to 255 (uint8), so that the value `white` becomes 255.

    Values must lie between 0 and `white`, and are rescaled and rounded. Without `white`, they must be whole numbers
    from 0 to 255, and are not rescaled. Booleans become 0 and 255. Raises Refused for other values. Without `white`,
    Refused is also raised if the largest value is below DARK but not 0, because 255 is then unlikely to be white.
    """
    if images.dtype.kind == "b":
        return images.astype(np.uint8) * 255
    if images.dtype.kind not in "iuf":
        raise Refused(f"images has the type {images.dtype}; numbers are needed, grey levels of type uint8 for example")
    if images.dtype.kind == "f":
        _refuse_any(~np.isfinite(images), images, "is not finite; replace it")
    largest = images.max()
    advice = "say which value is white in the dataset's entry in the configuration, as white: 1"
    if white:
        outside = f"lies outside of 0 to {white:g}, the range that the key white sets; correct white"
        _refuse_any((images < 0) | (images > white), images, outside)
        # In blocks: a copy of the whole set in double precision would dominate the memory.
        blocks = (images[start : start + BLOCK] for start in range(0, len(images), BLOCK))
        return np.concatenate([np.rint(block * (255 / white)).astype(np.uint8) for block in blocks])
    if images.dtype != np.uint8:
        wrong = (images != np.floor(images)) | (images < 0) | (images > 255)
        _refuse_any(wrong, images, f"is no whole number from 0 to 255; {advice}, or scale to uint8 first")
    if 0 < largest < DARK:
        raise Refused(f"images has no value above {largest:g}, so 255 is hardly white; {advice} or white: {largest:g}")
    return images.astype(np.uint8, copy=False)


def _refuse_any(wrong: np.ndarray, images: np.ndarray, reason: str) -> None:
    if wrong.any():
        example = int(wrong.reshape(len(images), -1).any(axis=1).argmax())
        raise Refused(f"images has the value {images[example][wrong[example]][0]} in example {example}, which {reason}")


def _labels(array: np.ndarray, key: str, length: int) -> np.ndarray:
    """Class numbers (n,) from `array`, which holds labels (n,) or (n, 1), or one-hot rows (n, k).

    Raises Refused for other arrays, or if n is not `length`. The message names the array by its `key` in the file.
    """
    if array.ndim == 2 and array.shape[1] > 1 and array.dtype.kind in "biuf":
        if not (np.isin(array, (0, 1)).all() and (array.sum(axis=1) == 1).all()):
            raise Refused(
                f"{key} has the shape {array.shape}, but its rows are not one-hot, one 1 among zeros; give each image "
                "one class"
            )
        array = array.argmax(axis=1)
    return _whole_numbers(array.reshape(len(array)) if array.shape == (length, 1) else array, key, length)


def _split(array: np.ndarray, length: int) -> np.ndarray:
    split = _whole_numbers(array, "split", length)
    if len(wrong := np.flatnonzero(~np.isin(split, (TRAIN, TEST)))):
        raise Refused(f"split is {split[wrong[0]]} in example {wrong[0]}; use 0 for training and 1 for test")
    if array.dtype.kind == "b":
        logging.warning("split is boolean: True marks %d of %d examples, the test set", split.sum(), length)
    return split


def _whole_numbers(array: np.ndarray, key: str, length: int) -> np.ndarray:
    if array.shape != (length,):
        raise Refused(f"{key} has the shape {array.shape}; ({length},) is needed, one entry for each image")
    if array.dtype.kind not in "biuf":
        raise Refused(f"{key} has the type {array.dtype}; whole numbers are needed")
    if array.dtype.kind == "f" and not np.array_equal(array, np.floor(array)):
        raise Refused(f"{key} has values that are no whole numbers; whole numbers are needed")
    return array.astype(np.int64)


def _from_zero(labels: np.ndarray, names: int | None) -> tuple[np.ndarray, int]:
    """Labels numbered from 0, and the number of classes.

    `names` is the number of class names, which is also the number of classes. If it is None, the number of classes is
    the largest returned label plus 1. Labels from 1 to the number of classes are shifted. Raises Refused for labels
    that are negative, too large, or start at another number.
    """
    most = int(labels.max(initial=0))
    if labels.min() == 1 and names in (None, most):
        logging.warning("labels go from 1 to %d: class 1 is taken for the first of %d", most, most)
        labels, most = labels - 1, most - 1
    classes = most + 1 if names is None else names
    if labels.min() > 0:
        raise Refused(f"labels starts at {labels.min()}; number the classes from 0")
    # A label beyond the number of examples is refused before its class names would fill the memory.
    if len(wrong := np.flatnonzero((labels < 0) | (labels >= min(classes, len(labels))))):
        raise Refused(f"labels is {labels[wrong[0]]} in example {wrong[0]}; number the classes from 0 without gaps")
    return labels, classes
