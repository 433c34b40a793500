"""Command line `python -m goldilocks_zone <command>`, called by the Makefile.

The command <name> calls the function `run` of the module cli/<name>.py. Other modules of `cli` are not imported,
because `make clean` must work with the standard library alone.
"""

import argparse
import importlib
from pathlib import Path

from goldilocks_zone.jobs import failures


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m goldilocks_zone", description="Commands for a checkout.")
    commands = parser.add_subparsers(dest="command", required=True)

    def command(name: str, sentence: str) -> argparse.ArgumentParser:
        return commands.add_parser(name, help=sentence, description=f"{sentence[0].upper()}{sentence[1:]}.")

    plan = command("plan", "print what a run would do, why, and what it would cost")
    plan.add_argument("configfiles", nargs="*", type=Path)
    plan.add_argument("--cores", default="all")
    command("status", "print how far each study of a run is").add_argument("configfiles", nargs="*", type=Path)
    draws = command("draws", "print the draws that claims require of each study, from the spreads in a finished run")
    draws.add_argument("configfiles", nargs="*", type=Path)
    data = command("data", "fetch datasets and record which are available")
    data.add_argument("configfiles", nargs="*", type=Path, help="fetch only the datasets of these configurations")
    figure = command("figure", "print the file of a figure")
    figure.add_argument("name")
    figure.add_argument("configfile", type=Path)
    compare = command("compare", "compare the numbers and verdicts of two runs; exit status 1 if they differ")
    compare.add_argument("runs", nargs=2, help="names of runs, or folders of their results")
    compare.add_argument("--tolerance", type=float, default=1e-6, help="largest relative difference that is ignored")
    orphans = command("orphans", "list results that no configuration names")
    orphans.add_argument("configfiles", nargs="*", type=Path, help="configurations in use; by default all in config/")
    orphans.add_argument("--remove", action="store_true", help="remove what is found")
    clean = command("clean", "remove everything generated but the datasets")
    clean.add_argument("name", nargs="?", help="remove only what this run generated")
    command("archive", "pack the results of a run into one file").add_argument("configfile", type=Path)
    command("findings", "write what a full run found into docs/ and README.md").add_argument("configfile", type=Path)
    command("arxiv", "pack the paper's source for arXiv").add_argument("configfile", type=Path)
    return parser


def main() -> None:
    arguments = vars(_parser().parse_args())
    module = importlib.import_module(f"goldilocks_zone.cli.{arguments.pop('command')}")
    with failures.one_sentence():
        module.run(**arguments)


if __name__ == "__main__":
    main()
