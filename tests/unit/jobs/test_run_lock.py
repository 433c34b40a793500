"""One run at a time in a checkout, on file systems with and without locks."""

import subprocess
import sys
from pathlib import Path

import pytest

from goldilocks_zone.jobs import locks

ROOT = Path(__file__).parents[3]


HOLD = "from goldilocks_zone.jobs import locks; locks.enter_run(); print('held', flush=True); input()"


def hold(folder, code=HOLD):
    """Start a process that runs `code`, by default to hold the run lock of `folder` until it is killed.

    Returns once the process reports that it holds the lock.
    """
    holder = subprocess.Popen(
        [sys.executable, "-c", f"import sys; sys.path.insert(0, {str(ROOT / 'scripts')!r}); {code}"],
        cwd=folder,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert holder.stdout.readline() == "held\n"
    return holder


def test_one_run_at_a_time_and_the_lock_of_a_dead_one_goes(tmp_path):
    holder = hold(tmp_path)
    with pytest.raises(
        locks.Busy, match=rf"another run is at work in this folder \(process {holder.pid} on .*\): wait"
    ):
        locks.enter_run(tmp_path)
    holder.kill()
    holder.wait()
    assert (tmp_path / locks.LOCK).read_text().startswith(f"process {holder.pid} on ")
    holder = hold(tmp_path)
    # Who ends in order is forgotten.
    holder.communicate("\n")
    assert (tmp_path / locks.LOCK).read_text() == ""


def test_the_lock_of_another_machine_stays(tmp_path):
    (tmp_path / locks.LOCK).write_text("process 77 on another-node")
    sentence = r"\.goldilocks\.lock is held by process 77 on another-node: wait .* if it is gone, delete this file"
    with pytest.raises(locks.Busy, match=sentence):
        locks.enter_run(tmp_path)
    assert (tmp_path / locks.LOCK).read_text() == "process 77 on another-node"


NO_LOCKS = (
    "import fcntl, os\n"
    "def refuse(*_): raise OSError(38, 'no locks')\n"
    "fcntl.flock = refuse\n"
    "from goldilocks_zone.jobs import locks; locks.enter_run(); print('held', flush=True); input()"
)


def test_without_locks_of_the_file_system_a_living_process_is_known_by_its_number(tmp_path, monkeypatch):
    def refuse(*_):
        raise OSError(38, "no locks")

    holder = hold(tmp_path, NO_LOCKS)
    monkeypatch.setattr("fcntl.flock", refuse)
    with pytest.raises(locks.Busy, match=f"held by process {holder.pid} on "):
        locks.enter_run(tmp_path)
    holder.kill()
    holder.wait()
    hold(tmp_path, NO_LOCKS).kill()
