"""Disturbed runs: one clear sentence, no partial files, and the undisturbed result after a rerun."""

import os
import shutil
import signal
import subprocess
import time

import pytest
import xarray as xr

from made_up.projects import BLOCK, CAN_MOUNT, READ_ONLY, STUDY, clean_environment

BLOCKS = "results/tiny/curvature"
pytestmark = pytest.mark.slow
needs_mounts = pytest.mark.skipif(not CAN_MOUNT, reason="needs root, to mount full and read-only folders")


@pytest.fixture
def project(built, tmp_path):
    """Copy of the built project without blocks and aggregate of the study, so that it must be measured again."""
    copy = built.copy(tmp_path / "project")
    shutil.rmtree(copy.folder / BLOCKS)
    (copy.folder / STUDY).unlink()
    return copy


def start(project, command=None, wait_for_log=True):
    """Start the run in its own process group, as in a terminal; returns its process and the ID of its job's process.

    Returns once the job writes its log or, without `wait_for_log`, once it exists. `command` replaces Snakemake's.
    """
    shutil.rmtree(project.folder / "logs")
    with open(project.folder / "output.txt", "w") as output:
        running = subprocess.Popen(
            command or project.command(STUDY),
            cwd=project.folder,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            # Tests started in the background of a shell ignore it, and so would all that they start.
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
            env=clean_environment(GOLDILOCKS_FAILURE=str(project.folder / "failure.txt")),
        )
    wait_for(lambda: processes("measure_block", project.folder))
    if wait_for_log:
        wait_for(lambda: list((project.folder / "logs/tiny").rglob("draws*.log")))
    return running, processes("measure_block", project.folder)[0]


def wait_for(condition, seconds=60):
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if found := condition():
            return found
        time.sleep(0.05)
    raise AssertionError("waited in vain")


def processes(part, folder):
    """IDs of the Python processes in the working directory `folder` whose command line contains `part`."""
    found = []
    for entry in os.listdir("/proc"):
        try:
            with open(f"/proc/{entry}/cmdline", "rb") as file:
                words = file.read().decode(errors="replace").split("\0")
            if (
                "python" in words[0]
                and any(part in word for word in words)
                and os.readlink(f"/proc/{entry}/cwd") == str(folder)
            ):
                found.append(int(entry))
        except (OSError, IndexError):
            continue
    return found


def nothing_partial(project, built):
    """Whether a project has no hidden files, and no block that differs from that of `built`.

    A block may exist, because a job may finish before a signal reaches it.
    """
    hidden = [path for place in ("results", "figures") for path in (project.folder / place).rglob(".*")]
    blocks = [path for path in (project.folder / BLOCKS).rglob("*") if path.is_file()]
    expected = xr.load_dataset(built.folder / BLOCK)
    return not hidden and all(xr.load_dataset(path).equals(expected) for path in blocks)


def same_result(project, built):
    """Assert that a rerun gives the study of `built` bit for bit, and leaves no hidden files; returns its output."""
    output = project.run(STUDY)
    found, expected = (xr.load_dataset(folder / STUDY) for folder in (project.folder, built.folder))
    assert found.equals(expected)
    assert not [path for place in ("results", "figures") for path in (project.folder / place).rglob(".*")]
    return output


def test_a_killed_job(project, built):
    running, job = start(project)
    os.kill(job, signal.SIGKILL)
    assert running.wait(60) == 1
    # What make says in its last line.
    sentence = (
        "rule curvature failed: killed (SIGKILL) without a message, perhaps because memory ran out; run again (log: "
    )
    assert (project.folder / "failure.txt").read_text().startswith(sentence)
    assert nothing_partial(project, built)
    same_result(project, built)


@pytest.mark.parametrize("wait_for_log", [False, True])
def test_a_killed_snakemake(project, built, wait_for_log):
    """Its job ends too, even if it has just started, and no lock blocks the next run."""
    running, _ = start(project, wait_for_log=wait_for_log)
    os.kill(running.pid, signal.SIGKILL)
    running.wait()
    wait_for(lambda: not processes("measure_block", project.folder), seconds=15)
    if not wait_for_log:
        return
    for dry in ("--dry-run", "-nq"):
        assert project.snakemake(STUDY, dry).returncode == 0
    same_result(project, built)


def test_an_interrupt_from_the_keyboard(project, built):
    running, _ = start(project, ["make", "figure", "NAME=loss", "CONFIG=config/tiny.yaml"])
    os.killpg(running.pid, signal.SIGINT)
    assert running.wait(60) != 0
    output = (project.folder / "output.txt").read_text()
    assert "interrupted: run the same command again and it continues" in output and "Traceback" not in output
    wait_for(lambda: not processes("measure_block", project.folder), seconds=10)
    assert nothing_partial(project, built)
    same_result(project, built)


def test_two_runs_at_once(project, built):
    running, _ = start(project)
    # On a slow machine it would be done before the others have started.
    os.killpg(running.pid, signal.SIGSTOP)
    second = project.snakemake(STUDY)
    assert second.returncode != 0
    (sentence,) = [line for line in second.stderr.splitlines() if "another run is at work in this folder" in line]
    assert f"(process {running.pid} on " in sentence and sentence.endswith("stop it, and run again")
    for command in (["clean"], ["orphans", "REMOVE=yes"]):
        done = project.make(*command)
        assert done.returncode != 0 and "another run is at work" in done.stderr.splitlines()[-1]
    os.killpg(running.pid, signal.SIGCONT)
    assert running.wait(60) == 0
    assert xr.load_dataset(project.folder / STUDY).equals(xr.load_dataset(built.folder / STUDY))


def run_mounted(project, mount):
    """Run the project in a separate mount namespace, after the shell command `mount`; returns standard error.

    Asserts that the run fails and reports the reason to `make`.
    """
    command = " ".join(project.command(STUDY))
    script = f"set -e; cd {project.folder}; {mount}; cd {project.folder}; {command}"
    failure = project.folder.parent / "failure.txt"
    environment = clean_environment(GOLDILOCKS_FAILURE=str(failure))
    done = subprocess.run(["unshare", "-m", "bash", "-c", script], capture_output=True, text=True, env=environment)
    # The last line of make, where the name of the rule comes first.
    assert done.returncode != 0 and failure.read_text().strip().removeprefix("rule curvature failed: ") in done.stderr
    return done.stderr


FULL = "mount -t tmpfs -o size={size} tmpfs {folder}"


@needs_mounts
def test_a_disk_that_fills_up_under_a_job(project, built):
    (project.folder / BLOCKS).mkdir()
    output = run_mounted(project, FULL.format(size="16k", folder=BLOCKS))
    assert f"{BLOCK} cannot be written: the disk is full; make room and run again (log: " in output
    assert nothing_partial(project, built)
    same_result(project, built)


@needs_mounts
@pytest.mark.parametrize(
    "mount, folder, reason",
    [
        (FULL, "logs", "the disk is full; make room and run again"),
        (READ_ONLY, "results", "read-only; make it writable and run again"),
        (READ_ONLY, ".", "read-only; make it writable and run again"),
    ],
)
def test_a_folder_that_takes_no_files_stops_the_run_before_any_job(project, built, mount, folder, reason):
    place = project.folder / folder
    output = run_mounted(project, mount.format(size="4k", folder=place))
    (sentence,) = [line for line in output.splitlines() if "cannot be written" in line]
    assert sentence.endswith(reason)
    assert "Measuring curvature" not in output and nothing_partial(project, built)


def test_a_damaged_file_is_named(built, tmp_path):
    """A failing disk truncates a result between the job that writes it and the job that reads it."""
    project = built.copy(tmp_path / "project")
    (project.folder / STUDY).unlink()
    block = project.folder / BLOCK
    age = block.stat()
    content = block.read_bytes()
    block.write_bytes(content[: len(content) // 2])
    os.utime(block, ns=(age.st_atime_ns, age.st_mtime_ns))
    done = project.snakemake(STUDY)
    assert done.returncode != 0
    assert f"{BLOCK} is damaged: delete it and run again (log: logs/tiny/aggregate/curvature.log)" in done.stderr
