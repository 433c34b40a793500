"""Labels of subspaces, such as `plane-100-sparse`, `sphere-50-dense` and `full-free`, and their parsers."""

import re
from dataclasses import dataclass

PLANE_KINDS = ("sparse", "dense")
PROJECTION_KINDS = (*PLANE_KINDS, "fastfood")
_SUBSPACE = re.compile(r"(?P<shape>plane|sphere)-(?P<dimension>\d+)-(?P<kind>[a-z]+)")


@dataclass(frozen=True)
class Plane:
    """A random plane in parameter space: its number d of directions, and the kind of these, such as sparse."""

    dimension: int
    kind: str


@dataclass(frozen=True)
class Sphere:
    """A sphere in a random subspace: the number d of directions that span the subspace, and their kind.

    Its radius is not part of the label.
    """

    dimension: int
    kind: str


@dataclass(frozen=True)
class FullSpace:
    """The whole parameter space or, if `fixed`, a sphere around zero in it."""

    fixed: bool


def parse_plane(label: str) -> Plane:
    """Parse `plane-<dimension>-<sparse|dense>`. Raises ValueError for any other label."""
    match = _SUBSPACE.fullmatch(label)
    if not match or match["shape"] != "plane" or match["kind"] not in PLANE_KINDS or int(match["dimension"]) < 1:
        raise ValueError(
            f"subspace label {label!r} is unknown: write plane-<dimension>-sparse or plane-<dimension>-dense, "
            "for example plane-100-sparse"
        )
    return Plane(int(match["dimension"]), match["kind"])


def parse_subspace(label: str) -> Plane | Sphere | FullSpace:
    """Parse `plane-<d>-<kind>`, `sphere-<d>-<kind>`, `full-free` or `full-fixed`, with a kind of PROJECTION_KINDS.

    Raises ValueError for any other label.
    """
    if label in ("full-free", "full-fixed"):
        return FullSpace(label == "full-fixed")
    match = _SUBSPACE.fullmatch(label)
    if not match or match["kind"] not in PROJECTION_KINDS or int(match["dimension"]) < 1:
        raise ValueError(
            f"subspace label {label!r} is unknown: write plane-<dimension>-<kind> or sphere-<dimension>-<kind> with "
            f"{', '.join(PROJECTION_KINDS[:-1])} or {PROJECTION_KINDS[-1]}, full-free or full-fixed"
        )
    return {"plane": Plane, "sphere": Sphere}[match["shape"]](int(match["dimension"]), match["kind"])
