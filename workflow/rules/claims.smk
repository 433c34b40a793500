"""Verdicts, and agreement with published values. Needs every study's aggregate and the files of config/claims and
resources/published; makes results/{run}/claims.csv and results/{run}/agreement.csv."""


rule claims:
    """A verdict for every claim of the reproduced works."""
    input:
        studies=expand("results/{{run}}/aggregate/{study}.nc", study=SETTINGS.studies),
        claims=all_ours("config/claims/*.yaml"),
        settings=record("settings/claims.yaml"),
        code=record("fingerprints/claims.txt"),
    output:
        report(
            "results/{run}/claims.csv", caption="../report/claims.rst", category="Claims", labels={"table": "claims"}
        ),
    log:
        "logs/{run}/claims.log",
    benchmark:
        "logs/{run}/claims.benchmark.tsv"
    conda:
        "../../envs/plot.yaml"
    params:
        claims=lambda wildcards, input: str(Path(input.claims[0]).parent),
    message:
        "Judging claims"
    script:
        "../../scripts/judge_claims.py"


rule agreement:
    """Distances of the studies' means from published values."""
    input:
        studies=expand("results/{{run}}/aggregate/{study}.nc", study=SETTINGS.studies),
        comparisons=all_ours("resources/published/*/agreement.yaml"),
        values=all_ours("resources/published/*/*.csv"),
        code=record("fingerprints/agreement.txt"),
    output:
        report(
            "results/{run}/agreement.csv",
            caption="../report/agreement.rst",
            category="Claims",
            labels={"table": "agreement with published values"},
        ),
    log:
        "logs/{run}/agreement.log",
    benchmark:
        "logs/{run}/agreement.benchmark.tsv"
    conda:
        "../../envs/plot.yaml"
    message:
        "Comparing with published values"
    script:
        "../../scripts/compare_published.py"
