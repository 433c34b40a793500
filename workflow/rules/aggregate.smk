"""One labelled file per study. Needs its blocks, of curvature or of training."""


rule aggregate:
    """One labelled file per study."""
    input:
        blocks=blocks_of,
        settings="results/{run}/settings/study-{study}.yaml",
        grid="results/{run}/settings/grid-{study}.yaml",
        networks=lambda wildcards: own_networks(config["studies"][wildcards.study]["networks"], ".txt"),
        block_code=block_code,
        code="results/{run}/fingerprints/aggregate.txt",
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
