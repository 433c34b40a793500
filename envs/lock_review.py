"""Print the part of the lock that figures and paper need when rebuilt from an archive: no torch, no test tools."""

import re
from importlib.metadata import requires, version
from pathlib import Path

ROOT = Path(__file__).parents[1]
NEEDED = (
    *("numpy", "scipy", "threadpoolctl", "xarray", "netCDF4", "matplotlib", "Pillow"),
    *("snakemake", "Pygments", "pylatexenc", "PyYAML", "pydantic", "requests"),
)


def closure(names: tuple[str, ...]) -> set[str]:
    """Normalised names of packages and all their requirements on this platform, without extras."""
    from packaging.requirements import Requirement

    found, waiting = set(), set(map(_normalised, names))
    while waiting:
        found.add(name := waiting.pop())
        for each in map(Requirement, requires(name) or []):
            if not each.marker or each.marker.evaluate({"extra": ""}):
                waiting |= {_normalised(each.name)} - found
    return found


def _normalised(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def main() -> None:
    wanted = closure(NEEDED)
    print("# Written by make lock: the part of requirements.txt that make review needs.")
    for line in (ROOT / "requirements.txt").read_text().splitlines():
        name = line.partition("==")[0]
        if _normalised(name) in wanted:
            assert version(name) == line.partition("==")[2].split(" ;")[0]
            print(line)


if __name__ == "__main__":
    main()
