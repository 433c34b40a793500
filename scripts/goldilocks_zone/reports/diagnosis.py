"""Diagnosis of a model's curvature: sentences chosen by the measured values."""

from dataclasses import dataclass

import numpy as np

from goldilocks_zone.curvature import dispatch
from goldilocks_zone.reports.findings import Findings, OnPlanes, Zone
from goldilocks_zone.statistics import estimates
from goldilocks_zone.theory import laws

FEW = 0.05  # share of effective examples in the trace of G below which a softmax counts as saturated
SINGLE = 1e-2  # relative error of a Hessian from single-precision tangents above which they do not suffice
SMALL, LARGE = 0.1, 1.0  # bounds of ‖H′‖/‖G‖ between which G is a rough approximation of H


@dataclass(frozen=True)
class Fitting:
    """How many examples and directions fit into `memory_mib` MiB at once, in automatic differentiation.

    examples: number of examples for one direction. directions: number of directions for one example.
    """

    memory_mib: float
    examples: int
    directions: int


@dataclass(frozen=True)
class Circumstances:
    """Facts about a measurement, besides its findings, on which the diagnosis depends.

    mixes_in_training: the model was in training mode and has batch normalisation, which mixes examples.
    error_of_single: relative error of a Hessian that is computed with single-precision tangents. is_single: the model
    is in single precision. fitting: sizes that fit into memory; None unless automatic differentiation was used.
    """

    mixes_in_training: bool
    error_of_single: float
    is_single: bool
    fitting: Fitting | None = None


def diagnosed(findings: Findings, seen: Circumstances) -> Findings:
    """Return `findings` with a diagnosis: sentences that depend on the findings and on the circumstances `seen`."""
    sentences = [_excess(findings.planes[-1]), _parts(findings.planes[-1]), *_where(findings.zone)]
    few = findings.effective_examples / findings.examples
    if few < FEW:
        sentences.append(
            f"The Gauss–Newton part rests on {findings.effective_examples:.1f} of {findings.examples:,} examples: the "
            "loss is saturated at the others."
        )
    largest, (trace, _) = findings.eigenvalues[0], findings.trace()
    if trace > 0 and largest > trace / 2:
        sentences.append(f"One direction holds {min(largest / trace, 1):.0%} of the trace.")
    if seen.mixes_in_training:
        sentences.append(
            "The model was in training mode, in which batch normalisation mixes the examples of a batch: a copy in "
            "evaluation mode was measured."
        )
    if seen.error_of_single > SINGLE:
        advice = "give the model in double precision" if seen.is_single else "keep double precision"
        sentences.append(
            f"Single precision does not suffice here: its Hessian is off by {seen.error_of_single:.1%}; {advice}."
        )
    if findings.path == dispatch.AUTOMATIC:
        sentences.append(_automatic(seen.fitting))
    return findings.with_sentences(tuple(sentences))


def _excess(planes: OnPlanes) -> str:
    low, high = planes.kappa.interval(estimates.LEVEL)
    d, bound, kappa = planes.dimension, planes.null_bound, planes.kappa.value
    found = f"Tr(H)/‖H‖ is {kappa:.2f} on planes of {d} dimensions"
    if low > bound:
        return f"There is an excess of positive curvature: {found}, above the {bound:.2f} of random matrices."
    if high < -bound:
        return f"There is an excess of negative curvature: {found}, below the {-bound:.2f} of random matrices."
    if -bound <= low and high <= bound:
        return f"{found}, within what a symmetric random matrix gives (±{bound:.2f}): no excess of either sign."
    found = f"{found}, and its interval from {low:.2f} to {high:.2f}"
    return f"{found} does not distinguish it from that of a symmetric random matrix (±{bound:.2f})."


def _parts(planes: OnPlanes) -> str:
    ratio = planes.residual_ratio.value
    if ratio < SMALL:
        return f"The Hessian is almost entirely its Gauss–Newton part G: ‖H − G‖ is {ratio:.2g} ‖G‖."
    if ratio > LARGE:
        return f"‖H − G‖ is {ratio:.2g} ‖G‖: the Gauss–Newton part G does not approximate the Hessian."
    return f"‖H − G‖ is {ratio:.2g} ‖G‖: the Gauss–Newton part G is a rough approximation of the Hessian."


def _where(zone: Zone) -> list[str]:
    """Sentences on where the weights lie relative to the zone, and on the temperature with the largest κ = Tr(H)/‖H‖.

    κ is averaged over planes. Scales are factors on the weights. The zone is the range of scales, around the one with
    the largest κ, in which κ exceeds `laws.null_bound`.
    """
    inside, scales, bound = zone.inside, zone.scales, laws.null_bound(zone.dimension)
    if not inside.any():
        return [f"No multiple of the weights from {scales[0]:.2g} to {scales[-1]:.2g} lies in a Goldilocks zone."]
    best = int(np.flatnonzero(scales == zone.best_scale)[0])
    first = last = best
    while first > 0 and inside[first - 1]:
        first -= 1
    while last < len(scales) - 1 and inside[last + 1]:
        last += 1
    low = f"{scales[first]:.2g}" + (" or less" if first == 0 else "")
    high = f"{scales[last]:.2g}" + (" or more" if last == len(scales) - 1 else "")
    stands = "inside" if scales[first] <= 1 <= scales[last] else "outside"
    found = [
        f"The weights lie {stands} their Goldilocks zone, which reaches from {low} to {high} times their norm "
        f"(Tr(H)/‖H‖ above {bound:.2f}, d = {zone.dimension}); it is largest at {zone.best_scale:.2g} times."
    ]
    means = zone.over_temperatures.mean(0)
    if np.isfinite(means).any():
        place = int(np.nanargmax(means))
        found.append(
            f"Over the temperature of the softmax, Tr(H)/‖H‖ is largest, {means[place]:.2f}, at "
            f"{zone.temperatures[place]:.2g}."
        )
    return found


def _automatic(fitting: Fitting | None) -> str:
    found = "No traced graph reproduces the model's derivatives, so that it was differentiated automatically"
    if fitting is None:
        return found + "."
    return (
        f"{found}: {fitting.memory_mib:.0f} MiB hold {fitting.examples:,} examples of one direction, or "
        f"{fitting.directions:,} directions of one example, at a time."
    )
