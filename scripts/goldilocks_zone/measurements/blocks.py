"""Blocks of results: allocated from the observables of a study, filled point by point, and signed."""

import time
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import xarray as xr
from torch import nn

from goldilocks_zone.config import records
from goldilocks_zone.data import datasets
from goldilocks_zone.measurements import setup
from goldilocks_zone.measurements.observables import Observables, Shape
from goldilocks_zone.models import initialisation
from goldilocks_zone.provenance import attributes


def empty(observables: Observables, shape: Shape, labels: Mapping[str, Sequence]) -> xr.Dataset:
    """Allocate a block of missing values; `labels` are those of varied keys, which come first, and of points."""
    known = [variable for each in observables if each.wanted(shape.study) for variable in each.variables]
    axes = {axis.name: axis for axis in (*observables.points, *(axis for each in known for axis in each.axes))}
    varied = {name: values for name, values in labels.items() if name not in axes}
    coordinates = {n: (n, list(labels.get(n, axis.labels(shape))), axis.attributes) for n, axis in axes.items()}
    result = xr.Dataset(coords=varied | coordinates)
    points = [*varied, *(axis.name for axis in observables.points)]
    for variable in known:
        dims = [*points, *(axis.name for axis in variable.axes)]
        values = np.full([result.sizes[dim] for dim in dims], np.nan)
        result[variable.name] = (dims, values, variable.attributes)
    return result


def fill(block: xr.Dataset, place: Mapping[str, Any], values: Mapping[str, Any]) -> None:
    """Write values by name at a place, {axis: label}, of a block."""
    # xarray would look positions up for every variable.
    positions = {dim: block.indexes[dim].get_loc(label) for dim, label in place.items()}
    for name, value in values.items():
        variable = block.variables[name]
        variable.values[tuple(positions.get(dim, slice(None)) for dim in variable.dims)] = value


def sign(block: xr.Dataset, work: setup.Work, examples: datasets.Examples, module: nn.Module, **more) -> xr.Dataset:
    """Add provenance attributes, and `more`, to a block."""
    job, own = work.job, work.own
    seeds = f"streams named {work.block.seed}, purpose, {job.dataset}, {job.network}, {job.subspace}, draw, plane"
    block.attrs = attributes.attributes(
        work.code,
        records.of_measurement(work.block.study, work.block.seed),
        time.monotonic() - work.started,
        data_checksum=examples.checksum,
        classes=examples.classes,
        network_fingerprint=own.fingerprint if own else "",
        r_x=initialisation.glorot_radius(initialisation.parameters_of(module)),
        device=str(work.device),
        threads=job.threads,
        **{"seeds": seeds, **more},
    )
    return block
