"""`make draws`: print how many draws each study needs for its claims, given the intervals in a finished run.

A draw is one repetition of a study, with another random initialisation or plane. A case is one test of a claim.
"""

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

    draws: the number that the most demanding case needs, at least FEWEST. case: name of this case, or `none` if all
    cases are undecided. undecided: names of the cases that need more than OUT_OF_REACH times the draws of the finished
    run, and on which `draws` therefore does not depend.
    """

    draws: int
    case: str
    undecided: list[str]


def asked(claims: Mapping[str, dict], rows: Iterable[Mapping[str, str]]) -> dict[str, Asked]:
    """Number of draws that each study needs to decide the cases of its claims, as {study: Asked}.

    `claims` come from `definitions.load`, and `rows` are those of the claims.csv of a finished run. A case has enough
    draws if half the width of its interval is at most half the distance of the estimate from the nearest margin; the
    width is taken to shrink with the square root of the number of draws. Verdicts have no influence. Identities, and
    cases without an interval, are left out.
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
        most = max(draws, key=draws.__getitem__)
        found[study] = Asked(max(FEWEST, draws[most]), most if draws[most] else "none", undecided[study])
    return found


def _half_width_over_distance(case: dict, row: Mapping[str, str]) -> float:
    """Half the width of a case's interval, divided by the distance of the estimate from the nearest margin.

    Estimate, interval and margin are read from `row`, a row of claims.csv. A test of superiority has one margin. Other
    tests have two, on both sides of the reference value in `case` (0 by default). The result is ∞ if the distance is
    zero.
    """
    estimate, low, high, margin = (float(row[key]) for key in ("estimate", "low", "high", "margin"))
    if case["test"] == "superiority":
        distance = abs(estimate - margin)
    else:
        distance = abs(margin - abs(estimate - case.get("reference", 0.0)))
    return (high - low) / 2 / distance if distance else math.inf


def run(configfiles: list[Path]) -> None:
    """Print, for each study of the run of `configfiles`, its number of draws and the number that its claims need.

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
