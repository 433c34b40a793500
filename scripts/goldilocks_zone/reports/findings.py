"""Findings of a report, as data and as text."""

from dataclasses import dataclass, field, replace

import numpy as np

from goldilocks_zone.spectra.lanczos import Density
from goldilocks_zone.statistics import estimates
from goldilocks_zone.statistics.estimates import Estimate
from goldilocks_zone.theory import laws


@dataclass(frozen=True)
class OnPlanes:
    """Curvature on random planes of one dimension d: estimates of means over planes.

    kappa: κ = Tr(H)/‖H‖_F, at most √d. fraction_positive: share of positive eigenvalues. residual_ratio: ‖H′‖_F/‖G‖_F
    of the two parts of H = G + H′. null_bound: 97.5 % quantile of κ of symmetric random matrices.
    """

    dimension: int
    kappa: Estimate
    fraction_positive: Estimate
    residual_ratio: Estimate
    null_bound: float

    @classmethod
    def of(cls, dimension: int, kappas: np.ndarray, fractions: np.ndarray, ratios: np.ndarray) -> "OnPlanes":
        """Estimate the means of κ, of fractions of positive eigenvalues and of residual ratios over p planes.

        `kappas`, `fractions` and `ratios` (p,) are the values on planes of d = `dimension`.
        """
        kappa, fraction, ratio = (estimates.mean(each) for each in (kappas, fractions, ratios))
        return cls(dimension, kappa, fraction, ratio, laws.null_bound(dimension))


@dataclass(frozen=True)
class Zone:
    """κ = Tr(H)/‖H‖ on planes of one dimension, over scales of the weights and over temperatures of the softmax.

    scales (s,): factors on the weights. temperatures (t,): temperatures of the softmax. over_scales (p, s) and
    over_temperatures (p, t): κ at these, with a row for each of p planes; NaN where logits or the Hessian overflow.
    """

    dimension: int
    scales: np.ndarray
    over_scales: np.ndarray
    temperatures: np.ndarray
    over_temperatures: np.ndarray

    @property
    def inside(self) -> np.ndarray:
        """Mask (s,) of the scales at which the mean κ over planes exceeds the `null_bound` of random matrices."""
        return self.over_scales.mean(0) > laws.null_bound(self.dimension)

    @property
    def best_scale(self) -> float:
        """The scale of the weights with the largest mean κ over planes."""
        return float(self.scales[np.nan_to_num(self.over_scales.mean(0), nan=-np.inf).argmax()])


@dataclass(frozen=True)
class Checkpoint:
    """A checkpoint of the model: its norm relative to the report's weights, its loss and its curvature."""

    name: str
    relative_norm: float
    loss: float
    planes: OnPlanes


@dataclass(frozen=True)
class Findings:
    """The curvature of a model's mean loss at its weights.

    path: name of the algorithm that computed the curvature (see `dispatch.path_of`). plane_kind: "dense" or "sparse",
    the kind of directions. planes: curvature for each dimension. effective_examples: effective number of examples that
    carry the trace of the Gauss–Newton part, NaN if the loss couples examples. eigenvalues: the largest ones of the
    Hessian, descending. density: density of all its eigenvalues, normalised to one. sentences: diagnosis. Losses are in
    nats for a cross-entropy, eigenvalues in units of the loss per squared parameter.
    """

    model: str
    parameters: int
    examples: int
    loss_name: str
    loss: float
    path: str
    plane_kind: str
    planes: list[OnPlanes]
    effective_examples: float
    eigenvalues: np.ndarray
    density: Density
    zone: Zone
    checkpoints: list[Checkpoint] = field(default_factory=list)
    sentences: tuple[str, ...] = ()

    def with_sentences(self, sentences: tuple[str, ...]) -> "Findings":
        """Return the findings with these `sentences` as their diagnosis."""
        return replace(self, sentences=sentences)

    def trace(self) -> tuple[float, float]:
        """Estimate of Tr(H), and its standard error over random probes."""
        mean, error = self.density.moment(1)
        return mean * self.parameters, error * self.parameters

    def __str__(self) -> str:
        lines = [
            f"{self.model}: {self.parameters:,} parameters, {self.examples:,} examples, "
            f"{self.loss_name} {self.loss:.4g}",
            "",
            f"On {self.planes[0].kappa.n} random {self.plane_kind} planes, mean with 95 % interval:",
            "     d   Tr(H)/‖H‖             random   positive eigenvalues   ‖H′‖/‖G‖",
        ]
        for each in self.planes:
            numbers = (_interval(x) for x in (each.kappa, each.fraction_positive, each.residual_ratio))
            kappa, positive, ratio = numbers
            lines.append(f"{each.dimension:6d}   {kappa:22s} ≤ {each.null_bound:4.2f}   {positive:22s} {ratio}")
        trace, error = self.trace()
        lines += [
            "",
            f"Tr(H) = {trace:.3g} ± {error:.1g} by random probes; largest eigenvalues "
            + ", ".join(f"{each:.3g}" for each in self.eigenvalues),
        ]
        if self.checkpoints:
            d = self.checkpoints[0].planes.dimension
            lines += ["", f"Checkpoints, d = {d}:", "  name            norm     loss   Tr(H)/‖H‖"]
            for each in self.checkpoints:
                kappa = _interval(each.planes.kappa)
                lines.append(f"  {each.name:14s} {each.relative_norm:5.2f} {each.loss:8.4g}   {kappa}")
        return "\n".join([*lines, "", *(f"- {each}" for each in self.sentences)])

    def figure(self) -> object:
        """Draw the findings as a matplotlib figure with four panels."""
        from goldilocks_zone.reports import drawing

        return drawing.figure(self)

    def _repr_png_(self) -> bytes:
        from goldilocks_zone.reports import drawing

        return drawing.png(self)


def _interval(estimate: Estimate) -> str:
    low, high = estimate.interval(estimates.LEVEL)
    return f"{estimate.value:.2f} [{low:.2f}, {high:.2f}]"
