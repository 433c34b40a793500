"""Figures. Needs the aggregates of studies, or the cuts; makes figures/{run}/{figure}.pdf and .png, and the source data
of the figure. Each figure is drawn by the module that registers it."""


rule figure:
    """One figure, drawn by its own module."""
    input:
        studies=lambda wildcards: THIS_RUN.shown_by(wildcards.figure),
        settings=record("settings/figure-{figure}.yaml"),
        published=lambda wildcards: [ours(path) for path in THIS_RUN.figures[wildcards.figure].published_files],
        style=ours("scripts/goldilocks_zone/figures/goldilocks.mplstyle"),
        code=record("fingerprints/figure-{figure}.txt"),
    output:
        pdf="figures/{run}/{figure}.pdf",
        png=report(
            "figures/{run}/{figure}.png",
            caption=str(Path(f"results/{RUN}/report/figure.rst").absolute()),
            category="Figures",
            labels={"figure": "{figure}"},
        ),
        data="results/{run}/figures/{figure}.nc",
    log:
        "logs/{run}/figures/{figure}.log",
    benchmark:
        "logs/{run}/figures/{figure}.benchmark.tsv"
    conda:
        "../../envs/plot.yaml"
    params:
        module=lambda wildcards: os.path.relpath(THIS_RUN.figures[wildcards.figure].module),
    message:
        "Drawing {wildcards.figure}"
    script:
        "../../scripts/draw_figure.py"
