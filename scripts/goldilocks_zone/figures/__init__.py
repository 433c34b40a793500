"""Figures: one module each, and the panels, curves and styles that they share.

A figure's module, in the folder of its work, registers it as a literal FIGURE = {…} (see `registry.Figure`) and offers

    draw(studies: dict[str, xarray.Dataset], settings: FigureSettings, published: Path | None)
        -> tuple[matplotlib.figure.Figure, xarray.Dataset]

`studies` are those that the run has of the figure's, by name; `published` is the file of published values to be drawn;
the dataset holds the numbers that are shown. The module's docstring says what the figure shows.
"""
