"""Verdicts. Needs every study's aggregate and the files of config/claims; makes results/{run}/claims.csv."""


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
