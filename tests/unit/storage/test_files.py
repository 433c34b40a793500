"""Atomic writing of files, and files affected by faulty drives or users."""

import os
from pathlib import Path

import pytest
import torch

from goldilocks_zone.data import catalogue, user_datasets
from goldilocks_zone.provenance import archive
from goldilocks_zone.storage import files, netcdf
from goldilocks_zone.training import loop


def test_a_file_is_whole_or_absent(tmp_path):
    target = tmp_path / "folder" / "file.txt"
    with pytest.raises(RuntimeError), files.whole_file(target) as temporary:
        temporary.write_text("half")
        raise RuntimeError
    assert list(target.parent.iterdir()) == []
    files.write_text("whole", target)
    with pytest.raises(RuntimeError), files.whole_file(target) as temporary:
        temporary.write_text("half")
        raise RuntimeError
    assert target.read_text() == "whole" and list(target.parent.iterdir()) == [target]


def test_a_file_of_the_same_content_keeps_its_age(tmp_path):
    path = tmp_path / "file.txt"
    files.write_if_changed("a", path)
    age = path.stat().st_mtime_ns
    files.write_if_changed("a", path)
    assert path.stat().st_mtime_ns == age
    files.write_if_changed("b", path)
    assert path.read_text() == "b"


def test_leftovers_of_dead_processes_are_removed_and_of_living_ones_kept(tmp_path):
    with files.whole_file(tmp_path / "folder/alive.nc") as alive:
        alive.touch()
        dead = alive.with_name(alive.name.replace(f"-{os.getpid()}-", "-4194305-"))
        elsewhere = alive.with_name(alive.name.replace(f"-{os.getpid()}-", "-4194305-").replace("alive.", "alive.x"))
        for path in (dead, elsewhere):
            path.touch()
        files.remove_leftovers([tmp_path])
        assert alive.exists() and elsewhere.exists() and not dead.exists()


def test_a_link_to_a_folder_that_is_gone_is_named(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("results").symlink_to("/scratch/gone")
    with pytest.raises(OSError, match="results is a link to /scratch/gone, which is not there: make that folder"):
        files.refuse_unwritable(["results"])
    Path("results").unlink()
    with pytest.raises(OSError, match=r"proc/self/mem cannot be removed \(.*\): remove it and run again"):
        files.remove(Path("/proc/self/mem"))


READERS = {
    "file.nc": netcdf.read_dataset,
    "archive.tar.gz": archive.read_manifest,
    "own.tar": lambda path: user_datasets.read("own", path, "none"),
    "card.yaml": lambda path: catalogue.known_shapes({}, None, [path.parent]),
    "run.pt": lambda path: loop._saved(path, torch.device("cpu")),
}


@pytest.mark.parametrize("name", READERS)
def test_what_a_drive_does_not_give_is_not_called_damaged(name, tmp_path):
    path = tmp_path / name
    path.symlink_to("/proc/self/mem")  # whose first byte is an input/output error
    with pytest.raises(OSError, match=rf"{name} cannot be read: its drive says Input/output error; check the drive"):
        READERS[name](path)


@pytest.mark.parametrize("name", ["archive.tar.gz", "card.yaml", "run.pt"])
@pytest.mark.parametrize("content", [b"", b"a: 1", b"\xff\xfe text", bytes(5000)])
def test_what_is_damaged_is_named(name, content, tmp_path):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ValueError, match=rf"{name} (is damaged|was not written by 'make archive').*: "):
        READERS[name](tmp_path / name)
