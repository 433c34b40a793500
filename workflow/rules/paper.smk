"""The paper. Needs claims, aggregates, cuts and figures; makes results/{run}/paper.pdf, and the copies
paper/paper.pdf, results/claims.csv and results/agreement.csv of the latest run."""

SECTIONS = all_ours("paper/sections/*.tex")
WORKS = all_ours("paper/works/*/*.tex")


rule numbers:
    """Every number, table and figure reference of the paper as LaTeX macros."""
    input:
        claims="results/{run}/claims.csv",
        agreement="results/{run}/agreement.csv",
        studies=expand("results/{{run}}/aggregate/{study}.nc", study=SETTINGS.studies),
        cuts=["results/{run}/cuts.nc"] if "cuts" in SETTINGS.figures else [],
        cards=[THIS_RUN.card_of(dataset) for dataset in THIS_RUN.datasets],
        settings=record("settings/paper.yaml"),
        published=all_ours("resources/published/*/settings.yaml"),
        sections=SECTIONS,
        works=WORKS,
        templates=all_ours("paper/templates/*.tex.jinja"),
        disagreements=ours("resources/disagreements.yaml"),
        findings=ours("paper/findings.yaml"),
        code=record("fingerprints/numbers.txt"),
    output:
        generated="results/{run}/paper/generated.tex",
        settings=report(
            "results/{run}/paper/paper.yaml",
            caption="../report/settings.rst",
            category="Settings",
            labels={"table": "settings"},
        ),
    log:
        "logs/{run}/numbers.log",
    benchmark:
        "logs/{run}/numbers.benchmark.tsv"
    conda:
        "../../envs/plot.yaml"
    message:
        "Writing the paper's numbers"
    script:
        "../../scripts/write_numbers.py"


rule captions:
    """The paper's captions as text, for the report."""
    input:
        sections=[*SECTIONS, *WORKS],
        references=ours("paper/references.bib"),
        generated="results/{run}/paper/generated.tex",
        template=ours("workflow/report/figure.rst"),
        code=record("fingerprints/captions.txt"),
    output:
        "results/{run}/report/figure.rst",
    log:
        "logs/{run}/captions.log",
    benchmark:
        "logs/{run}/captions.benchmark.tsv"
    conda:
        "../../envs/plot.yaml"
    message:
        "Writing captions for the report"
    script:
        "../../scripts/write_captions.py"


rule paper:
    """The paper, after a check that its numbers and figures all come from results."""
    input:
        sources=[*all_ours("paper/**/*.tex"), ours("paper/references.bib")],
        generated="results/{run}/paper/generated.tex",
        figures=expand("figures/{{run}}/{figure}.pdf", figure=SETTINGS.figures),
        code=record("fingerprints/paper.txt"),
    output:
        report("results/{run}/paper.pdf", caption="../report/paper.rst", category="Paper", labels={"text": "paper"}),
    log:
        "logs/{run}/paper.log",
    benchmark:
        "logs/{run}/paper.benchmark.tsv"
    conda:
        "../../envs/latex.yaml"
    message:
        "Building the paper"
    script:
        "../../scripts/build_paper.py"


rule publish:
    """Copies of the latest paper, verdicts and agreement at fixed paths."""
    input:
        paper=f"results/{RUN}/paper.pdf",
        claims=f"results/{RUN}/claims.csv",
        agreement=f"results/{RUN}/agreement.csv",
        code=record("fingerprints/publish.txt"),
    output:
        paper="paper/paper.pdf",
        claims="results/claims.csv",
        agreement="results/agreement.csv",
        run="results/run.txt",
        mark=f"results/{RUN}/published.txt",
    log:
        f"logs/{RUN}/publish.log",
    benchmark:
        f"logs/{RUN}/publish.benchmark.tsv"
    conda:
        "../../envs/plot.yaml"
    params:
        run=RUN,
    message:
        f"Copying paper and claims of the run {RUN}"
    script:
        "../../scripts/publish_run.py"
