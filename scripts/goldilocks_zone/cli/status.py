"""`make status`: show the progress of each study of a run, block by block.

A block is the file of results that one job of a study writes.
"""

from collections import Counter, defaultdict
from pathlib import Path

from goldilocks_zone.cli import text_tables
from goldilocks_zone.config import load, models, studies
from goldilocks_zone.jobs import failures, locks

STATES = DONE, RUNNING, FAILED, MISSING = "done", "running", "failed", "missing"


def state_of(block: Path, log: Path, alive: bool) -> str:
    """State of a block, one of STATES.

    `block` is the path of its file, and `log` the path of the log of its last job. `alive` says whether a run is
    active; if none is, no block counts as running.
    """
    if block.exists():
        return DONE
    lines = log.read_text(encoding="utf-8", errors="replace").splitlines() if log.exists() else []
    if failures.FAILED in "".join(lines[-1:]):
        return FAILED
    return RUNNING if alive and log.exists() else MISSING


def states_of(config: models.Configuration, study: str, alive: bool) -> dict[tuple[str, str, str], Counter]:
    """Numbers of blocks of a study in each state, as {(dataset, network, subspace): {state: number}}.

    `alive` says whether a run is active.
    """
    states = defaultdict(Counter)
    for path in map(Path, studies.block_paths(config, study)):
        block, log = Path("results", config.run, path), Path("logs", config.run, path.with_suffix(".log"))
        states[path.parts[2:5]][state_of(block, log, alive)] += 1
    return states


def matrix_of(cells: dict[tuple[str, str, str], Counter]) -> list[str]:
    """Lines of a table of `cells`, the result of `states_of`: a row per dataset and network, a column per subspace."""
    columns, table = list(dict.fromkeys(cell[2] for cell in cells)), []
    for row in dict.fromkeys(cell[:2] for cell in cells):
        table.append((" ".join(row), *(_described(cells.get((*row, column), Counter())) for column in columns)))
    return [f"    {line}" for line in text_tables.aligned([("", *columns), *table])]


def _described(states: Counter) -> str:
    return ", ".join(f"{states[state]} {state}" for state in STATES if states[state])


def status_of(complete: models.Configuration) -> str:
    """Text on the progress of a run, with a line for each study.

    If the blocks of a study are in several states, a table of them stands below its line. Further lines are on figures,
    on the parts of the `complete` configuration that the run leaves out, and on the blocks of all studies together.
    """
    config, reasons, left_out = load.as_run(complete)
    alive, lines, total = locks.run_is_held(), [], Counter()
    for study in config.studies:
        cells = states_of(config, study, alive)
        states = sum(cells.values(), Counter())
        total += states
        aggregated = Path(f"results/{config.run}/aggregate/{study}.nc").exists()
        lines.append(f"{study}: {_described(states)}{', aggregated' if aggregated else ''}")
        lines += matrix_of(cells) if len(states) > 1 else []
    lines += [f"{study}: left out, for lack of {', '.join(datasets)}" for study, datasets in left_out.items()]
    undrawn = [name for name in complete.figures if name not in config.figures]
    drawn = sum(Path(f"figures/{config.run}/{name}.pdf").exists() for name in config.figures)
    left = f"; left out: {', '.join(undrawn)}" if undrawn else ""
    lines.append(f"figures: {drawn} of {len(config.figures)} drawn{left}")
    lines += [f"left out: {reason}" for reason in reasons.values()]
    at_work = f"{'a' if alive else 'no'} run is at work in this folder"
    lines.append(f"run {config.run}: blocks {_described(total)}; {at_work}")
    lines.append("What is done may be out of date: make plan says what would run again, and why.")
    return "\n".join(lines)


def run(configfiles: list[Path]) -> None:
    print(status_of(load.load(configfiles)))
