"""Print the part of the lock that figures and paper need when rebuilt from an archive: no torch, no test tools."""

from importlib.metadata import requires, version
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[1]
NEEDED = (
    *("numpy", "scipy", "threadpoolctl", "xarray", "netCDF4", "matplotlib", "Pillow"),
    *("snakemake", "Pygments", "pylatexenc", "PyYAML", "pydantic", "requests"),
)


def closure(names: tuple[str, ...]) -> set[str]:
    """Normalised names of packages and all their requirements on this platform, without extras."""
    found, waiting = set(), set(map(canonicalize_name, names))
    while waiting:
        found.add(name := waiting.pop())
        for each in map(Requirement, requires(name) or []):
            if not each.marker or each.marker.evaluate({"extra": ""}):
                waiting |= {canonicalize_name(each.name)} - found
    return found


def main() -> None:
    wanted = closure(NEEDED)
    print("# Written by make lock: the part of requirements.txt that make review needs.")
    for line in (ROOT / "requirements.txt").read_text().splitlines():
        name = line.partition("==")[0]
        if canonicalize_name(name) in wanted:
            assert version(name) == line.partition("==")[2].split(" ;")[0]
            print(line)


if __name__ == "__main__":
    main()
