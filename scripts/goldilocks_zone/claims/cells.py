"""Cells of studies: the places where cases are judged.

A cell is a place along the axes of a study that a case does not compare values of: one dataset, network, subspace,
number of examples, and so on. A case is judged on its primary cell, and on all others as secondary ones.
"""

import itertools
import json
from collections.abc import Iterator
from fnmatch import fnmatchcase

import xarray as xr

from goldilocks_zone.config.studies import dimension
from goldilocks_zone.config.weights import INITIALISATIONS
from goldilocks_zone.models.labels import is_network, parse_network

# Settings of every primary cell beside its dataset, network and number of examples: a study with other settings is
# another experiment, and no verdict on the claim.
PRIMARY_SETTINGS = {
    **{"metric": "shell", "bias_directions": False, "initialisation": "glorot", "loss": "cross_entropy"},
    **{"labels": "original", "inputs": "standardised", "temperature": 1.0, "classes": "all", "sharpness": 0},
    **{"rescaled": "parameters", "example_set": 0, "weights": INITIALISATIONS},
    **{"rate_rule": "fixed", "temperature_rule": "fixed", "gradients": "loss", "optimiser": "adam"},
}
# The dimension of each setting in studies that vary it.
VARIED = {name: dimension(name) for name in PRIMARY_SETTINGS}
PRIMARY_CELL = {"dataset": "mnist", "network": "fc-200x2-relu", "examples": 1000}
PRIMARY_KIND = "sparse"
CELL = ("dataset", "network", "subspace", "examples")
# Axes without a usual value: where a study varies them, a case names one, or compares them.
UNUSUAL = ("rate", "geometry_examples")
# Properties of a network by which `holds_for` selects cells; unknown for the user's own networks.
NETWORK_PROPERTIES = {"layers": "depth", "homogeneous": "homogeneous"}

Place = dict[str, object]
Cell = xr.Dataset
Studies = dict[str, xr.Dataset]
LeftOut = dict[str, list[str]]


class NotTested(Exception):
    """A case cannot be tested on the results of this run; the message says why."""


def primary(case: dict, studies: Studies, left_out: LeftOut) -> xr.Dataset:
    """The primary cell of a case. Raises NotTested if the run has no such cell; see `evaluate` for `left_out`."""
    name = case["study"]
    if name in left_out:
        raise NotTested(f"{', '.join(left_out[name])} {'is' if len(left_out[name]) == 1 else 'are'} unavailable")
    study = _study(case, name, studies)
    settings = {"classes": "all", **json.loads(study.attrs["settings"])}
    for key, value in {**PRIMARY_SETTINGS, **case.get("settings", {})}.items():
        if VARIED[key] not in study.dims and settings.get(key, value) != value:
            raise NotTested(f"the claim is about {key} {value}, and the study {name} has {settings[key]}")
    for axis in _axes(case, study):
        if axis in UNUSUAL and axis not in case.get("cell", {}):
            raise NotTested(f"the study {name} has several values of {axis}, of which the claim names none")
    return _beside(case, _select(study, _primary_place(case, study)), studies)


def secondary(cases: dict[str, dict], studies: Studies) -> Iterator[tuple[str, dict, str, Place]]:
    """All secondary cells of a claim: name of the case, case, study and place. Along axes of UNUSUAL, a place that is
    the primary one of a case judged in the same way is left out."""
    own = {
        name: (_way(case), case["study"], _primary_place(case, studies[case["study"]]))
        for name, case in cases.items()
        if case["study"] in studies
    }
    for name, case in cases.items():
        for study in filter(studies.__contains__, (case["study"], *case.get("also", []))):
            axes = _axes(case, studies[study])
            for values in itertools.product(*(studies[study][axis].values.tolist() for axis in axes)):
                place = dict(zip(axes, values))
                here = _way(case), study, place
                judged = here == own.get(name) or (set(UNUSUAL) & set(place) and here in own.values())
                if not judged and holds_for(case, place, studies[study]):
                    yield name, case, study, place


def at(case: dict, study: str, place: Place, studies: Studies) -> xr.Dataset:
    """A secondary cell of a case. Raises NotTested if a further study that the case needs does not have it."""
    return _beside(case, _select(_study(case, study, studies), place), studies)


def label(name: str, case: dict, study: str, place: Place) -> str:
    """The name of a case with its place, for a secondary cell."""
    described = (
        f"N={value}" if axis == "examples" else f"{axis}={value}" if axis in (*UNUSUAL, *VARIED) else str(value)
        for axis, value in place.items()
    )
    return " ".join([name, *([study] if study != case["study"] else []), *described])


def _primary_place(case: dict, study: xr.Dataset) -> Place:
    labels = study["subspace"].values.tolist()
    subspace = next((label for label in labels if label.endswith(PRIMARY_KIND)), f"of {PRIMARY_KIND} planes")
    place = {**PRIMARY_CELL, "subspace": subspace, **{VARIED[key]: value for key, value in PRIMARY_SETTINGS.items()}}
    if "class_count" in study.dims:
        place["class_count"] = int(study["class_count"].max())
    place |= case.get("cell", {})
    return {axis: place.get(axis) for axis in _axes(case, study)}


def _axes(case: dict, study: xr.Dataset) -> list[str]:
    """Axes along which a case has cells: not those whose values it compares, or at every value of which it holds."""
    spanned = {*case.get("every", []), *case.get("over", []), *(["examples"] if "examples" in case else [])}
    return [axis for axis in (*CELL, *UNUSUAL, *VARIED.values()) if axis in study.dims and axis not in spanned]


def _study(case: dict, name: str, studies: Studies) -> xr.Dataset:
    study = _of_run(name, studies)
    return with_rate_of(study, _of_run(case["rate_of"], studies)) if "rate_of" in case else study


def _of_run(name: str, studies: Studies) -> xr.Dataset:
    if name not in studies:
        raise NotTested(f"the study {name} is not part of this run")
    return studies[name]


def with_rate_of(study: xr.Dataset, other: xr.Dataset) -> xr.Dataset:
    """A study of several rates, joined by the one rate of another study, for its own draws."""
    rate = json.loads(other.attrs["settings"])["rate"]
    other = other[[name for name in study if name in other]].sel(draw=study["draw"]).expand_dims(rate=[rate])
    return xr.concat([study, other], "rate", join="exact", combine_attrs="override", data_vars="minimal").sortby("rate")


def weights_as_networks(study: xr.Dataset) -> xr.Dataset:
    """A study whose network at each of its weights is a network of its own, `small_cnn epoch_1`, and `small_cnn` at
    initialisations; any other study as it is."""
    if "weights" not in study.dims:
        return study
    pairs = itertools.product(study["network"].values.tolist(), study["weights"].values.tolist())
    names = [network if label == INITIALISATIONS else f"{network} {label}" for network, label in pairs]
    stacked = study.stack(pair=("network", "weights"), create_index=False).drop_vars(["network", "weights"])
    order = [dim for dim in study.dims if dim != "weights"]
    return stacked.rename(pair="network").assign_coords(network=names).transpose(*order)


def _beside(case: dict, cell: xr.Dataset, studies: Studies) -> xr.Dataset:
    """The cell, joined by the variables that the case takes from another study, for the same network and draws."""
    if "beside" not in case:
        return cell
    name, place = case["beside"]["study"], case["beside"]["at"]
    other = _select(_of_run(name, studies), {axis: cell[axis].item() for axis in ("dataset", "network")} | place)
    if other.sizes.get("subspace", 1) > 1:
        raise NotTested(f"the study {name} has several subspaces, of which the claim names none")
    variables = {variable: alias for alias, variable in case["beside"]["variables"].items()}
    for variable in variables:
        if variable not in other:
            raise NotTested(f"the study {name} has measured no {variable}")
    other = other[list(variables)].isel(subspace=0, drop=True, missing_dims="ignore")
    return xr.merge([cell, other.reset_coords(drop=True).rename(variables)], join="inner", combine_attrs="override")


def _select(study: xr.Dataset, place: Place) -> xr.Dataset:
    for axis, value in place.items():
        require(study, axis, value)
    return study.sel(place)


def require(study: xr.Dataset | xr.DataArray, axis: str, *values: object) -> None:
    """Raise NotTested if a study lacks one of the values along an axis."""
    for value in values:
        if value not in study[axis].values:
            raise NotTested(f"this run has no {axis} {value} in its study")


def need(least: int, found: int, what: str) -> None:
    """Raise NotTested if a run has less than is needed."""
    if found < least:
        raise NotTested(f"this run has {found} {what}, {least} are needed")


def _way(case: dict) -> dict:
    """The keys of a case that say how it judges any cell."""
    return {key: value for key, value in case.items() if key not in ("cell", "statement", "family", "control")}


def holds_for(case: dict, place: Place, study: xr.Dataset) -> bool:
    """Whether a case is about a cell, by the patterns of its key `holds_for`: of values along axes, or of properties of
    network and dataset. An axis or property that the cell lacks excludes nothing."""
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
