"""Figures. Needs a study's aggregate, or the cuts; makes figures/{run}/{figure}.pdf and .png and the figure's source data."""

PUBLISHED = {
    "fraction_positive": "resources/published/fort_scherlis_2019/fig3a_fraction_positive.csv",
    "trace_over_norm": "resources/published/fort_scherlis_2019/fig3b_trace_over_norm.csv",
    "accuracy": "resources/published/fort_scherlis_2019/fig2a_planes.csv",
    "intrinsic_dimension": "resources/published/li_2018/accuracy.csv",
}


rule figure:
    """One figure, drawn by its own script scripts/plot_{figure}.py."""
    input:
        studies=lambda wildcards: THIS_RUN.shown_by(wildcards.figure),
        settings=record("settings/figure-{figure}.yaml"),
        published=lambda wildcards: [ours(PUBLISHED[wildcards.figure])] if wildcards.figure in PUBLISHED else [],
        style=ours("scripts/goldilocks_zone/figures/goldilocks.mplstyle"),
        code=record("fingerprints/plot_{figure}.txt"),
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
    message:
        "Drawing {wildcards.figure}"
    script:
        "../../scripts/plot_{wildcards.figure}.py"
