"""Cells of studies: the parts of a study's results on which cases are judged. A case is one test of a claim.

A case is a dictionary; config/claims/README.md describes its keys. A cell has a single value along each axis that
separates experiments, such as dataset, network, subspace and number of examples, except the axes along which the case
compares values. Other axes, such as radius and draw, remain whole. A place gives the single values, as {axis: value}.
Each case is judged on its primary cell and, as secondary results, on all other cells to which it applies.
"""

import itertools
import json
from collections.abc import Iterator
from fnmatch import fnmatchcase
from typing import Any

import xarray as xr

from goldilocks_zone.config.studies import dimension
from goldilocks_zone.config.weights import INITIALISATIONS
from goldilocks_zone.models.labels import depth, is_network, parse_network

# Settings of every primary cell, besides its dataset, network and number of examples. A study with other settings is a
# different experiment and gives no verdict on the claim.
PRIMARY_SETTINGS = {
    **{"metric": "shell", "bias_directions": False, "initialisation": "glorot", "loss": "cross_entropy"},
    **{"labels": "original", "inputs": "standardised", "temperature": 1.0, "classes": "all", "sharpness": 0},
    **{"rescaled": "parameters", "example_set": 0, "weights": INITIALISATIONS},
    **{"rate_rule": "fixed", "temperature_rule": "fixed", "gradients": "loss", "optimiser": "adam"},
}
# The xarray dimension of each setting in studies that vary it.
VARIED = {name: dimension(name) for name in PRIMARY_SETTINGS}
PRIMARY_CELL = {"dataset": "mnist", "network": "fc-200x2-relu", "examples": 1000}
PRIMARY_KIND = "sparse"
CELL = ("dataset", "network", "subspace", "examples")
# Axes without a value in the primary cell: where a study varies them, a case must name one value or compare several.
UNUSUAL = ("rate", "geometry_examples")
# Properties of a network that `holds_for` may name, and the attributes of `labels.Network` with their values. The
# user's own networks lack these attributes.
NETWORK_PROPERTIES = {"layers": "depth", "homogeneous": "homogeneous"}

Place = dict[str, Any]
Cell = xr.Dataset
Studies = dict[str, xr.Dataset]
LeftOut = dict[str, list[str]]


class NotTested(Exception):
    """A case cannot be tested on this run's results; the message says why."""


def primary(case: dict, studies: Studies, left_out: LeftOut) -> xr.Dataset:
    """The primary cell of a case, with the variables that its key `beside` adds from another study.

    `studies` maps names to results. `left_out` maps each study that was left out of the run to its unavailable
    datasets. Raises NotTested if the run lacks the study or the cell, or if the study has settings other than
    PRIMARY_SETTINGS and those in the case's key `settings`. Raises NotTested also if the study has an axis of UNUSUAL
    along which the case names no value.
    """
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
    """Yield the secondary cells of all `cases` of a claim, as tuples (case name, case, study name, place).

    `cases` maps names to cases, and `studies` maps names to results. The secondary cells of a case are in its own study
    and in the studies that its key `also` lists. They are all the cells there to which the case applies (see
    `holds_for`), except its primary cell. A cell with an axis of UNUSUAL is left out, too, if it is the primary cell of
    another case that is judged in the same way (see `_way`).
    """
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
    """The secondary cell of a case at a `place` of the study named `study`, with the variables of its key `beside`.

    `studies` maps names to results. Raises NotTested if the run lacks the cell, or its counterpart in the study that
    `beside` names.
    """
    return _beside(case, _select(_study(case, study, studies), place), studies)


def label(name: str, case: dict, study: str, place: Place) -> str:
    """Label of a secondary cell: the case's name, the study unless it is the case's own, and the place's values."""
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
    """Axes of a `study` along which a cell has a single value.

    These are the axes in CELL, UNUSUAL and VARIED that the study has, except those along which the case compares
    values. The latter are the axes that its keys `every` and `over` list, and the axis examples if the case has the key
    `examples`.
    """
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
    """Add to a study of several learning rates the results of `other`, a study of one other learning rate.

    Returns `study` with this rate inserted along its axis rate, in ascending order. Only variables and draws that
    `study` has are added; `other` must have all of these draws.
    """
    rate = json.loads(other.attrs["settings"])["rate"]
    other = other[[name for name in study if name in other]].sel(draw=study["draw"]).expand_dims(rate=[rate])
    return xr.concat([study, other], "rate", join="exact", combine_attrs="override", data_vars="minimal").sortby("rate")


def weights_as_networks(study: xr.Dataset) -> xr.Dataset:
    """Combine the axes `network` and `weights` of a study into one axis `network`, with a label for each pair.

    Labels are like `small_cnn epoch_1`, or `small_cnn` at initialisation. A study without the axis `weights` is
    returned unchanged.
    """
    if "weights" not in study.dims:
        return study
    pairs = itertools.product(study["network"].values.tolist(), study["weights"].values.tolist())
    names = [network if label == INITIALISATIONS else f"{network} {label}" for network, label in pairs]
    stacked = study.stack(pair=("network", "weights"), create_index=False).drop_vars(["network", "weights"])
    order = [dim for dim in study.dims if dim != "weights"]
    return stacked.rename(pair="network").assign_coords(network=names).transpose(*order)


def _beside(case: dict, cell: xr.Dataset, studies: Studies) -> xr.Dataset:
    """Add to a cell the variables of another study that the case's key `beside` lists, under the names given there.

    The other study is read at the cell's dataset and network, and at the further place that `beside` gives. Along
    shared axes, such as draw, only values that both studies have are kept. Raises NotTested if the other study lacks
    this place or a variable, or has several subspaces there. A case without the key leaves the cell unchanged.
    """
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
    """Raise NotTested if a study lacks one of the `values` along an `axis`."""
    for value in values:
        if value not in study[axis].values:
            raise NotTested(f"this run has no {axis} {value} in its study")


def need(least: int, found: int, what: str) -> None:
    """Raise NotTested if `found`, the number of items in a run, is less than `least`; `what` names the items."""
    if found < least:
        raise NotTested(f"this run has {found} {what}, {least} are needed")


def weight_layers(cell: Cell) -> int:
    """Number of weight layers of a cell's network. Raises NotTested for a user's own network, where it is unknown."""
    label = cell["network"].item()
    if (found := depth(label)) is None:
        raise NotTested(f"the number of weight layers of {label} is not known")
    return found


def _way(case: dict) -> dict:
    """Entries of a case that determine how a cell is judged: all but `cell`, `statement`, `family` and `control`."""
    return {key: value for key, value in case.items() if key not in ("cell", "statement", "family", "control")}


def holds_for(case: dict, place: Place, study: xr.Dataset) -> bool:
    """Return True if a case applies to the cell of a `study` at `place`: if its key `holds_for` allows the cell.

    The key maps names to a pattern or a list of patterns, one of which must match. A name is an axis of the place, a
    property of the cell's network (NETWORK_PROPERTIES), or classes, the number of classes of its dataset. Names of axes
    or properties that the cell lacks are ignored. Properties of the user's own networks are unknown, and match only
    patterns such as `*`.
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
