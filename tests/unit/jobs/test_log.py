"""Logs of jobs: one sentence on the screen, everything else in the log, and the job's end with the run."""

import os
import subprocess
import sys
import time
from pathlib import Path

from goldilocks_zone.jobs import failures, lifecycle

ROOT = Path(__file__).parents[3]


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


def test_an_error_whose_text_says_little_is_named(tmp_path):
    done = run_job("with job_log('job.log'):\n    {}['batch']", tmp_path)
    assert done.stderr.strip() == "KeyError: 'batch' (log: job.log)"
    own = "from goldilocks_zone.data.official import Unavailable\n"
    done = run_job(f"{own}with job_log('job.log'):\n    raise Unavailable('dataset a is unavailable')", tmp_path)
    assert done.stderr.strip() == "dataset a is unavailable (log: job.log)"


def test_a_sentence_of_any_letters_reaches_screen_log_and_make(tmp_path, monkeypatch):
    monkeypatch.setenv(failures.FAILURE_VARIABLE, str(tmp_path / "failure.txt"))
    done = run_job("with job_log('job.log'):\n    raise ValueError('a bad name \\udce9')", tmp_path)
    assert done.returncode == 1 and "Traceback" not in done.stderr
    # Snakemake may retry the job: make hears of the last attempt alone.
    assert not (tmp_path / "failure.txt").exists()
    assert "FAILED a bad name" in (tmp_path / "job.log").read_text()
    command = "from goldilocks_zone.jobs.failures import one_sentence\nwith one_sentence():\n"
    for place, left in ((tmp_path / "failure.txt", True), (tmp_path / "nowhere/failure.txt", False)):
        monkeypatch.setenv(failures.FAILURE_VARIABLE, str(place))
        done = run_job(f"{command}    raise ValueError('a bad name \\udce9')", tmp_path)
        assert done.returncode == 1 and done.stderr.startswith("a bad name") and "Traceback" not in done.stderr
        assert place.exists() == left and (not left or place.read_text().startswith("a bad name"))


def test_a_job_ends_with_its_block_and_says_all_it_had_to_say(tmp_path):
    done = run_job("with job_log('job.log'):\n    print('within', end='')\nprint('behind')", tmp_path)
    assert done.returncode == 0 and done.stdout == "within"
    assert "done in" in (tmp_path / "job.log").read_text()


def test_warnings_go_to_the_log(tmp_path):
    done = run_job("import warnings\nwith job_log('job.log'):\n    warnings.warn('beware')", tmp_path)
    assert done.returncode == 0 and done.stderr == ""
    assert "beware" in (tmp_path / "job.log").read_text()


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


def test_a_job_dies_with_what_started_it(tmp_path):
    """A killed Snakemake leaves a shell behind that would keep waiting for the job; here on a node of a cluster."""
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
