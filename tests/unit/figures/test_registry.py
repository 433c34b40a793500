"""Figures are registered by their own modules, and a user's own by the configuration."""

import json
import re
import subprocess
import sys
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pytest
import xarray as xr

from goldilocks_zone.config import load
from goldilocks_zone.config.values import ConfigurationError
from goldilocks_zone.figures import panels, registry
from made_up.figures import draw, is_described

ROOT = Path(__file__).parents[3]
DRAWS = "def draw(studies, settings, published):\n    return None\n"


def complete(**figures):
    """Settings of all figures of the full configuration, by name, after the changes `figures`.

    Keys whose value is None are left out.
    """
    found = load.complete({**load.read(load.shipped()), "figures": figures}).figures
    return {name: figure.model_dump(exclude_none=True) for name, figure in found.items()}


def module(folder, text):
    path = folder / "my_figure.py"
    path.write_text(text)
    return str(path)


def test_every_figure_shows_studies_and_values_that_there_are():
    studies = load.read(load.shipped())["studies"]
    for name, figure in registry.figures().items():
        assert set(figure.studies) <= set(studies) and bool(figure.studies) != bool(figure.result), name
        assert figure.published is None or (ROOT / figure.published).exists(), name
        # Panels are counted by the cells of a study.
        assert figure.wide or figure.studies, name


def test_every_module_of_a_work_registers_a_figure_or_serves_others():
    served = {"variants.py"}
    registered = {figure.module for figure in registry.figures().values()}
    modules = {path for path in registry.ROOM.glob("*/*.py") if path.name not in {"__init__.py", *served}}
    assert modules == registered


def test_the_table_of_figures_is_that_of_their_modules():
    assert registry.documentation() in (ROOT / "figures/README.md").read_text(encoding="utf-8")


def test_figures_are_known_without_loading_what_draws_them():
    code = (
        "import sys; sys.path.insert(0, 'scripts'); from goldilocks_zone.figures import registry; registry.figures()\n"
        "print([name for name in ('matplotlib', 'numpy', 'xarray', 'torch') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_a_module_that_is_added_is_a_figure(tmp_path, monkeypatch):
    (tmp_path / "beyond").mkdir()
    literal = 'FIGURE = {"id": "new", "studies": ["curvature"]}'
    text = f'"""The loss,\nand no more.\n\nA second paragraph."""\n\n{literal}\n\n\n{DRAWS}'
    (tmp_path / "beyond/new.py").write_text(text)
    (tmp_path / "beyond/shared.py").write_text("X = 1\n")
    monkeypatch.setattr(registry, "ROOM", tmp_path)
    registry.figures.cache_clear()
    try:
        assert list(registry.figures()) == ["new"] and registry.figures()["new"].shows == "The loss, and no more."
        assert complete() == {
            "new": {"studies": ["curvature"], "width_cm": 8.0, "height_cm": 6.4, "published": True},
        }
        assert "| `new` | The loss, and no more | `curvature` | `beyond/new.py` |" in registry.documentation()
        (tmp_path / "beyond/newer.py").write_text(text)
        registry.figures.cache_clear()
        with pytest.raises(ValueError, match=r"newer\.py registers the figure new, as .*new\.py does: rename one"):
            registry.figures()
    finally:
        registry.figures.cache_clear()


def test_a_configuration_changes_and_leaves_out_figures():
    figures = complete(loss={"height_cm": 5}, kinks=None)
    assert figures["loss"] == {"studies": ["curvature"], "width_cm": 8.0, "height_cm": 5, "published": True}
    assert set(registry.figures()) - set(figures) == {"kinks"}
    assert complete(cuts={"width_cm": None})["cuts"]["width_cm"] == 16.6
    assert complete(accuracy={"studies": ["planes"]})["accuracy"]["studies"] == ["planes"]


@pytest.mark.parametrize(
    "text, settings, parts",
    [
        (None, {}, ["figures.mine", "my_figure.py cannot be read (No such file or directory)", "a Python file"]),
        ("def draw(:", {}, ["figures.mine", "my_figure.py is not valid Python"]),
        ("X = 1\n", {}, ["figures.mine", "defines no function draw(studies, settings, published): add it"]),
        (DRAWS, {"studies": ["curvatur"]}, ["figures.mine.studies.0", "did you mean curvature?"]),
        (DRAWS, {}, ["figures.mine: the key studies is missing or empty; name the studies"]),
        (DRAWS, {"file": 3}, ["figures.mine.file: 3 has the wrong type"]),
        (
            DRAWS,
            {"studies": ["curvature"], "width": 3},
            ["figures.mine.width: this key is unknown; did you mean width_cm?"],
        ),
        (f"FIGURE = dict(axis='radius')\n{DRAWS}", {}, ["figures.mine", "as a literal dictionary"]),
        (f"FIGURE = {{'axes': 'radius'}}\n{DRAWS}", {}, ["figures.mine", "registers FIGURE wrongly, at axes"]),
        (
            f"FIGURE = {{'axis': 'scale', 'studies': ['curvature']}}\n{DRAWS}",
            {},
            ["figures.mine.studies.0: this figure needs a study with radius_unit: init_scale, unlike curvature"],
        ),
    ],
)
def test_a_figure_of_ones_own_is_refused_by_name(text, settings, parts, tmp_path):
    path = module(tmp_path, text) if text else str(tmp_path / "my_figure.py")
    with pytest.raises(ConfigurationError) as error:
        complete(mine={"file": path, **settings})
    for part in parts:
        assert part in str(error.value)


def test_a_figure_of_ones_own_is_in_a_python_file(tmp_path):
    path = tmp_path / "my_figure.txt"
    path.write_text(DRAWS)
    with pytest.raises(ConfigurationError, match=r"figures\.mine: .*my_figure\.txt is no Python file"):
        complete(mine={"file": str(path), "studies": ["curvature"]})


def test_a_figure_without_a_panel_says_so():
    for made in (panels.grid, panels.stacked):
        with pytest.raises(ValueError, match="have nothing that it shows"):
            made(0, 2, registry.FigureSettings())


def test_a_figure_of_ones_own_has_a_name_of_its_own(tmp_path):
    with pytest.raises(ConfigurationError, match=r"figures\.loss: the name loss belongs to a figure"):
        complete(loss={"file": module(tmp_path, DRAWS), "studies": ["curvature"]})
    with pytest.raises(ConfigurationError, match=r"figures\.lose: there is no such figure; did you mean loss\?"):
        complete(lose={})


def test_a_figure_of_ones_own_may_register_its_needs(tmp_path):
    text = f'"""My loss."""\nFIGURE = {{"studies": ["curvature"], "axis": "radius", "width_cm": 16.6}}\n{DRAWS}'
    path = module(tmp_path, text)
    found = complete(mine={"file": path, "height_cm": 4})["mine"]
    assert found == {"studies": ["curvature"], "file": path, "width_cm": 16.6, "height_cm": 4, "published": True}
    assert registry.of("mine", path).shows == "My loss." and registry.of("mine", path).axis == "radius"


def study():
    values = ("dataset", "network", "subspace", "examples", "radius", "draw"), np.ones((1, 1, 1, 1, 3, 2))
    loss = (*values, {"units": "nat", "long_name": "loss"})
    coordinates = {"radius": [0.1, 1.0, 10.0], "x": ("radius", [-2.0, 0.0, 2.0])}
    return xr.Dataset({"loss": loss}, coordinates, {"settings": json.dumps({})})


def test_the_readmes_figure_of_ones_own_is_drawn(tmp_path):
    text = (ROOT / "figures/README.md").read_text(encoding="utf-8")
    (example,) = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    data = draw("mine", {"curvature": study()}, tmp_path, file=module(tmp_path, example))
    assert is_described(data) and data["loss"].dims == ("dataset", "network", "subspace", "examples", "radius")


def test_draw_returns_a_figure_and_its_data(tmp_path):
    with pytest.raises(ValueError, match=r"draw of .*my_figure\.py must return a matplotlib Figure and an xarray"):
        draw("mine", {"curvature": study()}, tmp_path, file=module(tmp_path, DRAWS))


def test_a_study_without_the_axis_of_a_figure_is_refused(tmp_path):
    plain = study().drop_vars("x")
    with pytest.raises(ValueError, match=r"curvature\.nc has radii that are not in units of r_X"):
        draw("loss", {"curvature": plain}, tmp_path)


def test_limits_leave_room_and_missing_values_out():
    assert panels.limits([0.0, np.nan], 1.0, margin=0.1) == pytest.approx((-0.1, 1.1))
    assert panels.limits([0.0], 10.0, margin=0.1, above=0.5) == pytest.approx((-1, 15))
    assert panels.limits([2.0], margin=0.1) == pytest.approx((1.9, 2.1))
    assert panels.log_limits([0.0, 2.0], margin=0.5) == pytest.approx((0.1, 1000))


def test_panels_are_lettered_in_order():
    figure, axes = plt.subplots(1, 3)
    panels.letter_titles(axes, ["one", "two", "three"])
    assert [ax.get_title() for ax in axes] == ["(a) one", "(b) two", "(c) three"]
    plt.close(figure)
