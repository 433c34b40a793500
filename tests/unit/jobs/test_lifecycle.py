"""The environment that jobs inherit."""

import os
import platform
import subprocess
import sys

import pytest

from goldilocks_zone.jobs import lifecycle

FAULTS = """
import resource

def used():
    b"a" * 2**26
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt

first = used()
print((used() - first) * resource.getpagesize() // 2**20)
"""


def cleared(environment):
    """Memory in MiB that the system clears for an object of 64 MiB in a process that has freed one of this size.

    `environment` holds the environment variables of the process.
    """
    command = [sys.executable, "-c", FAULTS]
    return int(subprocess.run(command, capture_output=True, text=True, check=True, env=environment).stdout)


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="the settings are those of glibc")
def test_jobs_reuse_freed_memory_unless_the_user_has_set_how(monkeypatch):
    others = {name: value for name, value in os.environ.items() if name not in lifecycle.KEPT_MEMORY}
    monkeypatch.setattr(os, "environ", others)
    assert cleared(others) > 60
    lifecycle.keep_memory()
    assert cleared(others) < 4
    others["MALLOC_MMAP_MAX_"] = "65536"
    lifecycle.keep_memory()
    assert others["MALLOC_MMAP_MAX_"] == "65536"
