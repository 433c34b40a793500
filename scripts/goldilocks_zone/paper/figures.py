"""Figures of the paper: their width, their picture and, for those that no section shows, their caption."""

from dataclasses import dataclass

from goldilocks_zone.config.records import PaperRecord
from goldilocks_zone.paper import latex, tables

# Of one panel for each cell of their study: half a page wide, if that is one cell.
NARROW = ("cuts", "fraction_positive", "trace_over_norm", "loss", "trace_and_norm")
WIDE = (
    *("other_networks", "other_losses", "sensitivity", "sample_size", "collapse"),
    *("plateaus", "layer_traces", "kinks", "selection"),
    *("accuracy", "arms", "other_accuracy", "intrinsic_dimension", "within_planes", "drawn", "early"),
    *("rate_temperature", "chang_radius", "chang_accuracy", "chang_subspaces", "zone_map"),
    *("rescaling", "parts", "counterfactuals", "random_gradients", "confidence", "outside", "eigenvectors"),
    *("not_homogeneous", "clustering", "growth", "simplex", "spectra", "confined", "sharpness", "model_kappa"),
)


@dataclass(frozen=True)
class Registered:
    """Registration of a figure; `shows` is a sentence, its caption where it has no other."""

    wide: bool = True
    caption: str | None = None
    shows: str = ""


REGISTERED = dict.fromkeys(NARROW, Registered(wide=False)) | dict.fromkeys(WIDE, Registered())


@dataclass(frozen=True)
class Figure:
    """How the paper shows a figure: width and picture as LaTeX, caption as plain text."""

    name: str
    width: str
    picture: str
    caption: str
    drawn: bool


def known(settings: PaperRecord) -> dict[str, Figure]:
    """Every figure that is registered or that this run draws."""
    reason = " ".join(map(tables.without_remedy, settings.left_out)) or f"the run {settings.run} does not draw it"
    missing = rf"\fbox{{\parbox{{.9\linewidth}}{{Not computed: {latex.escape(reason, strict=False)}.}}}}"
    found = {}
    for name in REGISTERED | settings.figures:
        registered, drawn = REGISTERED.get(name, Registered()), name in settings.figures
        wide = registered.wide or (drawn and panels(settings, name) > 1)
        found[name] = Figure(
            name=name,
            width=r"\linewidth" if wide else r".49\linewidth",
            picture=rf"\includegraphics[width=\linewidth]{{{name}.pdf}}" if drawn else missing,
            caption=registered.caption or registered.shows or f"The figure {name} of the run {settings.run}.",
            drawn=drawn,
        )
    return found


def panels(settings: PaperRecord, figure: str) -> int:
    """Number of panels of a figure with one for each cell of its study; several fill the width of the page."""
    if figure == "cuts":
        return 2 * len(settings.cuts.radii)
    study = settings.studies[settings.figures[figure][0]]
    return len(study.datasets) * len(study.networks) * len(study.subspaces)
