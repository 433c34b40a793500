"""One file with labelled axes for each study. Needs the blocks of the study, whatever its kind."""


rule aggregate:
    """All blocks of a study in one file with labelled axes."""
    input:
        blocks=lambda wildcards: THIS_RUN.blocks_of(wildcards.study),
        settings=record("settings/study-{study}.yaml"),
        grid=record("settings/grid-{study}.yaml"),
        networks=lambda wildcards: own_networks(SETTINGS.studies[wildcards.study].networks),
        block_code=lambda wildcards: recorded(f"fingerprints/{SETTINGS.studies[wildcards.study].kind}.txt"),
        code=record("fingerprints/aggregate.txt"),
    output:
        "results/{run}/aggregate/{study}.nc",
    log:
        "logs/{run}/aggregate/{study}.log",
    benchmark:
        "logs/{run}/aggregate/{study}.benchmark.tsv"
    conda:
        "../../envs/plot.yaml"
    message:
        "Aggregating the study {wildcards.study}"
    script:
        "../../scripts/aggregate_study.py"
