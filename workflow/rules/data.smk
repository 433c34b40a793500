"""Datasets. Needs the user's data folder, official mirrors, package registries or a user's own files; makes
results/data/{dataset}.nc and a card of metadata, and keeps copies of both in results/data/verified. Snakemake deletes a
job's outputs before the job starts; the job then restores them if reading again would give the same."""

# Both rules fetch datasets first and exclusively, so that an unavailable one fails the run early. (A gate rule as an
# ancient() input of the blocks would do so too, but while it is due to run, Snakemake ignores every other reason to
# rerun the jobs behind it.)


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
    """One of the user's own datasets, read again when the content of its files changes, not their age or place."""
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
