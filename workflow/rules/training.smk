"""Training from many radii, on planes, on spheres and in the whole space. Needs datasets and settings; makes one block
per job, some draws at all radii or some. A job that is killed resumes from its checkpoints."""


rule training:
    """Accuracies and radii of networks trained from one block of radii and draws."""
    input:
        dataset="results/data/{dataset}.nc",
        settings=record("settings/study-{study}.yaml"),
        network=lambda wildcards: own_networks([wildcards.network]),
        code=record("fingerprints/training.txt"),
    output:
        "results/{run}/training/{study}/{dataset}/{network}/{subspace}/{block}.nc",
    log:
        "logs/{run}/training/{study}/{dataset}/{network}/{subspace}/{block}.log",
    benchmark:
        "logs/{run}/training/{study}/{dataset}/{network}/{subspace}/{block}.benchmark.tsv"
    conda:
        "../../envs/compute.yaml"
    threads: SETTINGS.execution.threads
    resources:
        mem_mb=grown(SETTINGS.execution.memory_mib + kinds.known()["training"].memory_mib),
        runtime=grown(SETTINGS.execution.runtime),
        gpu=SETTINGS.execution.gpus,
        # Resources, not params: they change no result and rerun nothing.
        memory_mib=SETTINGS.execution.memory_mib,
        checkpoint_seconds=str(SETTINGS.execution.checkpoint_seconds),
        device=SETTINGS.execution.device,
        network_file=lambda wildcards: THIS_RUN.file_of_network(wildcards.network),
    params:
        checkpoints="results/{run}/checkpoints/{study}/{dataset}/{network}/{subspace}/{block}",
    message:
        "Training: {wildcards.study}, {wildcards.dataset}, {wildcards.network}, {wildcards.subspace}, {wildcards.block}"
    script:
        "../../scripts/measure_training.py"
