"""Datasets of users: arrays and images, in files, archives and folders."""

import io
import struct
import tarfile
import zipfile
import zlib

import numpy as np
from PIL import Image

RANDOM = np.random.default_rng(0)


def arrays(**changes):
    """Arrays of a valid .npz dataset, by name: 12 training examples and 6 test examples of 3 classes.

    `changes` replace arrays, and None removes one.
    """
    images = RANDOM.integers(0, 256, (18, 4, 5), dtype=np.uint8)
    good = {"images": images, "labels": np.arange(18) % 3, "split": np.repeat([0, 1], [12, 6])}
    return {name: value for name, value in (good | changes).items() if value is not None}


def write_npz(folder, **changes):
    path = folder / "own.npz"
    np.savez_compressed(path, **arrays(**changes))
    return path


def image_bytes(array, kind="PNG"):
    content = io.BytesIO()
    Image.fromarray(array).save(content, kind)
    return content.getvalue()


def members(**changes):
    """Files of a valid dataset in folders, as {name: content}; `changes` replace contents, and None removes a file."""
    names = [f"{split}/{name}/{i}.png" for split in ("train", "test") for name in ("cat", "dog") for i in range(3)]
    good = {name: image_bytes(RANDOM.integers(0, 256, (4, 5), dtype=np.uint8)) for name in names}
    return {name: content for name, content in (good | changes).items() if content is not None}


def write_tar(folder, entries, name="own.tar.xz"):
    path = folder / name
    with tarfile.open(path, "w:" + path.suffix[1:].replace("tar", "")) as archive:
        for member, content in entries.items():
            entry = content if isinstance(content, tarfile.TarInfo) else tarfile.TarInfo(member)
            if isinstance(content, bytes):
                entry.size = len(content)
            archive.addfile(entry, io.BytesIO(content) if isinstance(content, bytes) else None)
    return path


def write_zip(folder, entries):
    path = folder / "own.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for member, content in entries.items():
            archive.writestr(member, content)
    return path


def write_folder(folder, entries):
    for member, content in entries.items():
        path = folder / "own" / member
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    return folder / "own"


def link(name, target):
    entry = tarfile.TarInfo(name)
    entry.type, entry.linkname = tarfile.SYMTYPE, target
    return entry


def four_bits():
    """Content of a greyscale PNG with 4 bits per pixel, which a reader would scale to 8 bits without a warning."""
    rows = b"".join(b"\0" + bytes([0x12, 0x34, 0x50]) for _ in range(4))
    content = b"\x89PNG\r\n\x1a\n"
    for kind, data in [
        (b"IHDR", struct.pack(">IIBBBBB", 5, 4, 4, 0, 0, 0, 0)),
        (b"IDAT", zlib.compress(rows)),
        (b"IEND", b""),
    ]:
        content += struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
    return content
