"""Figures: one module each, and the panels, curves and styles that they share.

A figure's module lies in the folder of the published work that it belongs to, or in `beyond`. It registers the
figure as a literal FIGURE = {…} (see `registry.Figure`) and defines

    draw(studies: dict[str, xarray.Dataset], settings: FigureSettings, published: Path | None)
        -> tuple[matplotlib.figure.Figure, xarray.Dataset]

`studies` holds the results of those registered studies that the run has, by name. `published` is the file of published
values to draw, or None. The returned dataset holds the numbers that the figure shows. The first paragraph of the
module's docstring is the caption.
"""
