"""Users' own datasets and networks: reading of valid ones, and a table of refused ones."""

import gzip
import io
import lzma
import os
import pickle
import shutil
import struct
import tarfile
import zipfile
from pathlib import Path

import numpy as np
import pytest
import read_own_dataset
import torch
from PIL import Image

from goldilocks_zone.config.models import Dataset
from goldilocks_zone.data import catalogue, datasets, official_shapes, user_datasets
from goldilocks_zone.models import user_code, user_networks
from goldilocks_zone.storage import netcdf
from made_up.images import (
    RANDOM,
    arrays,
    four_bits,
    image_bytes,
    link,
    members,
    write_folder,
    write_npz,
    write_tar,
    write_zip,
)

# What is read --------------------------------------------------------------------------------------------


def test_arrays_are_read_as_they_are(tmp_path):
    given = arrays(class_names=np.array(["a", "b", "c"]))
    np.savez_compressed(tmp_path / "own.npz", **given)
    found = user_datasets.read("own", tmp_path / "own.npz", "a licence")
    assert np.array_equal(found["images"].values[:, 0], given["images"])
    assert np.array_equal(found["labels"], given["labels"]) and np.array_equal(found["split"], given["split"])
    assert found["images"].dtype == np.uint8
    assert found.attrs["classes"] == 3 and found.attrs["class_names"] == "a, b, c"
    assert found.attrs["licence"] == "a licence"


def test_training_examples_come_first_in_their_order(tmp_path):
    split = np.array([1, 0] * 9)
    given = arrays(split=split)
    np.savez_compressed(tmp_path / "own.npz", **given)
    found = user_datasets.read("own", tmp_path / "own.npz", "")
    order = np.concatenate([np.flatnonzero(split == 0), np.flatnonzero(split == 1)])
    assert np.array_equal(found["images"].values[:, 0], given["images"][order])
    assert np.array_equal(found["labels"], given["labels"][order])


@pytest.mark.parametrize("shape", [(18, 1, 4, 5), (18, 3, 4, 5)])
def test_channels_and_whole_numbers_of_other_types(shape, tmp_path):
    images = RANDOM.integers(0, 256, shape).astype(np.float32)
    found = user_datasets.read("own", write_npz(tmp_path, images=images), "")
    assert np.array_equal(found["images"], images)


@pytest.mark.parametrize("write", [write_folder, write_tar, write_zip], ids=["folder", "tar.xz", "zip"])
@pytest.mark.parametrize("prefix", ["", "wrapped/"])
def test_image_folders_are_the_same_in_every_packing(write, prefix, tmp_path):
    entries = {prefix + name: content for name, content in members().items()}
    shuffled = dict(sorted(entries.items(), key=lambda item: hash(item[0][::-1])))
    noise = {"__MACOSX/train/cat/._0.png": b"", "README.txt": b"about", "train/cat/.DS_Store": b""}
    path = write(tmp_path, shuffled | {prefix + name: content for name, content in noise.items()})
    if write is write_folder and prefix:
        path = path / prefix
    found = user_datasets.read("own", path, "")
    expected = [np.asarray(Image.open(io.BytesIO(entries[name]))) for name in sorted(entries, key=order_of(prefix))]
    assert np.array_equal(found["images"].values[:, 0], expected)
    assert found["labels"].values.tolist() == [0, 0, 0, 1, 1, 1] * 2
    assert found["split"].values.tolist() == [0] * 6 + [1] * 6
    assert found.attrs["class_names"] == "cat, dog"


def order_of(prefix):
    return lambda name: (name.removeprefix(prefix).startswith("test"), name)


def test_grey_images_beside_colour_become_colour(tmp_path):
    colour = RANDOM.integers(0, 256, (4, 5, 3), dtype=np.uint8)
    entries = members(**{"train/cat/0.png": image_bytes(colour)})
    found = user_datasets.read("own", write_zip(tmp_path, entries), "")
    assert found["images"].shape == (12, 3, 4, 5)
    assert np.array_equal(found["images"][0], colour.transpose(2, 0, 1))
    grey = np.asarray(Image.open(io.BytesIO(entries["train/cat/1.png"])))
    assert all(np.array_equal(channel, grey) for channel in found["images"].values[1])


def test_what_was_read_can_be_loaded_and_its_card_tells_its_shape(tmp_path):
    content = user_datasets.read("own", write_npz(tmp_path), "mine")
    netcdf.write_dataset(content, tmp_path / "own.nc")
    netcdf.write_card(content, tmp_path / "cards/own.yaml")
    examples = datasets.load(tmp_path / "own.nc", "own", 9, "standardised", "original", 0, 1)
    assert examples.inputs.shape == (9, 1, 4, 5) and np.bincount(examples.labels).tolist() == [3, 3, 3]
    shapes = catalogue.known_shapes({}, None, [tmp_path / "cards"])
    assert shapes["own"] == official_shapes.Shape((1, 4, 5), 3, 12)


def identity(entries, place):
    return catalogue.own_records(["own"], entries, None, place)["own"]["identity"]


def read_in(entries, place, code="code"):
    """Read the user's dataset `own` as the workflow does, and return the paths of the dataset file and its card.

    `entries` is the configuration's section `datasets`, `place` the folder results/data, and `code` the code's record.
    """
    place.mkdir(exist_ok=True)
    (place / "code.txt").write_text(code)
    record = catalogue.own_records(["own"], entries, None, place)["own"]
    paths = place / "own.nc", place / "cards/own.yaml"
    read_own_dataset.read_own_dataset("own", record, place / "code.txt", *paths)
    return paths


def test_an_identity_changes_with_what_is_read_and_with_nothing_else(tmp_path):
    path, place = write_folder(tmp_path, members()), tmp_path / "data"
    entries = {"own": Dataset(path=str(path))}
    read_in(entries, place)
    first = identity(entries, place)
    # Neither ages nor what reading passes over, nor the place, nor the licence.
    os.utime(path / "train/cat/0.png")
    for name in ("README.md", "train/.DS_Store", "train/cat/Thumbs.db", "test/@eaDir/cat/0.png", "more/x.png"):
        (path / name).parent.mkdir(parents=True, exist_ok=True)
        (path / name).write_bytes(b"")
    assert identity(entries, place) == first
    moved = path.rename(tmp_path / "moved")
    entries = {"own": Dataset(path=str(moved), licence="another")}
    assert identity(entries, place) == first
    # Other bytes of the same length and age; another name; another image; another way to read.
    image, before = moved / "train/cat/0.png", (moved / "train/cat/0.png").read_bytes()
    age = image.stat().st_mtime_ns
    image.write_bytes(before[:-1] + b"x")
    os.utime(image, ns=(age, age))
    assert identity(entries, place) != first
    image.write_bytes(before)
    assert identity(entries, place) == first
    image.rename(moved / "train/dog/9.png")
    assert identity(entries, place) != first
    (moved / "train/dog/9.png").rename(image)
    (moved / "train/emu").mkdir()
    assert identity(entries, place) != first
    (moved / "train/emu").rmdir()
    assert identity({"own": entries["own"].model_copy(update={"white": 200})}, place) != first
    # Files that are gone make nothing stale; another place with nothing there is a mistake, as is another white.
    shutil.rmtree(moved)
    known = {"own": Dataset(path=str(path))}
    assert identity(known, place) == first
    assert identity({"own": Dataset(path="nowhere")}, place) == catalogue.MISSING
    assert identity({"own": known["own"].model_copy(update={"white": 200})}, place) == catalogue.MISSING


def test_files_that_were_touched_are_read_once_to_be_known_again(tmp_path, monkeypatch):
    path, place = write_npz(tmp_path), tmp_path / "data"
    entries = {"own": Dataset(path=str(path))}
    _, card = read_in(entries, place)
    age = card.stat().st_mtime_ns
    os.utime(path, (1, 1))
    assert catalogue.known_shapes(entries, None, [place / "cards"])["own"] is not None
    catalogue.renew_stamps(["own"], entries, None, place)
    expected = identity(entries, place)
    monkeypatch.setattr(catalogue, "_content_of_files", None)  # From now on nothing may be read.
    assert identity(entries, place) == expected and card.stat().st_mtime_ns == age
    assert catalogue.known_shapes(entries, None, [place / "cards"])["own"] is not None


def test_files_are_looked_at_once_in_a_block_that_says_so(tmp_path):
    path, place = write_folder(tmp_path, members()), tmp_path / "data"
    entries = {"own": Dataset(path=str(path))}
    read_in(entries, place)
    before = identity(entries, place)
    with catalogue.one_look():
        assert catalogue.known_shapes(entries, None, [place / "cards"])["own"] is not None
        (path / "train/cat/0.png").unlink()
        assert identity(entries, place) == before
    assert identity(entries, place) != before
    assert catalogue.known_shapes(entries, None, [place / "cards"])["own"] is None


def test_a_tilde_leads_home(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("GOLDILOCKS_DATA", raising=False)
    write_npz(tmp_path)
    folder = catalogue.data_folder("~")
    assert catalogue.own_records(["own"], {}, folder, tmp_path)["own"]["path"] == str(tmp_path / "own.npz")
    assert catalogue.own_records(["own"], {"own": Dataset(path="~/own.npz")}, None, tmp_path)["own"]["path"] == str(
        tmp_path / "own.npz"
    )
    monkeypatch.setenv("GOLDILOCKS_DATA", "~/data")
    assert catalogue.data_folder(None) == str(tmp_path / "data")


# What is kept --------------------------------------------------------------------------------------------


def test_what_was_verified_serves_where_reading_would_give_the_same(tmp_path, monkeypatch):
    source, place = write_npz(tmp_path), tmp_path / "data"
    entries = {"own": Dataset(path=str(source))}
    path, card = read_in(entries, place)
    expected = path.read_bytes()
    assert (place / "verified/own.nc").stat().st_ino == path.stat().st_ino
    # As Snakemake does before a job and after one that fails.
    path.unlink()
    card.unlink()
    with monkeypatch.context() as patch:
        patch.setattr(user_datasets, "read", None)
        read_in(entries, place)
    assert path.read_bytes() == expected
    assert catalogue.known_shapes(entries, None, [place / "cards"])["own"] == official_shapes.Shape((1, 4, 5), 3, 12)
    # Other files are read, and what was kept of the old ones stays until that is whole.
    before = source.read_bytes()
    source.write_bytes(b"nothing")
    path.unlink()
    with pytest.raises(user_datasets.Refused):
        read_in(entries, place)
    source.write_bytes(before)
    read_in(entries, place)
    assert path.read_bytes() == expected


def test_what_was_verified_serves_on_when_its_files_are_gone(tmp_path, caplog):
    source, place = write_npz(tmp_path), tmp_path / "data"
    entries = {"own": Dataset(path=str(source))}
    path, card = read_in(entries, place)
    expected = path.read_bytes()
    source.unlink()
    path.unlink()
    card.unlink()
    read_in(entries, place, code="newer code")
    assert path.read_bytes() == expected and f"there is nothing at {source}: the copy that was read" in caplog.text
    # Not for another place, and not where it is damaged.
    path.unlink()
    with pytest.raises(FileNotFoundError, match="there is nothing at nowhere"):
        read_in({"own": Dataset(path="nowhere")}, place)
    content = netcdf.read_dataset(place / "verified/own.nc")
    content["images"][0, 0, 0, 0] ^= 1
    netcdf.write_dataset(content, place / "verified/own.nc")
    with pytest.raises(FileNotFoundError, match="there is nothing at"):
        read_in(entries, place)


def test_other_code_reads_files_that_are_there_again(tmp_path):
    entries = {"own": Dataset(path=str(write_npz(tmp_path)))}
    path, _ = read_in(entries, tmp_path / "data")
    read_in(entries, tmp_path / "data", code="newer code")
    assert netcdf.read_dataset(path).attrs["code_fingerprint"] == "newer code"


def test_what_an_earlier_version_read_is_kept_before_a_job_can_lose_it(tmp_path, monkeypatch):
    entries, place = {"own": Dataset(path=str(write_npz(tmp_path)))}, tmp_path / "data"
    path, _ = read_in(entries, place)
    shutil.rmtree(place / "verified")
    monkeypatch.setattr(os, "link", lambda *names: (_ for _ in ()).throw(OSError("no hard links here")))
    catalogue.keep_datasets(place)
    assert (place / "verified/own.nc").read_bytes() == path.read_bytes()
    assert not list(place.rglob(".*"))


def test_files_that_change_while_they_are_read_are_refused(tmp_path, monkeypatch):
    path = write_npz(tmp_path)
    entries, place, read = {"own": Dataset(path=str(path))}, tmp_path / "data", user_datasets.read

    def slowly(*arguments, **more):
        content = read(*arguments, **more)
        np.savez(path, **arrays())
        return content

    monkeypatch.setattr(user_datasets, "read", slowly)
    with pytest.raises(ValueError, match="has changed since the workflow started: run again"):
        read_in(entries, place)
    assert not (place / "own.nc").exists()


JPEGS = Path(os.environ.get("GOLDILOCKS_DATA", "nowhere"), "cifar10_jpeg.tar.xz")


@pytest.mark.weekly
@pytest.mark.skipif(not JPEGS.exists(), reason="GOLDILOCKS_DATA holds no cifar10_jpeg.tar.xz")
def test_a_real_archive_of_sixty_thousand_images():
    assert "cifar10_jpeg" in catalogue.known_shapes({}, str(JPEGS.parent), [])
    found = user_datasets.read("cifar10_jpeg", JPEGS, "")
    assert found["images"].shape == (60_000, 3, 32, 32) and found.attrs["class_names"].startswith(
        "airplane, automobile"
    )
    for part, count in ((datasets.TRAIN, 5000), (datasets.TEST, 1000)):
        assert np.bincount(found["labels"].values[found["split"].values == part]).tolist() == [count] * 10
    # Real images: neighbouring pixels are alike.
    sample = found["images"].values[::100].astype(float)
    assert np.corrcoef(sample[..., 1:].ravel(), sample[..., :-1].ravel())[0, 1] > 0.9


# What is refused -----------------------------------------------------------------------------------------


class Exploit:
    def __reduce__(self):
        return Path.touch, (Path("exploited"),)


def changed(array, index, value):
    array = array.copy()
    array[index] = value
    return array


def pickle_as_npz(folder):
    path = folder / "own.npz"
    path.write_bytes(pickle.dumps(Exploit()))
    return path


def cut_short(path):
    path.write_bytes(path.read_bytes()[:-200])
    return path


def bomb_npz(folder):
    path = folder / "own.npz"
    header = io.BytesIO()
    np.lib.format.write_array_header_1_0(header, {"descr": "|u1", "fortran_order": False, "shape": (10**6, 10**4)})
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("images.npy", header.getvalue() + bytes(10**6))
    return path


def bomb_xz(folder):
    path = folder / "own.tar.xz"
    entry = tarfile.TarInfo("train/cat/0.png")
    entry.size = 1 << 40
    with lzma.open(path, "wb") as unpacked:
        unpacked.write(entry.tobuf() + bytes(8 << 20))
    return path


def broken_link(folder):
    path = write_folder(folder, members())
    (path / "train/cat/9.png").symlink_to("nowhere.png")
    return path


def sparse_tar(folder):
    """Write a tar archive whose only member claims 4 GiB of zeros that it does not contain; returns its path."""
    entry = tarfile.TarInfo("train/cat/0.png")
    entry.type = tarfile.GNUTYPE_SPARSE
    header = bytearray(entry.tobuf(tarfile.GNU_FORMAT))
    header[483:495] = b"%011o " % (1 << 32)
    header[148:156] = b"%06o\0 " % sum(header[:148] + b" " * 8 + header[156:])
    path = folder / "own.tar.gz"
    with gzip.open(path, "wb") as unpacked:
        unpacked.write(header + bytes(1024))
    return path


def long_header(folder):
    """Write a tar archive with a very long header of digits, which some versions of tarfile read in quadratic time."""
    entry = tarfile.TarInfo("header")
    entry.type, entry.size = tarfile.XHDTYPE, 1 << 20
    path = folder / "own.tar.gz"
    with gzip.open(path, "wb") as unpacked:
        unpacked.write(entry.tobuf() + b"1" * (1 << 20))
    return path


def encrypted_zip(folder):
    """Write a zip archive that its directory marks as encrypted; the mark is 8 bytes after the entry's signature."""
    path = write_zip(folder, members())
    content = bytearray(path.read_bytes())
    content[content.index(b"PK\x01\x02") + 8] |= 1
    path.write_bytes(content)
    return path


def hostile_header(folder):
    path = folder / "own.npz"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("images.npy", np.lib.format.magic(1, 0) + struct.pack("<H", 60) + b"(" * 60)
    return path


IMAGES = np.zeros((18, 4, 5))
LIMIT_MIB = 4
MALFORMED = {
    "labels out of range": (lambda f: write_npz(f, labels=np.arange(18) % 3 - 1), "labels is -1 in example 0"),
    "labels beyond the names": (
        lambda f: write_npz(f, class_names=np.array(["a", "b"])),
        "labels is 2 in example 2; number the classes from 0",
    ),
    "one label far out": (
        lambda f: write_npz(f, labels=changed(np.arange(18) % 3, 7, 10**12)),
        "labels is 1000000000000 in example 7",
    ),
    "labels that are no numbers": (lambda f: write_npz(f, labels=np.array(["a"] * 18)), "labels has the type <U1"),
    "too few labels": (lambda f: write_npz(f, labels=np.zeros(17, int)), "labels has the shape (17,); (18,) is needed"),
    "NaN pixels": (lambda f: write_npz(f, images=changed(IMAGES, (3, 0, 0), np.nan)), "value nan in example 3"),
    "pixels from 0 to 1": (lambda f: write_npz(f, images=changed(IMAGES, 2, 0.5)), "value 0.5 in example 2"),
    "pixels above 255": (lambda f: write_npz(f, images=changed(IMAGES, 4, 256)), "value 256.0 in example 4"),
    "all pixels equal": (lambda f: write_npz(f, images=IMAGES), "one and the same grey level"),
    "images without height": (lambda f: write_npz(f, images=np.zeros((18, 20), np.uint8)), "the shape (18, 20)"),
    "channels last": (
        lambda f: write_npz(f, images=np.zeros((18, 4, 5, 3), np.uint8)),
        "(18, 4, 5, 3), which does not tell where the channels are; add channels: first or channels: last",
    ),
    "labels from two": (lambda f: write_npz(f, labels=np.arange(18) % 3 + 2), "labels starts at 2; number the classes"),
    "an empty class": (lambda f: write_npz(f, labels=np.array([0, 2] * 9)), "the class '1' has no training example"),
    "one class": (lambda f: write_npz(f, labels=np.zeros(18, int)), "one class; at least two are needed"),
    "no test examples": (lambda f: write_npz(f, split=np.zeros(18, int)), "it has no test examples"),
    "a split of another kind": (lambda f: write_npz(f, split=np.arange(18)), "split is 2 in example 2"),
    "no split": (lambda f: write_npz(f, split=None), "the array split is missing"),
    "Python objects": (lambda f: write_npz(f, labels=np.array([Exploit()] * 18)), "labels holds Python objects"),
    "a pickle posing as npz": (pickle_as_npz, "it is no .npz file"),
    "an npz cut short": (lambda f: cut_short(write_npz(f)), "it is no .npz file"),
    "an npz bomb": (bomb_npz, "images unpacks to 9536 MiB, beyond the limit of 4 MiB"),
    "a member with ../": (
        lambda f: write_tar(f, members(**{"../train/cat/0.png": b"x"})),
        "the member '../train/cat/0.png' lies outside",
    ),
    "a zip member with an absolute name": (
        lambda f: write_zip(f, members(**{"/etc/passwd": b"x"})),
        "the member '/etc/passwd' lies outside",
    ),
    "a link": (
        lambda f: write_tar(f, members(**{"train/cat/9.png": link("train/cat/9.png", "/etc/passwd")})),
        "the member 'train/cat/9.png' is not a regular file",
    ),
    "a zip bomb": (
        lambda f: write_zip(f, members(**{"train/cat/bomb.png": bytes(8 << 20)})),
        "unpacks to more than allowed, beyond the limit of 4 MiB",
    ),
    "an xz bomb": (bomb_xz, "unpacks to more than allowed, beyond the limit of 4 MiB"),
    "an archive cut short": (lambda f: cut_short(write_tar(f, members())), "it is damaged or of another kind"),
    "an image cut short": (
        lambda f: write_folder(f, members(**{"train/dog/1.png": members()["train/dog/1.png"][:40]})),
        "'train/dog/1.png' is no readable image",
    ),
    "text in place of an image": (
        lambda f: write_zip(f, members(**{"test/dog/1.png": b"hello"})),
        "'test/dog/1.png' is no readable image",
    ),
    "images of two sizes": (
        lambda f: write_zip(f, members(**{"train/dog/1.png": image_bytes(np.zeros((6, 6), np.uint8))})),
        "has 6×6 pixels, but images before it 5×4",
    ),
    "an image too large": (
        lambda f: write_zip(f, {"train/cat/0.png": image_bytes(np.zeros((2000, 2000), np.uint8))}),
        "has 2000×2000 pixels, which take memory beyond the limit of 4 MiB",
    ),
    "transparency": (
        lambda f: write_zip(f, members(**{"train/cat/0.png": image_bytes(np.zeros((4, 5, 4), np.uint8))})),
        "is transparent in places; make it opaque",
    ),
    "a class in the test set alone": (
        lambda f: write_zip(f, members(**{"test/emu/1.png": members()["test/dog/1.png"]})),
        "the class 'emu' has no training example",
    ),
    "images outside of classes": (
        lambda f: write_folder(f, members(**{"train/1.png": members()["test/dog/1.png"]})),
        "'train/1.png' is out of place",
    ),
    "an image deeper down": (
        lambda f: write_folder(f, members(**{"train/dog/more/1.png": members()["test/dog/1.png"]})),
        "'train/dog/more/1.png' is out of place",
    ),
    "two datasets in one": (
        lambda f: write_tar(f, members() | {"old/train/cat/1.png": members()["test/dog/1.png"]}),
        "'old/train/cat/1.png' belongs to another dataset",
    ),
    "an image twice": (
        lambda f: write_zip(f, members(**{"./train/cat/1.png": members()["test/dog/1.png"]})),
        "'./train/cat/1.png' is there twice",
    ),
    "classes told apart by capitals": (
        lambda f: write_zip(f, members(**{"train/Cat/1.png": members()["test/dog/1.png"]})),
        "if case is ignored; rename one of them",
    ),
    "sixteen bits": (
        lambda f: write_zip(f, members(**{"train/cat/0.png": image_bytes(np.full((4, 5), 300, np.uint16))})),
        "save it as 8-bit, for example",
    ),
    "four bits": (lambda f: write_zip(f, members(**{"train/cat/0.png": four_bits()})), "the colour mode L, 4 bits"),
    "a link to nothing": (broken_link, "9.png' is not a regular file, or is a broken link"),
    "a large file": (
        lambda f: write_folder(f, members(**{"train/cat/9.png": bytes(5 << 20)})),
        "'9.png' has 5 MiB, beyond the limit of 4 MiB",
    ),
    "a sparse file in a tar": (sparse_tar, "is not a regular file"),
    "a long extended header": (long_header, "an extended header of unusual length"),
    "an encrypted zip": (encrypted_zip, "is encrypted; archive it without a password"),
    "a name that cannot be written": (
        lambda f: write_tar(f, {n.replace("cat", "c\x1bt"): c for n, c in members().items()}),
        "the class name 'c\\x1bt' cannot be written",
    ),
    "class names in two dimensions": (
        lambda f: write_npz(f, class_names=np.array([["a", "b", "c"]])),
        "a list of texts, one for each class, is needed",
    ),
    "no end of class names": (
        lambda f: write_npz(f, class_names=np.zeros(10**6, "U1")),
        "a list of texts, one for each class, is needed",
    ),
    "a header that is no header": (hostile_header, "images is no array"),
    "an archive of an unknown kind": (
        lambda f: write_tar(f, members()).rename(f / "own.tar.zst"),
        "its kind is unknown; use a folder or .npz, .tar.xz",
    ),
    "an empty folder": (lambda f: write_folder(f, {"notes/a/b.txt": b""}), "it holds no images in train/<class>/"),
    "a file of another kind": (lambda f: write_folder(f, {"a.rar": b"x"}) / "a.rar", "its kind is unknown"),
}


@pytest.mark.parametrize("make, reason", MALFORMED.values(), ids=MALFORMED)
def test_a_malformed_dataset_is_refused_and_nothing_is_written(make, reason, tmp_path, monkeypatch):
    (tmp_path / "given").mkdir()
    path = make(tmp_path / "given")
    results = tmp_path / "results"
    results.mkdir()
    monkeypatch.chdir(results)
    code = tmp_path / "code.txt"
    record = catalogue.own_records(["own"], {"own": Dataset(path=str(path), limit_mib=LIMIT_MIB)}, None, results)["own"]
    code.write_text("code")
    with pytest.raises(user_datasets.Refused) as refusal:
        read_own_dataset.read_own_dataset("own", record, code, results / "own.nc", results / "cards/own.yaml")
    sentence = str(refusal.value)
    assert sentence.startswith(f"{path}: ") and reason in sentence and "\n" not in sentence
    assert list(results.iterdir()) == []


def test_a_dataset_that_is_not_there_is_named_with_what_to_do(tmp_path):
    with pytest.raises(FileNotFoundError) as refusal:
        read_in({"own": Dataset(path="nowhere.npz")}, tmp_path)
    assert str(refusal.value) == (
        "dataset own is unavailable: there is nothing at nowhere.npz; put it there, or name its place under "
        "datasets.own.path"
    )


def test_a_card_is_trusted_only_for_the_files_it_was_made_from(tmp_path):
    path = write_npz(tmp_path)
    entries = {"own": Dataset(path=str(path))}
    _, card = read_in(entries, tmp_path)
    assert catalogue.known_shapes(entries, None, [tmp_path / "cards"])["own"] == official_shapes.Shape((1, 4, 5), 3, 12)
    np.savez_compressed(path, **arrays(split=np.repeat([0, 1], [15, 3])))
    assert catalogue.known_shapes(entries, None, [tmp_path / "cards"])["own"] is None
    path.unlink()
    assert catalogue.known_shapes(entries, None, [tmp_path / "cards"])["own"] is not None
    card.write_text("")
    with pytest.raises(ValueError, match=r"own\.yaml is damaged: delete it and run again"):
        catalogue.known_shapes(entries, None, [tmp_path / "cards"])


# Networks ------------------------------------------------------------------------------------------------

HEAD = "import torch\nfrom torch import nn\n"
LINEAR = "        self.layer = nn.Linear(20, classes)\n"


def network(body, forward="return self.layer(x.flatten(1))", name="Mine"):
    return (
        f"{HEAD}class {name}(nn.Module):\n    def __init__(self, image, classes):\n        super().__init__()\n{body}"
        f"    def forward(self, x):\n        {forward}\n"
    )


BAD_NETWORKS = {
    "not Python": ("class Mine(", "is not valid Python"),
    "another name": (network(LINEAR, name="Yours"), "function 'Mine': correct the name; it defines Yours"),
    "fails on import": (network(LINEAR) + "\n1 / 0\n", "fails when it is run (ZeroDivisionError"),
    "cannot be built": (
        network("        self.layer = nn.Linear(-1, classes)\n"),
        "cannot be built for images of shape",
    ),
    "wrong arguments": (f"{HEAD}def Mine():\n    return nn.Linear(20, 3)\n", "cannot be built for images of shape"),
    "no module": (f"{HEAD}def Mine(image, classes):\n    return lambda x: x\n", "gives a function: return a torch.nn"),
    "forward fails": (network("        self.layer = nn.Linear(7, classes)\n"), "fails on images of shape (1, 4, 5)"),
    "wrong shape": (network("        self.layer = nn.Linear(20, 7)\n"), "gives (3, 7) for 3 images"),
    "no tensor": (network(LINEAR, "return (self.layer(x.flatten(1)),)"), "gives tuple for 3 images"),
    "another type": (network(LINEAR, "return self.layer(x.flatten(1)).float()"), "gives logits of type torch.float32"),
    "random": (
        network(LINEAR, "return self.layer(x.flatten(1)) + torch.rand(1)"),
        "gives different logits for the same",
    ),
    "mixes images": (network(LINEAR, "return self.layer(x.flatten(1) - x.mean())"), "mixes the images of a batch"),
    "batch statistics": (
        network(
            LINEAR + "        self.norm = nn.BatchNorm2d(1, affine=False, track_running_stats=False)\n",
            "return self.layer(self.norm(x).flatten(1))",
        ),
        "mixes the images of a batch",
    ),
    "frozen": (
        network(LINEAR + "        self.layer.weight.requires_grad_(False)\n"),
        "has no weights to train",
    ),
    "no weights": (network("", "return x.flatten(1)[:, :3]"), "has no weights"),
    "cut off from its weights": (
        network(LINEAR, "return self.layer(x.flatten(1)) * self.layer.weight.detach().norm()"),
        "has derivatives that differ from finite differences of its logits",
    ),
    "a number in between": (
        network(LINEAR, "return self.layer(x.flatten(1)) * self.layer.weight.norm().item()"),
        "derivatives that differ from finite differences of its logits",
    ),
    "single precision inside": (
        network(LINEAR, "return nn.functional.linear(x.flatten(1).float(), self.layer.weight.float()).double()"),
        "derivatives that differ from finite differences of its logits",
    ),
    "complex weights": (
        network("        self.weight = nn.Parameter(torch.zeros(20, classes, dtype=torch.complex128))\n"),
        "of type torch.complex128: use real numbers",
    ),
    "lazy": (network("        self.layer = nn.LazyLinear(classes)\n"), "without a shape: leave out lazy layers"),
    "keeps its first scale": (
        network(
            LINEAR + "        self.kept = {}\n",
            "scale = self.kept.setdefault('scale', self.layer.weight.detach().norm())\n"
            "        return self.layer(x.flatten(1)) * scale",
        ),
        "keeps a state between calls",
    ),
    "logits of nothing": (
        network(LINEAR, "return self.layer(x.flatten(1)).detach()"),
        "logits that do not depend on its weights",
    ),
    "not finite": (network(LINEAR, "return self.layer(x.flatten(1)) / 0"), "gives logits that are not finite"),
    "exits": (network(LINEAR) + "\nraise SystemExit(0)\n", "fails when it is run (SystemExit"),
    "not differentiable": (
        network(LINEAR, "return Old.apply(self.layer(x.flatten(1)))") + "class Old(torch.autograd.Function):\n"
        "    forward = staticmethod(lambda ctx, x: 2 * x)\n"
        "    backward = staticmethod(lambda ctx, g: 2 * g)\n",
        "torch.func cannot differentiate",
    ),
}


def load_network(path):
    factory = user_code.load(user_code.describe(str(path), "Mine", {}))
    return user_networks.build_own(factory, (1, 4, 5), 3, {}, f"network mine (Mine in {path})")


@pytest.mark.parametrize("code, reason", BAD_NETWORKS.values(), ids=BAD_NETWORKS)
def test_a_malformed_network_is_refused(code, reason, tmp_path):
    path = tmp_path / "mine.py"
    path.write_text(code)
    with pytest.raises(ValueError) as refusal:
        load_network(path)
    assert reason in str(refusal.value) and str(path) in str(refusal.value)


def test_a_good_network_is_built_and_what_it_draws_does_not_depend_on_the_past(tmp_path):
    path = tmp_path / "mine.py"
    path.write_text(
        network(
            LINEAR + "        self.register_buffer('offset', torch.rand(20))\n",
            "return self.layer(x.flatten(1) + self.offset)",
        )
    )
    first = load_network(path)
    torch.rand(7)
    assert torch.equal(load_network(path).offset, first.offset)
    assert first.layer.weight.dtype == torch.float64 and not first.training


def test_a_networks_fingerprint_follows_its_code_and_no_comment(tmp_path):
    path = tmp_path / "mine.py"
    path.write_text(network(LINEAR))
    first = user_code.describe(str(path), "Mine", {})
    path.write_text("# A comment.\n" + network(LINEAR))
    assert user_code.describe(str(path), "Mine", {}) == first
    user_code.load(first)
    # Name and arguments belong to it, the place of the file does not.
    moved = path.rename(tmp_path / "moved.py")
    assert user_code.describe(str(moved), "Mine", {}).fingerprint == first.fingerprint
    moved.rename(path)
    assert user_code.describe(str(path), "Mine", {"a": 1}).fingerprint != first.fingerprint
    path.write_text(network(LINEAR, "return 2 * self.layer(x.flatten(1))"))
    assert user_code.describe(str(path), "Mine", {}).fingerprint != first.fingerprint
    with pytest.raises(ValueError, match="has changed since the workflow started: run again"):
        user_code.load(first)


def test_a_network_that_is_not_there_is_named(tmp_path):
    with pytest.raises(ValueError, match=r"nowhere\.py cannot be read \(No such file"):
        user_code.describe("nowhere.py", "Mine", {})
