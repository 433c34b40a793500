"""Measurements. Needs datasets and settings; makes the blocks of studies, one by each job, and one file of cuts through
the loss. A block has some of the draws, at all or some of the radii. Each kind of study has its own rule. A training
job that was killed resumes from its checkpoints.
"""

for kind in kinds.known().values():

    rule:
        """One block of a study of this kind."""
        name:
            kind.name
        input:
            dataset=lambda wildcards: THIS_RUN.file_of_dataset(wildcards.dataset),
            settings=record("settings/study-{study}.yaml"),
            network=lambda wildcards: own_networks([wildcards.network]),
            code=record(f"fingerprints/{kind.name}.txt"),
        output:
            f"results/{{run}}/{kind.name}/{{study}}/{{dataset}}/{{network}}/{{subspace}}/{{block}}.nc",
        log:
            f"logs/{{run}}/{kind.name}/{{study}}/{{dataset}}/{{network}}/{{subspace}}/{{block}}.log",
        benchmark:
            f"logs/{{run}}/{kind.name}/{{study}}/{{dataset}}/{{network}}/{{subspace}}/{{block}}.benchmark.tsv"
        priority: kind.priority
        conda:
            "../../envs/compute.yaml"
        threads: SETTINGS.execution.threads
        resources:
            mem_mb=grown(SETTINGS.execution.memory_mib + kind.memory_mib),
            runtime=grown(SETTINGS.execution.runtime),
            gpu=SETTINGS.execution.gpus,
            # Resources, not params: they change no result and rerun nothing.
            memory_mib=SETTINGS.execution.memory_mib,
            checkpoint_seconds=str(SETTINGS.execution.checkpoint_seconds),
            device=SETTINGS.execution.device,
            network_file=lambda wildcards: THIS_RUN.file_of_network(wildcards.network),
            weights_files=lambda wildcards: THIS_RUN.files_of_weights(wildcards.study),
        params:
            module=kind.path,
            checkpoints="results/{run}/checkpoints/{study}/{dataset}/{network}/{subspace}/{block}",
        message:
            f"Measuring {kind.name}: "
            "{wildcards.study}, {wildcards.dataset}, {wildcards.network}, {wildcards.subspace}, {wildcards.block}"
        script:
            "../../scripts/measure_block.py"


rule cuts:
    """Losses on random lines and a random plane through one initialisation at several radii."""
    input:
        dataset=lambda wildcards: THIS_RUN.file_of_dataset(SETTINGS.cuts.dataset),
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
        memory_mib=SETTINGS.execution.memory_mib,
        checkpoint_seconds=str(SETTINGS.execution.checkpoint_seconds),
        device=SETTINGS.execution.device,
        network_file=lambda wildcards: THIS_RUN.file_of_network(SETTINGS.cuts.network),
        weights_files="[]",
    params:
        module=kinds.CUTS,
        checkpoints="results/{run}/checkpoints/cuts",
    message:
        "Measuring cuts through the loss"
    script:
        "../../scripts/measure_block.py"
