"""Figures by name, and how they differ in their settings."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from goldilocks_zone.config.models import PageFigure

# Over the scale of an initialisation; others are over r/r_X.
OVER_SCALES = (
    *("rescaling", "parts", "counterfactuals", "random_gradients", "confidence", "outside", "eigenvectors"),
    "not_homogeneous",
)
# Of no study.
PAGES = ("cuts",)
NAMES = (
    *("fraction_positive", "trace_over_norm", "loss", "trace_and_norm", *PAGES, "other_networks", "other_losses"),
    *("selection", "sensitivity", "sample_size", "collapse", "plateaus", "layer_traces", "kinks", "accuracy", "arms"),
    *("other_accuracy", "intrinsic_dimension", "within_planes", "drawn", "early", "rate_temperature", "chang_radius"),
    *("chang_accuracy", "chang_subspaces", "zone_map", *OVER_SCALES, "clustering", "growth", "simplex", "spectra"),
    *("confined", "sharpness", "model_kappa"),
)


def studies_of(figure: "PageFigure") -> list[str]:
    """The studies that a figure shows; none for a page."""
    return getattr(figure, "studies", [])
