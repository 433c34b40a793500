"""Verdicts: each claim's quantity, measured over initialisations, held against what was fixed beforehand."""

import hashlib
import itertools
import json
from collections.abc import Iterator
from dataclasses import dataclass
from fnmatch import fnmatchcase

import numpy as np
import xarray as xr

from goldilocks_zone.claims.estimators import training
from goldilocks_zone.claims.estimators.curvature import QUANTITIES, NotTested
from goldilocks_zone.claims.estimators.hessian_parts import DECONSTRUCTED
from goldilocks_zone.claims.estimators.local_geometry import EMERGENT
from goldilocks_zone.claims.estimators.training import TRAINED
from goldilocks_zone.config.studies import dimension
from goldilocks_zone.models.labels import is_network, parse_network
from goldilocks_zone.statistics import estimates as statistics_estimates
from goldilocks_zone.statistics import hypotheses
from goldilocks_zone.statistics.estimates import Estimate

REPRODUCED, NOT_REPRODUCED, INCONCLUSIVE, NOT_TESTED = "reproduced", "not reproduced", "inconclusive", "not tested"
# Of what algebra says, and so no empirical finding.
HOLDS, FAILS = "identity holds", "identity fails"
COLUMNS = (
    *("id", "case", "work", "statement", "verdict", "estimate", "low", "high", "margin", "unit", "n"),
    *("smallest_effect", "run", "claims_hash", "reason"),
)
UNTESTABLE = (NotTested, statistics_estimates.TooFewDraws)
# What the primary cell of every claim means beside its dataset, network and number of examples: a study with
# other settings is another experiment, and no verdict on the claim.
PRIMARY_SETTINGS = {
    "metric": "shell",
    "bias_directions": False,
    "initialisation": "glorot",
    "loss": "cross_entropy",
    "labels": "original",
    "inputs": "standardised",
    "temperature": 1.0,
    "classes": "all",
    "sharpness": 0,
    "rescaled": "parameters",
    "example_set": 0,
    "rate_rule": "fixed",
    "temperature_rule": "fixed",
    "gradients": "loss",
    "optimiser": "adam",
}
# Dimensions of results along such settings, where a study varies them.
VARIED = {name: dimension(name) for name in PRIMARY_SETTINGS}
PRIMARY_CELL = {"dataset": "mnist", "network": "fc-200x2-relu", "examples": 1000}
PRIMARY_KIND = "sparse"
CELL = ("dataset", "network", "subspace", "examples")
# Have no usual value: where a study varies them, a case names one, or compares them.
UNUSUAL = ("rate", "geometry_examples")
# What a case can ask of the network of its cells, by the names of claims.yaml; unknown of the user's own networks.
NETWORK_PROPERTIES = {"layers": "depth", "homogeneous": "homogeneous"}
POWER = 0.8
IDENTITY = "identity"
FUNCTIONS = {**QUANTITIES, **TRAINED, **DECONSTRUCTED, **EMERGENT}


@dataclass(frozen=True)
class Test:
    """How an estimate is judged: kind, margin, reference value, and the direction of a superiority.

    The estimate of an identity is its largest error over draws, which has no interval; the margin is its tolerance.
    """

    kind: str
    margin: float
    reference: float = 0.0
    direction: str = "above"

    @property
    def level(self) -> float:
        """Confidence of the interval that decides."""
        return 0.90 if self.kind == "equivalence" else 0.95

    @property
    def threshold(self) -> float:
        """What a superiority must pass; the half-width of the region of an equivalence or location."""
        if self.kind == "superiority":
            return self.reference + (self.margin if self.direction == "above" else -self.margin)
        return self.margin

    def p_values(self, estimate: Estimate) -> tuple[float, float]:
        """One-sided p-values for `the claim holds` and for `it fails`; 0 and 1 of an identity."""
        if self.kind == IDENTITY:
            return (0.0, 1.0) if estimate.value <= self.margin else (1.0, 0.0)
        low, high = self.reference - self.margin, self.reference + self.margin
        above_low, above_high = (
            statistics_estimates.p_above(estimate, low),
            statistics_estimates.p_above(estimate, high),
        )
        below_low, below_high = (
            statistics_estimates.p_below(estimate, low),
            statistics_estimates.p_below(estimate, high),
        )
        if self.kind == "superiority":
            return (above_high, below_high) if self.direction == "above" else (below_low, above_low)
        return max(above_low, below_high), min(above_high, below_low)

    def verdict(self, p_holds: float, p_fails: float) -> str:
        """By p-values, adjusted or not: reproduced where the interval lies wholly on the claim's side."""
        if self.kind == IDENTITY:
            return HOLDS if p_holds < p_fails else FAILS
        alpha = (1 - self.level) / 2
        return REPRODUCED if p_holds < alpha else NOT_REPRODUCED if p_fails < alpha else INCONCLUSIVE

    def undecidable(self, estimate: Estimate) -> str:
        """Why an estimate decides nothing, empty where it does: a grid too coarse, or a bound that leaves it open."""
        if self.kind in ("equivalence", "location") and estimate.half_step > self.margin:
            return (
                f"the quantity is read off a grid in steps of {2 * estimate.half_step:.3g}, of which half exceeds the "
                f"margin of {self.margin:g}: more radii are needed"
            )
        if estimate.open_end and self.verdict(*self.p_values(estimate)) == INCONCLUSIVE:
            return estimate.open_end
        return ""

    def room(self, estimate: Estimate) -> float:
        """How far the interval stays on the claim's side; negative where it does not."""
        if self.kind == IDENTITY:
            return self.margin - estimate.value
        low, high = (bound - self.reference for bound in estimate.interval(self.level))
        if self.kind == "superiority":
            return low - self.margin if self.direction == "above" else -self.margin - high
        return min(low + self.margin, self.margin - high)

    def smallest_effect(self, estimate: Estimate) -> float:
        """What a test with this spread and n sees with a power of 80 %: the smallest difference from the
        margin, or, for equivalence and location, the smallest margin that a true zero would fit in. Of an identity 0.
        """
        if self.kind == IDENTITY:
            return 0.0
        freedom = estimate.n - 1
        quantile = statistics_estimates.student((1 + self.level) / 2, freedom)
        power = POWER if self.kind == "superiority" else (1 + POWER) / 2
        return (quantile + statistics_estimates.student(power, freedom)) * estimate.standard_error


def evaluate(
    claims: dict,
    studies: dict[str, xr.Dataset],
    run: str,
    substitutes: dict[str, str] | None = None,
    left_out: dict[str, list[str]] | None = None,
) -> list[dict]:
    """One row per claim and per case, as dictionaries with the keys COLUMNS.

    A case about a dataset that the run replaces is judged on its substitute, and says so. `left_out` names the
    datasets for want of which the run has no such study.
    """
    rows = []
    common = {"run": run, "claims_hash": claims_hash(claims)}
    for identifier, claim in _with_substitutes(claims, substitutes or {}).items():
        shared = {"work": claim["work"], "statement": claim["statement"], **common}
        cases = _primary(identifier, claim, studies, left_out or {})
        rows.append({**shared, **_summary(cases, claim), "id": identifier})
        rows += [{**shared, **row} for row in cases + _secondary(identifier, claim, studies)]
    return [{column: row.get(column, "") for column in COLUMNS} for row in rows]


def claims_hash(claims: dict) -> str:
    """Identity of the definitions by which verdicts were reached, 16 hexadecimal digits."""
    return hashlib.sha256(json.dumps(claims, sort_keys=True).encode()).hexdigest()[:16]


def _with_substitutes(claims: dict, substitutes: dict[str, str]) -> dict:
    def substituted(case: dict) -> dict:
        dataset = case.get("cell", {}).get("dataset", PRIMARY_CELL["dataset"])
        if dataset not in substitutes:
            return case
        used = substitutes[dataset]
        statement = f"{case['statement']} Judged on {used} in place of {dataset}."
        return {**case, "cell": {**case.get("cell", {}), "dataset": used}, "statement": statement}

    return {
        identifier: {**claim, "cases": {name: substituted(case) for name, case in claim.get("cases", {}).items()}}
        for identifier, claim in claims.items()
    }


def _summary(cases: list[dict], claim: dict) -> dict:
    """A claim is reproduced if all its primary cases are, not reproduced if one is not, else inconclusive.

    Identities count in it only where they fail, or where the claim is nothing else; controls have no part in it. A
    claim with parts that no case tests (`open`) is at best inconclusive.
    """
    controls = [name for name, case in claim.get("cases", {}).items() if case.get("control")]
    cases = [case for case in cases if case["case"] not in controls]
    if not cases:
        return {"verdict": NOT_TESTED, "reason": claim.get("reason", "no study of this version measures it")}
    found = {case["verdict"] for case in cases}
    verdicts = found - {HOLDS} or found
    if len(verdicts) == 1:
        (verdict,) = verdicts
    elif verdicts & {NOT_REPRODUCED, FAILS}:
        verdict = NOT_REPRODUCED
    else:
        verdict = INCONCLUSIVE
    telling = next(case for case in cases if case["verdict"] == verdict) if verdict in verdicts else cases[0]
    kept = ("estimate", "low", "high", "margin", "unit", "n", "smallest_effect", "reason")
    summary = {"verdict": verdict, **{key: telling[key] for key in kept if key in telling}}
    if verdict == INCONCLUSIVE and verdict not in verdicts:
        summary["reason"] = next(case["reason"] for case in cases if "reason" in case)
    if verdict == REPRODUCED and "open" in claim:
        return {**summary, "verdict": INCONCLUSIVE, "reason": claim["open"]}
    return summary


def _primary(
    identifier: str, claim: dict, studies: dict[str, xr.Dataset], left_out: dict[str, list[str]]
) -> list[dict]:
    """A row per case, on the cell that the claim is about; verdicts of a `family` of cases by Holm's procedure."""
    rows, families = [], {}
    for name, case in claim.get("cases", {}).items():
        row = {"id": f"{identifier}.{name}", "case": name, "statement": case["statement"], "unit": case["unit"]}
        try:
            worst = _measure(case, _beside(case, _cell(case, studies, left_out), studies), row["id"])
            test = _test(case)
            rows.append({**row, **_described(test, worst), "verdict": test.verdict(*test.p_values(worst))})
            if "family" in case:
                families.setdefault(case["family"], []).append((rows[-1], test, worst))
        except UNTESTABLE as reason:
            rows.append({**row, "verdict": NOT_TESTED, "reason": str(reason)})
    for members in families.values():
        for (row, test, _), adjusted in zip(members, _adjusted([(test, worst) for _, test, worst in members])):
            row["verdict"] = test.verdict(*adjusted)
    return rows


def _secondary(identifier: str, claim: dict, studies: dict[str, xr.Dataset]) -> list[dict]:
    """The claim's cases on every other cell of their studies, verdicts by Holm's procedure within the claim.

    A case's key `also` names further studies, on all cells of which it is judged; `holds_for` leaves cells out. Along
    axes of UNUSUAL, what another case judges in the same way, as its own cell, is not judged twice.
    """
    untested, measured = [], []
    cases = claim.get("cases", {})
    judged = [
        (_way(case), case["study"], _primary_place(case, studies[case["study"]]))
        for case in cases.values()
        if case["study"] in studies
    ]
    for name, case in cases.items():
        for study, place in _cells(case, studies):
            is_own = study == case["study"] and place == _primary_place(case, studies[study])
            if is_own or (set(UNUSUAL) & set(place) and (_way(case), study, place) in judged):
                continue
            described = (
                f"N={v}" if k == "examples" else f"{k}={v}" if k in (*UNUSUAL, *VARIED) else str(v)
                for k, v in place.items()
            )
            label = " ".join([name, *([study] if study != case["study"] else []), *described])
            identity = f"{identifier}.{label.replace(' ', '.')}"
            row = {"id": identity, "case": label, "statement": case["statement"], "unit": case["unit"]}
            try:
                cell = _beside(case, _select(_study(case, study, studies), place), studies)
                measured.append((row, case, _measure(case, cell, identity)))
            except UNTESTABLE as reason:
                untested.append({**row, "verdict": NOT_TESTED, "reason": str(reason)})
    rows = []
    adjusted = _adjusted([(_test(case), worst) for _, case, worst in measured])
    for (row, case, worst), p_values in zip(measured, adjusted):
        test = _test(case)
        rows.append({**row, **_described(test, worst), "verdict": test.verdict(*p_values)})
    return rows + untested


def _adjusted(measured: list[tuple[Test, Estimate]]) -> list[tuple[float, float]]:
    """p-values for `holds` and for `fails` of several tests, adjusted by Holm's procedure."""
    p_values = np.array([test.p_values(worst) for test, worst in measured]).reshape(-1, 2)
    return list(zip(hypotheses.holm(p_values[:, 0]), hypotheses.holm(p_values[:, 1])))


def _measure(case: dict, cell: xr.Dataset, name: str) -> Estimate:
    """The estimate that decides: where a claim is about every radius of a window, or every value along the axes of
    its key `every`, that with the least room.

    Raises NotTested where one of them is undecidable, unless another is enough for the claim to fail.
    """
    axes = case.get("every", [])
    estimates = []
    for values in itertools.product(*(cell[axis].values.tolist() for axis in axes)):
        with np.errstate(invalid="ignore", divide="ignore"):
            estimates += FUNCTIONS[case["quantity"]](cell.sel(dict(zip(axes, values))), case, name)
    if not all(np.isfinite(estimate.value) for estimate in estimates):
        raise NotTested("the quantity is not finite in this run")
    test = _test(case)
    reasons = [test.undecidable(estimate) for estimate in estimates]
    decidable = [estimate for estimate, reason in zip(estimates, reasons) if not reason]
    worst = min(decidable, key=test.room, default=None)
    if any(reasons) and (worst is None or test.verdict(*test.p_values(worst)) != NOT_REPRODUCED):
        raise NotTested(next(filter(None, reasons)))
    return worst


def _described(test: Test, worst: Estimate) -> dict:
    low, high = worst.interval(test.level)
    return {
        "estimate": worst.value,
        "low": low,
        "high": high,
        "margin": test.threshold,
        "n": worst.n,
        "smallest_effect": test.smallest_effect(worst),
    }


def _test(case: dict) -> Test:
    return Test(case["test"], case.get("margin", 0.0), case.get("reference", 0.0), case.get("direction", "above"))


def _primary_place(case: dict, study: xr.Dataset) -> dict:
    labels = [label for label in study["subspace"].values.tolist() if label.endswith(PRIMARY_KIND)]
    subspace = labels[0] if labels else f"of {PRIMARY_KIND} planes"
    varied = {VARIED[key]: value for key, value in PRIMARY_SETTINGS.items()}
    place = {**PRIMARY_CELL, "subspace": subspace, **varied, **case.get("cell", {})}
    if "class_count" in study.dims and "class_count" not in case.get("cell", {}):
        place["class_count"] = int(study["class_count"].max())
    return {axis: place.get(axis) for axis in _axes(case, study)}


def _axes(case: dict, study: xr.Dataset) -> list[str]:
    """Axes along which a case has cells: not those that it compares values of, or speaks of every value of."""
    spanned = {*case.get("every", []), *case.get("over", []), *(["examples"] if "examples" in case else [])}
    return [axis for axis in (*CELL, *UNUSUAL, *VARIED.values()) if axis in study.dims and axis not in spanned]


def _cell(case: dict, studies: dict[str, xr.Dataset], left_out: dict[str, list[str]]) -> xr.Dataset:
    if case["study"] in left_out:
        raise NotTested(f"{', '.join(left_out[case['study']])} cannot be had")
    if case["study"] not in studies:
        raise NotTested(f"the study {case['study']} is not part of this run")
    study = _study(case, case["study"], studies)
    settings = {"classes": "all", **json.loads(study.attrs["settings"])}
    for name, value in {**PRIMARY_SETTINGS, **case.get("settings", {})}.items():
        if VARIED[name] not in study.dims and settings.get(name, value) != value:
            raise NotTested(f"the claim is about {name} {value}, and the study {case['study']} has {settings[name]}")
    for axis in _axes(case, study):
        if axis in UNUSUAL and axis not in case.get("cell", {}):
            raise NotTested(f"the study {case['study']} has several values of {axis}, of which the claim names none")
    return _select(study, _primary_place(case, study))


def _study(case: dict, name: str, studies: dict[str, xr.Dataset]) -> xr.Dataset:
    """A study, with the rate of the study that the case names as `rate_of` among its own."""
    if "rate_of" not in case:
        return studies[name]
    if case["rate_of"] not in studies:
        raise NotTested(f"the study {case['rate_of']} is not part of this run")
    return training.with_rate_of(studies[name], studies[case["rate_of"]])


def _beside(case: dict, cell: xr.Dataset, studies: dict[str, xr.Dataset]) -> xr.Dataset:
    """The cell with the variables of the study that the case names beside its own, for the same network and draws."""
    if "beside" not in case:
        return cell
    name, place = case["beside"]["study"], case["beside"]["at"]
    if name not in studies:
        raise NotTested(f"the study {name} is not part of this run")
    same = {axis: cell[axis].item() for axis in ("dataset", "network")}
    other = _select(studies[name], same | place)
    if other.sizes.get("subspace", 1) > 1:
        raise NotTested(f"the study {name} has several subspaces, of which the claim names none")
    other = other.squeeze("subspace", drop=True).reset_coords(drop=True) if "subspace" in other.dims else other
    variables = {variable: alias for alias, variable in case["beside"]["variables"].items()}
    other = other[list(variables)].reset_coords(drop=True).rename(variables)
    return xr.merge([cell, other], join="inner", combine_attrs="override")


def _select(study: xr.Dataset, place: dict) -> xr.Dataset:
    for axis, value in place.items():
        if value not in study[axis].values:
            raise NotTested(f"this run has no {axis} {value} in its study")
    return study.sel(place)


def _way(case: dict) -> dict:
    """How a case judges a cell, wherever that is."""
    return {key: value for key, value in case.items() if key not in ("cell", "statement", "family", "control")}


def _cells(case: dict, studies: dict[str, xr.Dataset]) -> Iterator[tuple[str, dict]]:
    for name in (case["study"], *case.get("also", [])):
        if name in studies:
            axes = _axes(case, studies[name])
            for values in itertools.product(*(studies[name][axis].values.tolist() for axis in axes)):
                place = dict(zip(axes, values))
                if _holds_for(case, place, studies[name]):
                    yield name, place


def _holds_for(case: dict, place: dict, study: xr.Dataset) -> bool:
    """Whether a case speaks of a cell: by its key `holds_for`, patterns of values along axes, or of what network and
    dataset are. An axis or property that the cell does not have leaves it in.
    """
    known = dict(place)
    if "network" in place:
        network = parse_network(place["network"]) if is_network(place["network"]) else None
        known |= {key: getattr(network, attribute, None) for key, attribute in NETWORK_PROPERTIES.items()}
    if "dataset" in place and "classes" in study.coords:
        known["classes"] = study["classes"].sel(dataset=place["dataset"]).item()
    for name, allowed in case.get("holds_for", {}).items():
        patterns = allowed if isinstance(allowed, list) else [allowed]
        if name in known and not any(fnmatchcase(str(known[name]), str(pattern)) for pattern in patterns):
            return False
    return True
