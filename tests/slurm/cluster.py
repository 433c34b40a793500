"""A SLURM cluster of one node on this machine, with a stand-in for a GPU, started for tests and stopped again."""

import os
import pwd
import shutil
import socket
import subprocess
import time
from pathlib import Path

PROGRAMS = ("slurmctld", "slurmd", "munged")
NODE = "node1"
# Where every command looks: Snakemake's executor takes SLURM_CONF, as all of SLURM's variables, away from jobs.
PLACE = Path("/etc/slurm")
CONFIGURATION = """
ClusterName=goldilocks
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={controller_port}
SlurmdPort={daemon_port}
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU_Memory
AccountingStorageType=accounting_storage/none
JobAcctGatherType=jobacct_gather/none
MpiDefault=none
MinJobAge=3600
SchedulerParameters=sched_interval=1
ReturnToService=2
GresTypes=gpu
NodeName={node} NodeAddr=127.0.0.1 NodeHostname={host} CPUs={cpus} RealMemory={memory} Gres=gpu:1 State=UNKNOWN
PartitionName=all Nodes={node} Default=YES MaxTime=INFINITE State=UP
"""


def obstacle() -> str | None:
    """Reason why no cluster can be started on this machine, if there is one."""
    if os.geteuid() != 0:
        return "a SLURM of its own needs root"
    if (PLACE / "slurm.conf").exists():
        return f"this machine has a SLURM already ({PLACE}/slurm.conf)"
    if not all(map(shutil.which, PROGRAMS)):
        return "slurm-wlm and munge are not installed: make programs installs them"
    return None


class Cluster:
    """A SLURM cluster on this machine: a controller and one node, with their files in `folder`.

    It runs from `start` to `stop`.
    """

    def __init__(self, folder: Path):
        self.folder = folder
        for name in ("state", "spool"):
            (folder / name).mkdir(parents=True)
        memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 2**20
        settings = {
            "host": socket.gethostname(),
            "controller_port": _free_port(),
            "daemon_port": _free_port(),
            "folder": folder,
            "node": NODE,
            "cpus": max(2, len(os.sched_getaffinity(0))),
            "memory": int(memory * 0.9),
        }
        # Any file serves as a device: what counts is that SLURM hands it out.
        self._files = {
            PLACE / "slurm.conf": CONFIGURATION.format(**settings),
            PLACE / "gres.conf": f"NodeName={NODE} Name=gpu File=/dev/null\n",
        }
        self._processes = []

    def start(self) -> None:
        """Start munge, the controller and the node, and wait until the node accepts jobs."""
        PLACE.mkdir(exist_ok=True)
        for path, text in self._files.items():
            path.write_text(text)
        self._start_munge()
        for command in (["slurmctld", "-D"], ["slurmd", "-D", "-N", NODE]):
            with open(self.folder / f"{command[0]}.out", "w") as output:
                self._processes.append(subprocess.Popen(command, stdout=output, stderr=subprocess.STDOUT))
        self.wait_for(lambda: "idle" in self.run("sinfo", "--noheader", "--format=%t", check=False), 90)

    def stop(self) -> None:
        """Stop all processes that were started."""
        self.run("scancel", "--user=root", check=False)
        for process in reversed(self._processes):
            process.terminate()
        for process in self._processes:
            try:
                process.wait(15)
            except subprocess.TimeoutExpired:
                process.kill()
        for path in self._files:
            path.unlink(missing_ok=True)

    def run(self, *command: str, check: bool = True) -> str:
        """Run a SLURM command, and return its standard output; with `check`, a failure raises CalledProcessError."""
        done = subprocess.run(command, capture_output=True, text=True, check=check)
        return done.stdout

    def jobs(self) -> list[dict[str, str]]:
        """All jobs so far, as `scontrol show job` lists them."""
        blocks = self.run("scontrol", "--oneliner", "show", "job", check=False).splitlines()
        found = [dict(part.split("=", 1) for part in line.split() if "=" in part) for line in blocks]
        return [job for job in found if "JobId" in job]

    def wait_for(self, condition, seconds: float):
        """Wait until `condition` is true and return its value; fail with the logs of the daemons."""
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            if found := condition():
                return found
            time.sleep(0.2)
        logs = "\n".join(path.read_text(errors="replace")[-2000:] for path in sorted(self.folder.glob("slurm*.log")))
        raise AssertionError(f"waited {seconds} s in vain:\n{logs}")

    def _start_munge(self) -> None:
        if subprocess.run(["munge", "-n"], capture_output=True).returncode == 0:
            return
        key, user = Path("/etc/munge/munge.key"), pwd.getpwnam("munge")
        if not key.exists():
            key.write_bytes(os.urandom(1024))
        for path in (key, Path("/run/munge"), Path("/var/lib/munge"), Path("/var/log/munge")):
            path.mkdir(exist_ok=True) if path != key else None
            os.chown(path, user.pw_uid, user.pw_gid)
        key.chmod(0o400)
        Path("/run/munge").chmod(0o755)
        command = [
            "setpriv",
            f"--reuid={user.pw_uid}",
            f"--regid={user.pw_gid}",
            "--clear-groups",
            "munged",
            "--foreground",
        ]
        self._processes.append(subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL))
        self.wait_for(lambda: subprocess.run(["munge", "-n"], capture_output=True).returncode == 0, 20)


def _free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return found.getsockname()[1]
