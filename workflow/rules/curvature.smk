"""Hessians on random planes, and cuts through the loss. Needs datasets and settings; makes one block per job, some
draws at all radii or some, and one file of cuts."""


rule curvature:
    """Spectra of the Hessian on random planes, for one block of radii and draws."""
    input:
        dataset="results/data/{dataset}.nc",
        settings=record("settings/study-{study}.yaml"),
        network=lambda wildcards: own_networks([wildcards.network]),
        code=record("fingerprints/curvature.txt"),
    output:
        "results/{run}/curvature/{study}/{dataset}/{network}/{subspace}/{block}.nc",
    log:
        "logs/{run}/curvature/{study}/{dataset}/{network}/{subspace}/{block}.log",
    benchmark:
        "logs/{run}/curvature/{study}/{dataset}/{network}/{subspace}/{block}.benchmark.tsv"
    conda:
        "../../envs/compute.yaml"
    threads: SETTINGS.execution.threads
    resources:
        mem_mb=grown(SETTINGS.execution.memory_mib + kinds.known()["curvature"].memory_mib),
        runtime=grown(SETTINGS.execution.runtime),
        gpu=SETTINGS.execution.gpus,
        # Resources, not params: they change no result and rerun nothing.
        memory_mib=SETTINGS.execution.memory_mib,
        device=SETTINGS.execution.device,
        network_file=lambda wildcards: THIS_RUN.file_of_network(wildcards.network),
    message:
        "Measuring curvature: {wildcards.study}, {wildcards.dataset}, {wildcards.network}, {wildcards.block}"
    script:
        "../../scripts/measure_curvature.py"


rule cuts:
    """Losses on random lines and a random plane through one initialisation at several radii."""
    input:
        dataset=lambda wildcards: f"results/data/{SETTINGS.cuts.dataset}.nc",
        settings=record("settings/cuts.yaml"),
        network=lambda wildcards: own_networks([SETTINGS.cuts.network]),
        code=record("fingerprints/cuts.txt"),
    output:
        "results/{run}/cuts.nc",
    log:
        "logs/{run}/cuts.log",
    benchmark:
        "logs/{run}/cuts.benchmark.tsv"
    conda:
        "../../envs/compute.yaml"
    threads: SETTINGS.execution.threads
    resources:
        mem_mb=grown(SETTINGS.execution.memory_mib + 1000),
        runtime=grown(SETTINGS.execution.runtime),
        gpu=SETTINGS.execution.gpus,
        # Resources, not params: they change no result and rerun nothing.
        device=SETTINGS.execution.device,
        network_file=lambda wildcards: THIS_RUN.file_of_network(SETTINGS.cuts.network),
    message:
        "Measuring cuts through the loss"
    script:
        "../../scripts/measure_cuts.py"
