"""Datasets. Needs the user's data folder, official mirrors, package registries or a user's own files; makes
results/data/{dataset}.nc and a card of metadata, and keeps copies of both in results/data/verified. Snakemake deletes
the outputs of a job before the job starts; the job restores them from the copies if reading again would give the
same."""

# By `priority` and `threads`, datasets are fetched first, with no other job beside them, so that an unavailable dataset
# fails the run early. (If a gate job for all datasets were an ancient() input of the blocks, the run would fail early,
# too, but while the gate is due to run, Snakemake ignores every other reason to rerun the jobs behind it.)


rule dataset:
    """One official dataset, verified by the checksum of its content."""
    input:
        code=record("data/fingerprints/dataset.txt"),
    output:
        data="results/data/{dataset}.nc",
        card="results/data/cards/{dataset}.yaml",
    log:
        "logs/data/{dataset}.log",
    benchmark:
        "logs/data/{dataset}.benchmark.tsv"
    wildcard_constraints:
        dataset="|".join(official_shapes.OFFICIAL),
    priority: 100
    localrule: True
    conda:
        "../../envs/compute.yaml"
    threads: 1024
    resources:
        mem_mb=1500,
        # A resource, not a parameter, because the content does not depend on the source.
        folder=SETTINGS.data_folder or "",
    message:
        "Fetching {wildcards.dataset}"
    script:
        "../../scripts/fetch_dataset.py"


rule own_dataset:
    """One of the user's own datasets, read again if the content of its files changes, but not their age or place."""
    input:
        files=record("data/own/{dataset}.yaml"),
        code=record("data/fingerprints/own_dataset.txt"),
    output:
        data="results/data/{dataset}.nc",
        card="results/data/cards/{dataset}.yaml",
    log:
        "logs/data/{dataset}.log",
    benchmark:
        "logs/data/{dataset}.benchmark.tsv"
    wildcard_constraints:
        # (?!) matches nothing.
        dataset="|".join(THIS_RUN.own_datasets) or "(?!)",
    priority: 100
    localrule: True
    conda:
        "../../envs/compute.yaml"
    threads: 1024
    resources:
        mem_mb=6000,
        # Resources, not parameters, because the content does not depend on the place of the files.
        path=lambda wildcards: THIS_RUN.own_datasets[wildcards.dataset]["path"] or "",
        expected=lambda wildcards: THIS_RUN.own_datasets[wildcards.dataset]["expected"],
        place=lambda wildcards: THIS_RUN.own_datasets[wildcards.dataset]["place"],
        licence=lambda wildcards: THIS_RUN.own_datasets[wildcards.dataset]["licence"],
        limit_mib=lambda wildcards: THIS_RUN.own_datasets[wildcards.dataset]["limit_mib"],
    message:
        "Reading {wildcards.dataset}"
    script:
        "../../scripts/read_own_dataset.py"
