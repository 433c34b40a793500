"""Settings of studies in words, for the paper's tables of settings."""

import math
import re

from goldilocks_zone.config.models import RadiusRange, Study
from goldilocks_zone.config.weights import INITIALISATIONS


def radii(given: list[float] | RadiusRange) -> str:
    """Text with the number of radii; for a range of radii also with its ends in x = log10(r²/r_X²)."""
    if isinstance(given, list):
        return str(len(given))
    first, last = (2 * math.log10(each) for each in (given.first, given.last))
    return f"{given.number}, $x$ from ${first:g}$ to ${last:g}$"


def starts(study: Study) -> str:
    """Text on where a study starts: the distribution of its initialisations, its trained weights, or both."""
    labels = study.variations.get("weights", [INITIALISATIONS])
    trained = [label for label in labels if label != INITIALISATIONS]
    parts = [study.initialisation] if INITIALISATIONS in labels else []
    return " and ".join([*parts, *([f"the weights {', '.join(trained)}"] if trained else [])])


def drawn(study: Study) -> str:
    """Word for what varies over the draws of a study: `planes` if all weights are trained, else `initialisations`."""
    return "initialisations" if INITIALISATIONS in study.variations.get("weights", [INITIALISATIONS]) else "planes"


def dimensions(subspaces: list[str]) -> str:
    """Text that lists the dimensions d in labels of subspaces, such as 50 in `plane-50-sparse`, in ascending order."""
    return ", ".join(sorted({label.split("-")[1] for label in subspaces}, key=lambda each: (len(each), each)))


def random_steps(minima: list[str]) -> str:
    """Text with the steps on random labels, ascending, from labels adversarial-<steps> of `minima`; "none" if none."""
    steps = {int(label.partition("-")[2]) for label in minima if label.startswith("adversarial-")}
    return f"{', '.join(map(str, sorted(steps)))} steps" if steps else "none"


def grouped(text: str | int) -> str:
    """Text in LaTeX with the digits of its integers grouped by commas, from five digits on."""
    return re.sub(r"\d{5,}", lambda match: f"{int(match[0]):,}".replace(",", "{,}"), str(text))


def without_remedy(reason: str) -> str:
    """The `reason` why a dataset is left out, without the remedy that follows it in the message."""
    return reason.split("): ")[0] + ")"
