import fcntl
import os
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
import xarray as xr

from goldilocks_zone.data import catalogue, user_datasets
from goldilocks_zone.jobs import failures, lifecycle, run_lock
from goldilocks_zone.provenance import archive
from goldilocks_zone.provenance import attributes as provenance_attributes
from goldilocks_zone.storage import files, netcdf
from goldilocks_zone.training import loop

ROOT = Path(__file__).parents[3]


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


def test_datasets_come_back_bit_for_bit(tmp_path):
    values = np.array([0.1, np.nan, 1e-300, -np.inf])
    netcdf.write_dataset(xr.Dataset({"v": ("i", values)}), tmp_path / "file.nc")
    assert np.array_equal(xr.load_dataset(tmp_path / "file.nc")["v"].values, values, equal_nan=True)


def test_a_flipped_bit_is_found(tmp_path):
    path = tmp_path / "file.nc"
    netcdf.write_dataset(xr.Dataset({"v": ("i", np.random.default_rng(1).random(5000))}), path)
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    with pytest.raises(ValueError, match=r"file\.nc is damaged: delete it and run again"):
        netcdf.read_dataset(path)
    for content in (b"", b"no NetCDF file"):
        path.write_bytes(content)
        with pytest.raises(ValueError, match=r"file\.nc is damaged: delete it and run again"):
            netcdf.read_dataset(path)


def test_a_file_that_another_program_has_locked_is_read(tmp_path):
    """A notebook that has a result open, or a drive that knows no locks."""
    path = tmp_path / "file.nc"
    netcdf.write_dataset(xr.Dataset({"v": ("i", np.arange(5.0))}), path)
    with open(path, "rb+") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        assert np.array_equal(netcdf.read_dataset(path)["v"], np.arange(5.0))
        path.write_bytes(path.read_bytes()[:1000])
        with pytest.raises(OSError, match=r"file\.nc cannot be read: another program has it open to write; close it"):
            netcdf.read_dataset(path)


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
    with pytest.raises(OSError, match=rf"{name} cannot be read: its drive says Input/output error; see to the drive"):
        READERS[name](path)


@pytest.mark.parametrize("name", ["archive.tar.gz", "card.yaml", "run.pt"])
@pytest.mark.parametrize("content", [b"", b"a: 1", b"\xff\xfe text", bytes(5000)])
def test_what_is_damaged_is_named(name, content, tmp_path):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ValueError, match=rf"{name} is (damaged|no archive of make archive).*: "):
        READERS[name](tmp_path / name)


def test_leftovers_of_dead_processes_are_removed_and_of_living_ones_kept(tmp_path):
    with files.whole_file(tmp_path / "folder/alive.nc") as alive:
        alive.touch()
        dead = alive.with_name(alive.name.replace(f"-{os.getpid()}-", "-4194305-"))
        elsewhere = alive.with_name(alive.name.replace(f"-{os.getpid()}-", "-4194305-").replace("alive.", "alive.x"))
        for path in (dead, elsewhere):
            path.touch()
        files.remove_leftovers([tmp_path])
        assert alive.exists() and elsewhere.exists() and not dead.exists()


def clean(folder, *run):
    # -S: without installed packages, for `make clean` works before there are any.
    command = [sys.executable, "-S", "-m", "goldilocks_zone", "clean", *run]
    environment = {"PYTHONPATH": str(ROOT / "scripts")}
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=True, env=environment)
    return done.stdout.strip()


def test_what_is_cleaned_behind_links_goes_and_the_links_stay(tmp_path):
    scratch = tmp_path / "scratch"
    for name in ("results/data", "results/quick", "figures/quick", "elsewhere", "snakemake/log"):
        (scratch / name).mkdir(parents=True)
        (scratch / name / "file").touch()
    links = {
        "results": "results",
        "figures": "figures",
        ".snakemake": "snakemake",
        "scratch/results/other": "elsewhere",
    }
    for link, target in links.items():
        (tmp_path / link).symlink_to(scratch / target)
    assert clean(tmp_path, "other") == "removed results/other; the datasets are kept"
    assert (scratch / "results/quick/file").exists() and not (scratch / "elsewhere/file").exists()
    assert "results/quick" in clean(tmp_path)
    assert all((tmp_path / link).is_symlink() for link in links)
    assert [path for path in scratch.rglob("*") if path.is_file()] == [scratch / "results/data/file"]
    assert not (scratch / "results/quick").exists() and clean(tmp_path) == "there was nothing to remove"


def test_a_link_to_a_folder_that_is_gone_is_named(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("results").symlink_to("/scratch/gone")
    with pytest.raises(OSError, match="results is a link to /scratch/gone, which is not there: make that folder"):
        files.refuse_unwritable(["results"])
    Path("results").unlink()
    with pytest.raises(OSError, match=r"proc/self/mem cannot be removed \(.*\): see to it and run again"):
        files.remove(Path("/proc/self/mem"))


HOLD = "from goldilocks_zone.jobs import run_lock; run_lock.enter(); print('held', flush=True); input()"


def hold(folder, code=HOLD):
    """A process that is the one run at work in `folder` until it is killed."""
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
        run_lock.Busy, match=rf"another run is at work in this folder \(process {holder.pid} on .*\): wait"
    ):
        run_lock.enter(tmp_path)
    holder.kill()
    holder.wait()
    assert (tmp_path / run_lock.LOCK).read_text().startswith(f"process {holder.pid} on ")
    holder = hold(tmp_path)
    # Who ends in order is forgotten.
    holder.communicate("\n")
    assert (tmp_path / run_lock.LOCK).read_text() == ""


def test_the_lock_of_another_machine_stays(tmp_path):
    (tmp_path / run_lock.LOCK).write_text("process 77 on another-node")
    sentence = r"\.goldilocks\.lock is held by process 77 on another-node: wait .* if it is gone, delete this file"
    with pytest.raises(run_lock.Busy, match=sentence):
        run_lock.enter(tmp_path)
    assert (tmp_path / run_lock.LOCK).read_text() == "process 77 on another-node"


NO_LOCKS = (
    "import fcntl, os\n"
    "def refuse(*_): raise OSError(38, 'no locks')\n"
    "fcntl.flock = refuse\n"
    "from goldilocks_zone.jobs import run_lock; run_lock.enter(); print('held', flush=True); input()"
)


def test_without_locks_of_the_file_system_a_living_process_is_known_by_its_number(tmp_path, monkeypatch):
    def refuse(*_):
        raise OSError(38, "no locks")

    holder = hold(tmp_path, NO_LOCKS)
    monkeypatch.setattr("fcntl.flock", refuse)
    with pytest.raises(run_lock.Busy, match=f"held by process {holder.pid} on "):
        run_lock.enter(tmp_path)
    holder.kill()
    holder.wait()
    hold(tmp_path, NO_LOCKS).kill()


def test_a_sentence_of_any_letters_reaches_screen_log_and_make(tmp_path, monkeypatch):
    done = run_job("with job_log('job.log'):\n    raise ValueError('a bad name \\udce9')", tmp_path)
    assert done.returncode == 1 and "Traceback" not in done.stderr
    assert "FAILED a bad name" in (tmp_path / "job.log").read_text()
    command = "from goldilocks_zone.jobs.failures import one_sentence\nwith one_sentence():\n"
    for place, left in ((tmp_path / "failure.txt", True), (tmp_path / "nowhere/failure.txt", False)):
        monkeypatch.setenv(failures.FAILURE_VARIABLE, str(place))
        done = run_job(f"{command}    raise ValueError('a bad name \\udce9')", tmp_path)
        assert done.returncode == 1 and done.stderr.startswith("a bad name") and "Traceback" not in done.stderr
        assert place.exists() == left and (not left or place.read_text().startswith("a bad name"))


def run_job(code, tmp_path):
    text = f"import sys; sys.path.insert(0, {str(ROOT / 'scripts')!r})\n"
    text += f"from goldilocks_zone.jobs.log import job_log\n{code}"
    return subprocess.run([sys.executable, "-c", text], cwd=tmp_path, capture_output=True, text=True)


def test_a_failing_job_says_one_sentence_and_logs_the_traceback(tmp_path):
    done = run_job("with job_log('logs/job.log'):\n    raise ValueError('a bad\\n  value')", tmp_path)
    assert done.returncode == 1
    assert done.stderr.strip() == "a bad value (log: logs/job.log)"
    log = (tmp_path / "logs/job.log").read_text()
    assert "Traceback" in log and log.strip().endswith("a bad value")


def test_a_job_ends_with_its_block_and_says_all_it_had_to_say(tmp_path):
    done = run_job("with job_log('job.log'):\n    print('within', end='')\nprint('behind')", tmp_path)
    assert done.returncode == 0 and done.stdout == "within"
    assert "done in" in (tmp_path / "job.log").read_text()


def test_warnings_go_to_the_log(tmp_path):
    done = run_job("import warnings\nwith job_log('job.log'):\n    warnings.warn('beware')", tmp_path)
    assert done.returncode == 0 and done.stderr == ""
    assert "beware" in (tmp_path / "job.log").read_text()


def test_a_job_dies_with_what_started_it(tmp_path):
    """Snakemake, killed, leaves a shell behind that would go on waiting for the job."""
    job = (
        f"import sys, time; sys.path.insert(0, {str(ROOT / 'scripts')!r})\n"
        "from pathlib import Path\n"
        "from goldilocks_zone.jobs.log import job_log\n"
        "with job_log('job.log'):\n"
        "    for i in range(200):\n"
        "        Path('alive').write_text(str(i)); time.sleep(0.1)\n"
    )
    (tmp_path / "job.py").write_text(job)
    starter = f"import subprocess, sys; sys.path.insert(0, {str(ROOT / 'scripts')!r})\n"
    starter += "from goldilocks_zone.jobs import lifecycle; lifecycle.name_to_jobs(first=False)\n"
    starter += f"subprocess.run(['bash', '-c', 'true; {sys.executable} job.py; true'])"
    parent = subprocess.Popen([sys.executable, "-c", starter], cwd=tmp_path)
    deadline = time.monotonic() + 20
    while not (tmp_path / "alive").exists() and time.monotonic() < deadline:
        time.sleep(0.1)
    parent.kill()
    parent.wait()
    time.sleep(2.5 * lifecycle.CHECK_SECONDS)
    last = (tmp_path / "alive").read_text()
    time.sleep(1)
    assert (tmp_path / "alive").read_text() == last


# As Snakemake writes it: an attempt that failed, was repeated and done, and a job that failed for good.
SNAKEMAKES_LOG = """Job 2: x
[Thu Nov 26 00:52:20 2026]
Error in rule training:
    message: None
    jobid: 2
    log: other.log (check log file(s) for error details)
Trying to restart job 2.
[Thu Nov 26 00:52:21 2026]
Finished jobid: 2 (Rule: training)
RuleException:
CalledProcessError in file "workflow/rules/curvature.smk", line 37:
{command}[Thu Nov 26 00:52:21 2026]
Error in rule curvature:
    message: {message}
    jobid: 3
    log: job.log (check log file(s) for error details)
Shutting down, this might take some time.
"""
COMMAND = "Command 'set -euo pipefail;  python tmp.measure_curvature.py' {}.\n"
UNSAID = "2026-01-01 10:00:00,000 draw 1 measured\n"


@pytest.mark.parametrize(
    "job_log, command, message, reason",
    [
        ("Traceback\n2026-01-01 10:00:00,001 FAILED no such radius\n", "", None, "no such radius"),
        (UNSAID, "died with <Signals.SIGKILL: 9>", None, "killed (SIGKILL) before it could say why, perhaps for want"),
        (None, "returned non-zero exit status 137", None, "killed (SIGKILL) before it could say why, perhaps for want"),
        (UNSAID, "died with <Signals.SIGSEGV: 11>", None, "ended by SIGSEGV before it could say why; run again"),
        (None, "returned non-zero exit status 127", None, "ended with status 127 before it could say why: its message"),
        (None, "", None, "ended before it could say why: its message stands above"),
        (
            UNSAID,
            "",
            "SLURM-job '7' failed, SLURM status is: 'OUT_OF_MEMORY'. x",
            "SLURM says OUT_OF_MEMORY, and the job",
        ),
    ],
)
def test_the_failed_job_is_named_in_one_line(job_log, command, message, reason, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv(failures.FAILURE_VARIABLE, "failure.txt")
    if job_log:
        Path("job.log").write_text(job_log)
    command = COMMAND.format(command) if command else ""
    Path("workflow.log").write_text(SNAKEMAKES_LOG.format(command=command, message=message))
    failures.report_failed_job(["workflow.log"])
    sentence = Path("failure.txt").read_text()
    assert sentence.startswith(f"rule curvature failed: {reason}") and sentence.endswith("(log: job.log)\n")
    assert ("memory" in sentence) == ("SIGKILL" in sentence)
    # The first failure is the one that counts.
    failures.report("another one")
    assert Path("failure.txt").read_text() == sentence


def test_stale_blocks_are_refused_by_name(tmp_path):
    for name, attributes in [
        ("good", provenance_attributes.attributes("code", {"a": 1, "b": 2}, 1.0)),
        ("code", provenance_attributes.attributes("other", {"a": 1, "b": 2}, 1.0)),
        ("settings", provenance_attributes.attributes("code", {"a": 1, "b": 3}, 1.0)),
    ]:
        netcdf.write_dataset(xr.Dataset(attrs=attributes), tmp_path / f"{name}.nc")
    provenance_attributes.refuse_stale(tmp_path / "good.nc", "code", {"b": 2, "a": 1})
    for name in ("code", "settings"):
        with pytest.raises(ValueError, match=rf"{name}\.nc was made by other {name}"):
            provenance_attributes.refuse_stale(tmp_path / f"{name}.nc", "code", {"a": 1, "b": 2})
    with pytest.raises(ValueError, match=r"good\.nc was made by another version of its network"):
        provenance_attributes.refuse_stale(tmp_path / "good.nc", "code", {"a": 1, "b": 2}, "of a network")


def test_provenance_names_commit_versions_and_settings():
    found = provenance_attributes.attributes("code", {"a": 1}, 1.234, device="cpu")
    assert {"commit", "settings_hash", "torch_version", "numpy_version", "scipy_version", "device"} <= set(found)
    assert found["wall_seconds"] == 1.23


def repository(folder):
    """Make a folder a repository with one commit; returns the commit."""
    identity = ["-c", "user.name=a", "-c", "user.email=a@b"]
    for command in (["init", "-q"], ["add", "-A"], [*identity, "commit", "-qm", "first", "--allow-empty"]):
        subprocess.run(["git", *command], cwd=folder, check=True)
    shown = subprocess.run(["git", "rev-parse", "--short=12", "HEAD"], cwd=folder, capture_output=True, text=True)
    return shown.stdout.strip()


def test_the_commit_is_that_of_the_checkout_and_of_no_repository_around_it(tmp_path, monkeypatch):
    checkout = tmp_path / "outer/checkout"
    checkout.mkdir(parents=True)
    (checkout / "file").touch()
    repository(tmp_path / "outer")
    monkeypatch.setattr(provenance_attributes, "ROOT", checkout)
    assert provenance_attributes.commit() == "unknown"
    # As git sets it in a hook.
    monkeypatch.setenv("GIT_DIR", str(tmp_path / "outer/.git"))
    assert provenance_attributes.commit() == "unknown"
    monkeypatch.delenv("GIT_DIR")
    assert repository(checkout) == provenance_attributes.commit()
    (checkout / "file").write_text("changed")
    assert provenance_attributes.commit().endswith("-dirty")


def test_what_a_job_refuses_it_refuses_at_once_when_the_same_run_tries_again(tmp_path, monkeypatch):
    code = "with job_log('job.log'):\n    open('tried', 'a').write('x')\n    raise {}('a bad value')"
    # Nobody's: that of a run that lives is watched.
    monkeypatch.setenv(lifecycle.RUN_VARIABLE, f"{os.getpid()} elsewhere")
    for _ in range(2):
        done = run_job(code.format("ValueError"), tmp_path)
        assert done.returncode == 1 and done.stderr.strip() == "a bad value (log: job.log)"
    assert (tmp_path / "tried").read_text() == "x"
    # Another run tries; and so does the same where something else was the matter.
    monkeypatch.setenv(lifecycle.RUN_VARIABLE, f"{os.getpid()} elsewhere again")
    for count in (2, 3):
        run_job(code.format("OSError"), tmp_path)
        assert (tmp_path / "tried").read_text() == "x" * count
