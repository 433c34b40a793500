"""Figures: one module each, and the panels, curves and styles that they share.

A figure's module lies in the folder of the published work that it belongs to, or in `beyond`. It registers the
figure as a literal FIGURE = {…} (see `registry.Figure`) and defines

    draw(studies: dict[str, xarray.Dataset], settings: FigureSettings, published: Path | None)
        -> tuple[matplotlib.figure.Figure, xarray.Dataset]

`studies` holds the results of those registered studies that the run has, by name. `published` is the file of published
values to draw, or None. The returned dataset holds the numbers that the figure shows. The first paragraph of the
module's docstring is the caption.

In docstrings of figures, a draw is one repetition of an experiment, with its own random initialisation. x stands for
log10(r²/r_X²). Variables {name}_mean, _low and _high hold a mean over draws and the ends of its 95 % interval. H is the
Hessian of the loss, in most figures on a random plane of dimension d; G is its Gauss–Newton part, H′ = H − G, and
κ = Tr(H)/‖H‖_F. N is the number of examples, C that of classes, and σ_z the standard deviation of the logits.
"""
