"""Figures of the paper: their width, their picture and, for those that no section shows, their caption."""

from dataclasses import dataclass

from goldilocks_zone.config.records import PaperRecord
from goldilocks_zone.paper import latex, tables


@dataclass(frozen=True)
class Figure:
    """How the paper shows a figure: width and picture as LaTeX, caption as plain text."""

    name: str
    width: str
    picture: str
    caption: str
    drawn: bool


def known(settings: PaperRecord) -> dict[str, Figure]:
    """Every figure that is registered, drawn by this run or not."""
    reason = " ".join(map(tables.without_remedy, settings.left_out)) or f"the run {settings.run} does not draw it"
    missing = rf"\fbox{{\parbox{{.9\linewidth}}{{Not computed: {latex.escape(reason, strict=False)}.}}}}"
    found = {}
    for name, registered in settings.registered.items():
        drawn = name in settings.figures
        wide = registered.wide or (drawn and panels(settings, name) > 1)
        found[name] = Figure(
            name=name,
            width=r"\linewidth" if wide else r".49\linewidth",
            picture=rf"\includegraphics[width=\linewidth]{{{name}.pdf}}" if drawn else missing,
            caption=registered.caption,
            drawn=drawn,
        )
    return found


def panels(settings: PaperRecord, figure: str) -> int:
    """Number of panels of a figure with one for each cell of its study; several fill the width of the page."""
    study = settings.studies[settings.figures[figure][0]]
    return len(study.datasets) * len(study.networks) * len(study.subspaces)
