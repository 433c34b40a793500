"""Hessians on random planes. Needs datasets and settings; makes one block per job, some draws at all radii or
some, and one aggregate per study."""


rule curvature:
    """Spectra of the Hessian on random planes, for one block of radii and draws."""
    input:
        dataset="results/data/{dataset}.nc",
        settings="results/{run}/settings/study-{study}.yaml",
        network=lambda wildcards: own_networks([wildcards.network], ".txt"),
        code="results/{run}/fingerprints/curvature.txt",
    output:
        "results/{run}/curvature/{study}/{dataset}/{network}/{subspace}/{block}.nc",
    log:
        "logs/{run}/curvature/{study}/{dataset}/{network}/{subspace}/{block}.log",
    benchmark:
        "logs/{run}/curvature/{study}/{dataset}/{network}/{subspace}/{block}.benchmark.tsv"
    conda:
        "../../envs/compute.yaml"
    threads: config["execution"]["threads"]
    resources:
        mem_mb=config["execution"]["memory_mib"] + 1000,
        # Resources, not params: they change no result and rerun nothing.
        memory_mib=config["execution"]["memory_mib"],
        device=config["execution"]["device"],
    params:
        network=lambda wildcards: own_networks([wildcards.network], ".yaml"),
    message:
        "Measuring curvature: {wildcards.study}, {wildcards.dataset}, {wildcards.network}, {wildcards.block}"
    script:
        "../../scripts/measure_curvature.py"


rule aggregate:
    """One labelled file per study."""
    input:
        blocks=blocks_of,
        settings="results/{run}/settings/study-{study}.yaml",
        grid="results/{run}/settings/grid-{study}.yaml",
        networks=lambda wildcards: own_networks(config["studies"][wildcards.study]["networks"], ".txt"),
        block_code="results/{run}/fingerprints/curvature.txt",
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
