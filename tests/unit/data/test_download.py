"""Mirrors that fail in every way, and CIFAR-10's archive."""

import dataclasses
import hashlib
import io
import shutil
import socketserver
import tarfile
import threading
import time

import fetch_dataset
import numpy as np
import pytest

from goldilocks_zone.data import download, official, official_shapes
from goldilocks_zone.data.download import SourceFailed

CONTENT = bytes(range(256)) * 1000
HEAD = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(CONTENT)


class Mirror(socketserver.StreamRequestHandler):
    """Server whose answer depends on the path of the request."""

    def handle(self):
        path = self.rfile.readline().split()[1].decode()
        if path == "/good":
            self.wfile.write(HEAD + CONTENT)
        elif path == "/missing":
            self.wfile.write(b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n")
        elif path == "/cut":
            self.wfile.write(HEAD + CONTENT[:1000])
        elif path == "/silent":
            time.sleep(3)
        else:  # a byte now and then, in the header or in the content
            self.wfile.write(HEAD if path == "/trickle" else b"HTTP/1.1 200 OK\r\nX: ")
            for _ in range(60):
                self.wfile.write(b"x")
                self.wfile.flush()
                time.sleep(0.05)


@pytest.fixture(scope="module")
def mirror():
    class Server(socketserver.ThreadingTCPServer):
        daemon_threads = True
        handle_error = staticmethod(lambda request, address: None)

    with Server(("127.0.0.1", 0), Mirror) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_address[1]}"
        server.shutdown()


def test_a_good_mirror(mirror):
    assert download.download(f"{mirror}/good", len(CONTENT)) == CONTENT


@pytest.mark.parametrize(
    "path, limit, reason",
    [
        ("/missing", 10**6, "answered 404"),
        ("/cut", 10**6, "broke off"),
        ("/good", 1000, "good is longer than the official file"),
        ("/silent", 10**6, "too slow: 0 KiB in|no answer in time"),
        ("/trickle", 10**6, "too slow: 0 KiB in"),
        ("/header", 10**6, "too slow: 0 KiB in"),
    ],
)
def test_a_bad_mirror_is_given_up_in_time(path, limit, reason, mirror, monkeypatch):
    monkeypatch.setattr(download, "WINDOW_SECONDS", 0.5)
    start = time.monotonic()
    with pytest.raises(SourceFailed, match=reason):
        download.download(mirror + path, limit)
    assert time.monotonic() - start < 2


def test_a_mirror_that_is_not_there():
    with pytest.raises(SourceFailed, match="cannot be reached"):
        download.download("http://127.0.0.1:9/file", 1000)


def test_a_tool_that_hangs_is_given_up(tmp_path, monkeypatch):
    monkeypatch.setattr(download, "PACKAGE_SECONDS", 0.2)
    with pytest.raises(SourceFailed, match=r"sleep took longer than 0\.2 s"):
        download.run_tool(["sleep", "5"], tmp_path)


# CIFAR-10 ------------------------------------------------------------------------------------------------


def cifar_archive(records):
    """Content of an archive with the layout of CIFAR-10's: five files of training `records` and one of test records.

    The test file is the last sixth of the records.
    """
    content = io.BytesIO()
    with tarfile.open(fileobj=content, mode="w:gz") as archive:
        names = [*(f"data_batch_{i}.bin" for i in range(1, 6)), "test_batch.bin", "batches.meta.txt"]
        for name, part in zip(names, [*np.split(records, 6), records[:0]]):
            entry = tarfile.TarInfo(f"cifar-10-batches-bin/{name}")
            entry.size = part.size
            archive.addfile(entry, io.BytesIO(part.tobytes()))
    return content.getvalue()


@pytest.fixture
def cifar(tmp_path, monkeypatch):
    """User's folder with a small archive whose checksum is set as that of CIFAR-10, and the records in the archive."""
    random = np.random.default_rng(0)
    records = random.integers(0, 256, (60, 3073), dtype=np.uint8)
    records[:, 0] = np.arange(60) % 10
    content = cifar_archive(records)
    (tmp_path / official.CIFAR_ARCHIVE).write_bytes(content)
    checksums = {official.CIFAR_ARCHIVE: hashlib.md5(content).hexdigest()}
    source = dataclasses.replace(official.SOURCES["cifar10"], checksums=checksums, mirrors=())
    monkeypatch.setitem(official.SOURCES, "cifar10", source)
    return tmp_path, records


def test_cifar_records_become_colour_planes(cifar):
    folder, records = cifar
    found = official.fetch("cifar10", str(folder))
    assert found["split"].values.tolist() == [0] * 50 + [1] * 10
    assert np.array_equal(found["labels"], records[:, 0])
    # A record: label, then 1,024 red, 1,024 green and 1,024 blue bytes, each row by row.
    assert found["images"].shape == (60, 3, 32, 32)
    assert np.array_equal(found["images"][7, 1, 2], records[7, 1 + 1024 + 64 : 1 + 1024 + 96])


def test_an_archive_that_is_not_the_official_one_is_refused(cifar):
    folder, _ = cifar
    archive = folder / official.CIFAR_ARCHIVE
    archive.write_bytes(archive.read_bytes()[:-1])
    with pytest.raises(official.Unavailable, match=r"cifar-10-binary\.tar\.gz has the wrong checksum"):
        official.fetch("cifar10", str(folder))


def test_a_dataset_that_was_verified_is_fetched_again_only_for_another_reader(cifar, tmp_path, monkeypatch, caplog):
    """Applies if no checksum of its content is known; without any source, the verified copy is used."""
    folder, place = cifar[0], tmp_path / "data"
    place.mkdir()
    monkeypatch.delenv("GOLDILOCKS_DATA", raising=False)

    def fetch(code):
        (place / "code.txt").write_text(code)
        path, card = place / "cifar10.nc", place / "cards/cifar10.yaml"
        path.unlink(missing_ok=True)
        fetch_dataset.fetch_dataset("cifar10", str(folder), place / "code.txt", path, card)
        return path.read_bytes()

    expected = fetch("first")
    with monkeypatch.context() as patch:
        patch.setattr(official, "fetch", None)
        assert fetch("first") == expected
    assert fetch("second") != expected and not caplog.text  # The file carries its reader's fingerprint.
    expected = fetch("second")
    (folder / official.CIFAR_ARCHIVE).unlink()
    assert fetch("third") == expected and "it has no file cifar-10-binary.tar.gz" in caplog.text
    # Content that is not the right one serves nobody.
    monkeypatch.setitem(official_shapes.CHECKSUMS, "cifar10", "another")
    with pytest.raises(official.Unavailable):
        fetch("third")
    shutil.rmtree(place / "verified")
    monkeypatch.delitem(official_shapes.CHECKSUMS, "cifar10")
    with pytest.raises(official.Unavailable):
        fetch("third")
