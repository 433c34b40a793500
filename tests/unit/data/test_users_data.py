"""Common kinds of users' files: each is read into the right images, labels and split, or refused in one sentence that
says what to do."""

import dataclasses
import gzip
import hashlib
import io
import pickle
import re
import shlex
import struct
import subprocess
import sys
import tarfile
import unicodedata
import zipfile
from typing import ClassVar

import numpy as np
import pytest
from PIL import Image

from goldilocks_zone.config import load
from goldilocks_zone.data import catalogue, datasets, user_datasets
from goldilocks_zone.data import official as data_official
from goldilocks_zone.storage import netcdf
from made_up.images import arrays, four_bits, image_bytes, members, write_folder, write_npz, write_tar, write_zip

RANDOM = np.random.default_rng(1)
COUNT, CLASSES = 18, 3
GREY = RANDOM.integers(0, 256, (COUNT, 4, 5), dtype=np.uint8)
COLOUR = RANDOM.integers(0, 256, (COUNT, 3, 6, 6), dtype=np.uint8)
MANY = RANDOM.integers(0, 256, (COUNT, 13, 6, 6), dtype=np.uint8)
SMALL = RANDOM.integers(0, 256, (COUNT, 3, 4, 4), dtype=np.uint8)
LABELS, SPLIT = np.arange(COUNT) % CLASSES, np.repeat([0, 1], [12, 6])
LAST = (0, 2, 3, 1)


def read(path, **more):
    return user_datasets.read("own", path, "", **more)


def of(images, labels=LABELS, split=SPLIT):
    """Expected result of reading: images as (n, c, h, w), labels, and split."""
    return (images[:, None] if images.ndim == 3 else images), labels, split


def parts(*names, images=GREY, labels=LABELS):
    """Function that writes an .npz file with separate arrays for up to three splits, of 6 examples each.

    `names` are pairs (name of images, name of labels), one for each split, or None for a split that is left out.
    """
    thirds = [(images[i : i + 6], labels[i : i + 6]) for i in (0, 6, 12)]
    content = {name: array for pair, third in zip(names, thirds) if pair for name, array in zip(pair, third)}

    def write(folder):
        np.savez(folder / "own.npz", **content)
        return folder / "own.npz"

    return write


# Arrays --------------------------------------------------------------------------------------------------

KERAS = (("x_train", "y_train"), ("x_val", "y_val"), ("x_test", "y_test"))
MEDMNIST = tuple((f"{split}_images", f"{split}_labels") for split in ("train", "val", "test"))
NOTHING = (None, None, None)
ONE_HOT = np.eye(CLASSES, dtype=np.float32)[LABELS]
AS_TWO = np.repeat([0, 1], [6, 6])
# Arrays that are given, keys of the entry, what they are.
ARRAYS = {
    "channels last": ({"images": COLOUR.transpose(LAST)}, {}, of(COLOUR)),
    "channels first": ({"images": COLOUR}, {}, of(COLOUR)),
    "grey channels last": ({"images": MANY[:, 0, :, :, None]}, {}, of(MANY[:, 0])),
    "thirteen channels last": ({"images": MANY.transpose(LAST)}, {}, of(MANY)),
    "thirteen channels first": ({"images": MANY}, {}, of(MANY)),
    "small and channels last": ({"images": SMALL.transpose(LAST)}, {}, of(SMALL)),
    "small and channels first": ({"images": SMALL}, {}, of(SMALL)),
    "channels last, as is said": (
        {"images": MANY[:, :3].transpose(LAST)[:, :3]},
        {"channels": "last"},
        of(MANY[:, :3, :3]),
    ),
    "channels first, as is said": ({"images": MANY[:, :, :5]}, {"channels": "first"}, of(MANY[:, :, :5])),
    "Fortran's order": ({"images": np.asfortranarray(GREY)}, {}, of(GREY)),
    "labels in a column": ({"images": GREY, "labels": LABELS[:, None]}, {}, of(GREY)),
    "one-hot labels": ({"images": GREY, "labels": ONE_HOT}, {}, of(GREY)),
    "one-hot labels of type bool": ({"images": GREY, "labels": ONE_HOT.astype(bool)}, {}, of(GREY)),
    "labels from 1": ({"images": GREY, "labels": LABELS + 1}, {}, of(GREY)),
    "labels from 1 with names": (
        {"images": GREY, "labels": LABELS + 1, "class_names": np.array(["a", "b", "c"])},
        {},
        of(GREY),
    ),
    "labels of type float": ({"images": GREY, "labels": LABELS.astype(float)}, {}, of(GREY)),
    "a boolean split": ({"images": GREY, "split": SPLIT.astype(bool)}, {}, of(GREY)),
    "bits": ({"images": GREY > 99}, {}, of(np.where(GREY > 99, 255, 0))),
    "0 and 1": ({"images": (GREY > 99) * 1}, {"white": 1}, of(np.where(GREY > 99, 255, 0))),
    "0 to 16": ({"images": GREY // 16 * 1.0}, {"white": 16}, of(np.rint(GREY // 16 * 255.0 / 16))),
    "0 to 1": ({"images": GREY / np.float32(255)}, {"white": 1}, of(GREY)),
    "16 bits": ({"images": GREY.astype(np.uint16) * 257}, {"white": 65535}, of(GREY)),
    "dark, as is said": ({"images": GREY // 16}, {"white": 255}, of(GREY // 16)),
}


@pytest.mark.parametrize("given, entry, expected", ARRAYS.values(), ids=ARRAYS)
def test_arrays_of_every_kind(given, entry, expected, tmp_path):
    found = read(write_npz(tmp_path, **{"labels": LABELS, "split": SPLIT, **given}), **entry)
    for name, array in zip(("images", "labels", "split"), expected):
        assert np.array_equal(found[name], array), name


FILES = {
    "Keras": (parts(KERAS[0], None, KERAS[2]), of(GREY, LABELS, None)),
    "Keras with labels in a column": (parts(KERAS[0], None, KERAS[2], labels=LABELS[:, None]), of(GREY, LABELS, None)),
    "MedMNIST": (parts(*MEDMNIST, labels=LABELS[:, None]), of(GREY)),
    "MedMNIST in colour": (parts(*MEDMNIST, images=COLOUR.transpose(LAST)), of(COLOUR)),
    "validation and no test": (parts(KERAS[0], KERAS[1], None), of(GREY[:12], LABELS[:12], AS_TWO)),
    "X_train": (parts(("X_train", "y_train"), None, ("X_test", "y_test")), of(GREY, LABELS, None)),
}


@pytest.mark.parametrize("write, expected", FILES.values(), ids=FILES)
def test_files_with_arrays_for_each_split(write, expected, tmp_path):
    images, labels, split = expected
    if split is None:  # the middle third is not in the file
        kept = np.r_[0:6, 12:18]
        images, labels, split = images[kept], labels[kept], AS_TWO
    found = read(write(tmp_path))
    assert np.array_equal(found["images"], images) and np.array_equal(found["labels"], labels)
    assert np.array_equal(found["split"], split)


def test_fortrans_order_changes_no_checksum(tmp_path):
    (tmp_path / "other").mkdir()
    given = arrays()
    fortran = {**given, "images": np.asfortranarray(given["images"])}
    paths = write_npz(tmp_path, **given), write_npz(tmp_path / "other", **fortran)
    first, second = (read(path).attrs["checksum"] for path in paths)
    assert first == second


def test_unit_intervals_end_at_one(tmp_path):
    content = read(write_npz(tmp_path, images=GREY // 16, labels=LABELS, split=SPLIT), white=15)
    netcdf.write_dataset(content, tmp_path / "own.nc")
    inputs = datasets.load(tmp_path / "own.nc", "own", 12, "unit_interval", "original", 0, 1).inputs
    assert inputs.min() == 0 and inputs.max() == 1


def test_what_is_taken_for_granted_is_said(tmp_path, caplog):
    read(write_npz(tmp_path, labels=LABELS + 1, split=SPLIT.astype(bool)))
    assert "labels go from 1 to 3: class 1 is taken for the first of 3" in caplog.text
    assert "split is boolean: True marks 6 of 18 examples, the test set" in caplog.text
    read(parts(*MEDMNIST)(tmp_path))
    assert "6 examples for validation are taken as training examples, of which the studies hold some out" in caplog.text
    read(parts(KERAS[0], KERAS[1], None)(tmp_path))
    assert "6 examples for validation are taken as the test set" in caplog.text
    read(write_folder(tmp_path, members(**{"labels.csv": b"", "extra/cat/1.png": b""})))
    assert "left out, for it lies in neither train/ nor test/: extra/, labels.csv" in caplog.text


# Images --------------------------------------------------------------------------------------------------


def picture(index):
    """Pixels of the training image of a cat with this number."""
    return np.asarray(Image.open(io.BytesIO(MEMBERS[f"train/cat/{index}.png"])))


MEMBERS = members()
FIRST = "train/cat/0.png"
FLAT = np.arange(20, dtype=np.uint8).reshape(4, 5) * 12


def saved(image, kind="PNG", **options):
    content = io.BytesIO()
    image.save(content, kind, **options)
    return content.getvalue()


def turned(kind):
    """Content of an image file of a `kind`, whose EXIF data rotate it by 90 degrees: stored as 5×4, shown as 4×5."""
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned clockwise
    stored = np.rot90(FLAT)  # counter-clockwise
    options = {"quality": 100} if kind == "JPEG" else {}
    return saved(Image.fromarray(stored), kind, exif=exif, **options)


def palette(bits):
    image = Image.fromarray(np.arange(20, dtype=np.uint8).reshape(4, 5) % 2**bits, "P")
    image.putpalette([value for i in range(2**bits) for value in (17 * i, 0, 255 - 17 * i)])
    return saved(image, bits=bits)


def opaque(mode):
    return saved(Image.fromarray(FLAT).convert("RGB" if "RGB" in mode else "L").convert(mode))


REDS = 17 * (np.arange(20).reshape(4, 5) % 16)
# The first image of an otherwise good folder, and what it is read as.
IMAGES = {
    "a PNG that is turned": (turned("PNG"), FLAT[None]),
    "opaque RGBA": (opaque("RGBA"), np.stack([FLAT] * 3)),
    "opaque grey with alpha": (opaque("LA"), FLAT[None]),
    "a palette": (palette(4), np.stack([REDS, 0 * REDS, 255 - REDS])),
    "1 bit": (saved(Image.fromarray(FLAT > 99)), np.where(FLAT > 99, 255, 0)[None]),
    "a palette of greys": (saved(Image.fromarray(FLAT).convert("P")), FLAT[None]),
    "an opaque palette of greys": (saved(Image.fromarray(FLAT).convert("P"), transparency=b"\xff" * 256), FLAT[None]),
}


@pytest.mark.parametrize("content, expected", IMAGES.values(), ids=IMAGES)
def test_images_of_every_kind(content, expected, tmp_path):
    found = read(write_folder(tmp_path, {**MEMBERS, FIRST: content}))["images"].values
    channels = len(expected)
    assert found.shape == (12, channels, 4, 5) and np.array_equal(found[0], expected)
    assert np.array_equal(found[1], np.stack([picture(1)] * channels))


def test_a_photograph_is_turned_as_its_camera_says(tmp_path):
    found = read(write_folder(tmp_path, {**MEMBERS, FIRST: turned("JPEG")}))["images"].values
    # JPEG is lossy: the levels are near, the orientation is right.
    assert np.abs(found[0, 0].astype(int) - FLAT).max() < 12 < np.abs(np.fliplr(FLAT).astype(int) - FLAT).max()


def renamed(change):
    return {change(name): content for name, content in MEMBERS.items()}


def with_validation():
    return {**MEMBERS, **{f"val/{name}/9.png": MEMBERS[FIRST] for name in ("cat", "dog")}}


def without_test():
    return {name.replace("test/", "valid/"): content for name, content in MEMBERS.items()}


CLUTTER = dict.fromkeys(
    (
        *("desktop.ini", "train/desktop.ini", "train/cat/Thumbs.db", "train/cat/.DS_Store", "test/dog/Icon\r"),
        *("train/cat/@eaDir/0.png/SYNOFILE_THUMB_M.png", "train/cat/0.png:Zone.Identifier"),
        "__MACOSX/train/cat/._0.png",
    ),
    b"x",
)
# Members of folders and archives: names of the classes, training examples, test examples.
FOLDERS = {
    "what systems leave behind": ({**MEMBERS, **CLUTTER}, "cat, dog", 6, 6),
    "Train and Test": (renamed(str.title), "Cat, Dog", 6, 6),
    "training and testing": (renamed(lambda name: re.sub("^(train|test)", r"\1ing", name)), "cat, dog", 6, 6),
    "train, val and test": (with_validation(), "cat, dog", 8, 6),
    "train and valid": (without_test(), "cat, dog", 6, 6),
    "numbers": (
        {f"{split}/{number}/0.png": MEMBERS[FIRST] for split in ("train", "test") for number in range(12)},
        ", ".join(map(str, range(12))),
        12,
        12,
    ),
    "accents in two ways": (
        {
            name.replace("cat", unicodedata.normalize("NFD" if "test" in name else "NFC", "chaton né")): content
            for name, content in MEMBERS.items()
        },
        "chaton né, dog",
        6,
        6,
    ),
}


@pytest.mark.parametrize("write", [write_folder, write_tar, write_zip], ids=["folder", "tar", "zip"])
@pytest.mark.parametrize("entries, names, training, test", FOLDERS.values(), ids=FOLDERS)
def test_folders_of_every_kind(entries, names, training, test, write, tmp_path):
    found = read(write(tmp_path, entries))
    assert found.attrs["class_names"] == names
    assert np.bincount(found["split"]).tolist() == [training, test]
    # Each image has the class that its folder says, by whatever number.
    first = names.split(", ")[0]
    count = sum(f"/{first}/" in unicodedata.normalize("NFC", name) for name in entries if name not in CLUTTER)
    assert (found["labels"] == 0).sum() == count


@pytest.mark.parametrize("name", ["own.tgz", "own.TAR.GZ", "own.tar.bz2", "own.tar"])
def test_archives_by_other_names(name, tmp_path):
    plain = write_tar(tmp_path, MEMBERS, "own.tar.xz")
    mode = "w:bz2" if name.endswith("bz2") else "w:gz" if "z" in name.lower() else "w"
    with tarfile.open(plain) as archive, tarfile.open(tmp_path / name, mode) as other:
        for member in archive:
            other.addfile(member, archive.extractfile(member))
    assert read(tmp_path / name).attrs["checksum"] == read(plain).attrs["checksum"]
    plain.unlink()
    assert catalogue.own_records(["own"], {}, str(tmp_path), tmp_path)["own"]["path"] == str(tmp_path / name)


@pytest.mark.parametrize("name", ["own.ZIP", "own.NPZ"])
def test_endings_in_capitals(name, tmp_path):
    path = (write_zip(tmp_path, MEMBERS) if name.endswith("ZIP") else write_npz(tmp_path)).rename(tmp_path / name)
    assert read(path).attrs["classes"] >= 2
    assert catalogue.own_records(["own"], {}, str(tmp_path), tmp_path)["own"]["path"] == str(path)
    assert "own" in catalogue.known_shapes({}, str(tmp_path), [])


def unmarked_zip(folder, encoding):
    """Write a zip archive with names in an `encoding`, without the flag for names in UTF-8, as several tools do."""
    path = write_zip(folder, {name.replace("cat", "schön"): content for name, content in MEMBERS.items()})
    content = bytearray(path.read_bytes().replace("schön".encode(), "schön".encode(encoding).ljust(6, b"n")))
    for start, flag in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        for match in re.finditer(re.escape(start), bytes(content)):
            content[match.start() + flag + 1] &= ~0x08
    path.write_bytes(content)
    return path


def test_a_zip_that_does_not_tell_its_alphabet(tmp_path):
    assert read(unmarked_zip(tmp_path, "utf-8")).attrs["class_names"] == "dog, schön"
    with pytest.raises(user_datasets.Refused, match="is in an encoding that the archive does not state; archive it"):
        read(unmarked_zip(tmp_path, "latin-1"))


# What is refused -----------------------------------------------------------------------------------------


def npz(**given):
    return lambda folder: write_npz(folder, **{"images": GREY, "labels": LABELS, "split": SPLIT, **given})


def folder_of(**changes):
    return lambda folder: write_folder(folder, {**MEMBERS, **changes})


def empty_class(folder):
    path = write_folder(folder, MEMBERS)
    (path / "train/emu").mkdir()
    return path


def empty_class_in_zip(folder):
    path = write_zip(folder, MEMBERS)
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr("train/emu/", b"")
    return path


CUBES = RANDOM.integers(0, 256, (COUNT, 3, 3, 3), dtype=np.uint8)
REFUSED = {
    "a shape that tells nothing": (npz(images=CUBES), {}, "(18, 3, 3, 3), which does not tell where the channels are"),
    "a shape that tells both": (npz(images=GREY[:, None, :1, :2]), {}, "which does not tell where the channels are"),
    "0 and 1": (npz(images=(GREY > 99) * 1), {}, "has no value above 1, so 255 is hardly white; say which value is"),
    "0 to 16 as floats": (npz(images=GREY // 16 * 1.0), {}, "as white: 1 or white: 15"),
    "floats from 0 to 1": (npz(images=GREY / 255), {}, "as white: 1, or scale to uint8 first"),
    "more than white": (npz(images=GREY), {"white": 100}, "outside of 0 to 100, the range that the key white sets"),
    "dark images in folders": (
        lambda f: write_folder(f, {name: image_bytes(FLAT // 100) for name in MEMBERS}),
        {},
        "has no value above 2, so 255 is hardly white",
    ),
    "several labels an example": (npz(labels=1 - ONE_HOT), {}, "its rows are not one-hot, one 1 among zeros"),
    "labels with fractions": (npz(labels=LABELS + 0.5), {}, "labels has values that are no whole numbers"),
    "splits of two sizes": (
        lambda f: write_npz(f, images=None, labels=None, split=None, x_train=GREY, y_train=LABELS, x_test=COLOUR),
        {},
        "the array y_test is missing",
    ),
    "images of two sizes": (
        lambda f: write_npz(
            f, images=None, labels=None, split=None, x_train=GREY, y_train=LABELS, x_test=COLOUR, y_test=LABELS
        ),
        {},
        "x_test has the shape (18, 3, 6, 6) and x_train (18, 4, 5); give all images one size",
    ),
    "an empty class": (empty_class, {}, "the class 'emu' has no training example; add some, or leave the class out"),
    "an empty class in a zip": (empty_class_in_zip, {}, "the class 'emu' has no training example"),
    "train and Train": (folder_of(**{"Train/cat/9.png": b""}), {}, "stand for the same split; keep one of them"),
    "transparency": (
        folder_of(**{FIRST: saved(Image.new("RGBA", (5, 4), (9, 9, 9, 99)))}),
        {},
        "'train/cat/0.png' is transparent in places; make it opaque, for example with: .venv/bin/python -c",
    ),
}


@pytest.mark.parametrize("make, entry, reason", REFUSED.values(), ids=REFUSED)
def test_what_cannot_be_meant_is_refused(make, entry, reason, tmp_path):
    path = make(tmp_path)
    with pytest.raises(user_datasets.Refused) as refusal:
        read(path, **entry)
    sentence = str(refusal.value)
    assert sentence.startswith(f"{path}: ") and reason in sentence and "\n" not in sentence


CONVERTED = {
    "BMP": ("train/cat/0.bmp", saved(Image.fromarray(FLAT), "BMP"), "'train/cat/0.bmp' is a BMP"),
    "TIFF": ("train/cat/0.tif", saved(Image.fromarray(FLAT), "TIFF"), "'train/cat/0.tif' is a TIFF"),
    "WebP": ("train/cat/0.webp", saved(Image.fromarray(FLAT), "WEBP", lossless=True), "'train/cat/0.webp' is a WebP"),
    "GIF": ("train/cat/0.gif", saved(Image.fromarray(FLAT), "GIF"), "'train/cat/0.gif' is a GIF"),
    "another size": ("train/cat/1.png", image_bytes(np.tile(FLAT, (2, 3))), "15×8 pixels, but images before it 5×4"),
    "transparency": ("train/cat/1.png", saved(Image.new("RGBA", (5, 4), (9, 9, 9, 99))), "is transparent in places"),
    "16 bits": (FIRST, saved(Image.fromarray(FLAT.astype(np.uint16) * 257)), "has the colour mode I;16, 16 bits"),
    "4 bits": ("train/cat/1.png", four_bits(), "has the colour mode L, 4 bits"),
    "CMYK": ("train/cat/1.jpg", saved(Image.new("CMYK", (5, 4), (9, 9, 9, 99)), "JPEG"), "has the colour mode CMYK"),
}


@pytest.mark.parametrize("name, content, reason", CONVERTED.values(), ids=CONVERTED)
def test_the_line_that_a_refusal_prints_converts_the_images(name, content, reason, tmp_path):
    entries = {member: content for member, content in MEMBERS.items() if member != name}
    path = write_folder(tmp_path, {**entries, name: content})
    with pytest.raises(user_datasets.Refused, match=reason) as refusal:
        read(path)
    program, option, code = shlex.split(str(refusal.value).partition("with: ")[2])
    assert (program, option) == (".venv/bin/python", "-c")
    subprocess.run([sys.executable, option, code], check=True)
    found = read(path)["images"].values
    assert found.shape[2:] == (4, 5)
    if "cat/0" in name:
        assert found.shape[1] == (3 if "webp" in name else 1) and (found[0] == FLAT).all()


# Validation ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["curvature", "training"])
def test_validation_that_leaves_nothing_is_refused_before_any_job(kind, tmp_path):
    content = read(write_npz(tmp_path))
    netcdf.write_card(content, tmp_path / "cards/own.yaml")
    study = {"kind": kind, "datasets": ["own"], "networks": ["fc-5x2-relu"], "radii": [1], "draws": 1, "validation": 12}
    study |= {"subspaces": ["plane-10-sparse"]} | (
        {"dimensions": [5], "examples": [5]} if kind == "curvature" else {"steps": 1, "batch": "all"}
    )
    config = {"run": "mine", "datasets": {"own": {"path": "nowhere"}}, "studies": {"mine": study}, "networks": {}}
    sentence = "studies.mine.validation: 12 is impossible; it leaves none of the 12 training examples of own"
    with pytest.raises(load.ConfigurationError, match=sentence):
        load.complete(config, [tmp_path / "cards"])


def test_validation_that_leaves_nothing_is_named_by_a_job(tmp_path):
    netcdf.write_dataset(read(write_npz(tmp_path)), tmp_path / "own.nc")
    with pytest.raises(ValueError, match="validation: 12 leaves none of the 12 training examples of own: hold"):
        datasets.load(tmp_path / "own.nc", "own", 1, "standardised", "original", 12, 1)
    with pytest.raises(ValueError, match="3 examples of own are asked for, but it has 2 for training beside 10 for"):
        datasets.load(tmp_path / "own.nc", "own", 3, "standardised", "original", 10, 1)


# Official files ------------------------------------------------------------------------------------------


@pytest.fixture
def official(monkeypatch):
    """Set the checksums of small files as the official ones of MNIST; returns their contents by name, and the images.

    There are 12 training and 6 test images.
    """
    images = RANDOM.integers(0, 256, (18, 28, 28), dtype=np.uint8)
    labels = (np.arange(18) % 10).astype(np.uint8)
    content = [data_official._idx(array) for array in (images[:12], labels[:12], images[12:], labels[12:])]
    checksums = {name: hashlib.md5(each).hexdigest() for name, each in zip(data_official.IDX_FILES, content)}
    source = dataclasses.replace(data_official.SOURCES["mnist"], checksums=checksums, mirrors=(), package=None)
    monkeypatch.setitem(data_official.SOURCES, "mnist", source)
    return dict(zip(data_official.IDX_FILES, content)), images


PUBLISHED = {
    "as published": "{name}.gz",
    "unpacked": "{name}",
    "torchvision": "MNIST/raw/{name}",
    "the folder of torchvision itself": "raw/{name}.gz",
    "Kaggle": "{dotted}",
    "Kaggle, in folders": "{name}/{name}",
    "Kaggle, in a folder of the dataset": "mnist/{dotted}/{dotted}",
}


@pytest.mark.parametrize("pattern", PUBLISHED.values(), ids=PUBLISHED)
def test_official_files_by_the_names_that_others_give_them(pattern, official, tmp_path):
    files, images = official
    for name, content in files.items():
        path = tmp_path / pattern.format(name=name, dotted=name.replace("-idx", ".idx"))
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(gzip.compress(content) if path.suffix == ".gz" else content)
    # Another dataset's files of the same names lie nearer.
    (tmp_path / "mnist").mkdir(exist_ok=True)
    (tmp_path / "mnist" / data_official.IDX_FILES[0]).write_bytes(b"Fashion-MNIST")
    assert np.array_equal(data_official.fetch("mnist", str(tmp_path))["images"][:, 0], images)


def test_official_files_that_cannot_be_read_are_named(official, tmp_path, monkeypatch):
    for name, content in official[0].items():
        (tmp_path / name).write_bytes(content)
    monkeypatch.setattr(
        data_official.Path, "read_bytes", lambda path: (_ for _ in ()).throw(PermissionError(13, "no right"))
    )
    with pytest.raises(data_official.Unavailable, match=r"train-images-idx3-ubyte cannot be read \(no right\)"):
        data_official.fetch("mnist", str(tmp_path))


class Python2(pickle._Pickler):
    """Pickler that writes texts and bytes as Python 2 did, in which CIFAR-10 was published."""

    dispatch: ClassVar = dict(pickle._Pickler.dispatch)

    def save_text(self, value):
        content = value.encode() if isinstance(value, str) else value
        self.write(b"T" + struct.pack("<i", len(content)) + content)
        self.memoize(value)

    dispatch[str] = dispatch[bytes] = save_text


def batch(records):
    content = io.BytesIO()
    Python2(content, 2).dump({"data": records[:, 1:], "labels": records[:, 0].tolist(), "batch_label": "a batch"})
    return content.getvalue()


@pytest.mark.parametrize("place", ["cifar-10-python.tar.gz", "cifar-10-batches-py", "cifar10/cifar-10-batches-py"])
def test_cifar_for_python_is_the_same_dataset(place, tmp_path, monkeypatch):
    records = RANDOM.integers(0, 256, (60, 3073), dtype=np.uint8)
    records[:, 0] = np.arange(60) % 10
    batches = {name: batch(part) for name, part in zip(data_official.CIFAR_BATCHES, np.split(records, 6))}
    if place.endswith("gz"):
        write_tar(tmp_path, {f"cifar-10-batches-py/{name}": content for name, content in batches.items()}, "own.tar.gz")
        content = {place: (tmp_path / "own.tar.gz").rename(tmp_path / place).read_bytes()}
    else:
        (tmp_path / place).mkdir(parents=True)
        for name, each in batches.items():
            (tmp_path / place / name).write_bytes(each)
        content = batches
    checksums = {name: hashlib.md5(each).hexdigest() for name, each in content.items()}
    others = data_official.SOURCES["cifar10"].others
    others = [dataclasses.replace(x, checksums=checksums) if set(x.checksums) == set(checksums) else x for x in others]
    source = dataclasses.replace(data_official.SOURCES["cifar10"], mirrors=(), others=tuple(others))
    monkeypatch.setitem(data_official.SOURCES, "cifar10", source)
    found = data_official.fetch("cifar10", str(tmp_path))
    assert np.array_equal(found["images"].values.reshape(60, 3072), records[:, 1:])
    assert np.array_equal(found["labels"], records[:, 0])
    assert found["split"].values.tolist() == [0] * 50 + [1] * 10
