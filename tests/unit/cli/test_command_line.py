"""`python -m goldilocks_zone`: its commands, and the cost of loading one."""

import pkgutil
import subprocess
import sys
from importlib import import_module
from pathlib import Path

import pytest

from goldilocks_zone import __main__ as command_line
from goldilocks_zone import cli

ROOT = Path(__file__).parents[3]
COMMANDS = [
    module.name
    for module in pkgutil.iter_modules(cli.__path__)
    if hasattr(import_module(f"goldilocks_zone.cli.{module.name}"), "run")
]


def called(*arguments, site="-s"):
    command = [sys.executable, site, "-m", "goldilocks_zone", *arguments]
    environment = {"PYTHONPATH": str(ROOT / "scripts")}
    return subprocess.run(command, capture_output=True, text=True, cwd=ROOT, env=environment)


def test_help_lists_the_commands_without_loading_them():
    done = called("--help", site="-S")  # Without installed packages.
    assert done.returncode == 0 and all(f"\n    {name} " in done.stdout for name in COMMANDS), done.stdout


@pytest.mark.parametrize("name", COMMANDS)
def test_the_arguments_of_a_command_are_those_that_it_takes(name):
    given = {"figure": ["loss", "mine.yaml"], "compare": ["a", "b"]}
    given |= {command: ["mine.yaml"] for command in ("archive", "arxiv", "findings")}
    arguments = vars(command_line._parser().parse_args([name, *given.get(name, [])]))
    code = import_module(f"goldilocks_zone.cli.{arguments.pop('command')}").run.__code__
    assert list(arguments) == list(code.co_varnames[: code.co_argcount])


def test_a_mistake_is_one_sentence():
    done = called("figure", "loss", "config/nowhere.yaml")
    assert done.returncode == 1 and done.stdout == ""
    assert done.stderr == "config/nowhere.yaml cannot be read (No such file or directory): name a file that is there\n"
