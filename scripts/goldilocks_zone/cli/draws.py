"""`make draws`: print how many draws each study needs for its claims, given the intervals in a finished run."""

import csv
import math
from collections import defaultdict
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import NamedTuple

from goldilocks_zone.claims import definitions
from goldilocks_zone.cli import text_tables
from goldilocks_zone.config import load

CLAIMS = Path("config/claims")
FEWEST = 8  # least number of draws: with fewer, the standard deviation itself is poorly known
OUT_OF_REACH = 4  # largest multiple of the draws of the run that a case may need


class Asked(NamedTuple):
    """Number of draws that a study needs to decide the cases of its claims.

    draws: the largest number that one of the cases needs, at least FEWEST. case: this case, or `none` if all are
    undecided. undecided: cases that would need more than OUT_OF_REACH times the draws of the run; they do not count.
    """

    draws: int
    case: str
    undecided: list[str]


def asked(claims: Mapping[str, dict], rows: Iterable[Mapping[str, str]]) -> dict[str, Asked]:
    """Number of draws that each study needs to decide the cases of `claims`, by study.

    `rows` are those of the claims.csv of a finished run. Draws suffice for a case if its interval extends at most
    half-way from the estimate to the margin. A case that would need more than OUT_OF_REACH times its draws is listed as
    undecided and does not count. Verdicts have no influence.
    """
    cases = {
        f"{claim}.{name}": case for claim, found in claims.items() for name, case in found.get("cases", {}).items()
    }
    needed, undecided = defaultdict(dict), defaultdict(list)
    for row in rows:
        case = cases.get(row["id"])
        if case is None or case["test"] == "identity" or not row["low"]:
            continue
        count, ratio = int(row["n"]), _half_width_over_distance(case, row)
        draws = math.ceil(count * (2 * ratio) ** 2) if math.isfinite(ratio) else math.inf
        if draws > OUT_OF_REACH * count:
            undecided[case["study"]].append(row["id"])
        needed[case["study"]][row["id"]] = draws if draws <= OUT_OF_REACH * count else 0
    found = {}
    for study, draws in needed.items():
        most = max(draws, key=draws.get)
        found[study] = Asked(max(FEWEST, draws[most]), most if draws[most] else "none", undecided[study])
    return found


def _half_width_over_distance(case: dict, row: Mapping[str, str]) -> float:
    """Half the width of an interval, divided by the distance of its estimate from the nearest margin.

    `row` of claims.csv has the interval, its estimate and the margin, and `case` the kind of test. For superiority,
    there is one margin; for other tests, there are two, on both sides of the reference in `case` or of 0. ∞ if the
    distance is zero.
    """
    estimate, low, high, margin = (float(row[key]) for key in ("estimate", "low", "high", "margin"))
    if case["test"] == "superiority":
        distance = abs(estimate - margin)
    else:
        distance = abs(margin - abs(estimate - case.get("reference", 0.0)))
    return (high - low) / 2 / distance if distance else math.inf


def run(configfiles: list[Path]) -> None:
    """Print for each study of the configuration its number of draws, and the number that its claims need.

    Raises ValueError if the run has no claims.csv.
    """
    config = load.load(configfiles)
    path = Path("results", config.run, "claims.csv")
    if not path.exists():
        raise ValueError(
            f"{path} is missing: the number of draws that a study needs follows from the intervals of a finished run; "
            "build the run first"
        )
    with path.open(newline="", encoding="utf-8") as file:
        found = asked(definitions.load(CLAIMS), csv.DictReader(file))
    table = [("study", "draws", "asked", "by", "cases out of reach")]
    for study, (draws, case, undecided) in sorted(found.items()):
        if study in config.studies:
            table.append((study, str(config.studies[study].draws), str(draws), case, ", ".join(undecided)))
    print("\n".join(text_tables.aligned(table, right=(1, 2))))
