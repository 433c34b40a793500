"""Datasets. Needs the folder of the user's own data, official mirrors or package registries, or a user's own files;
makes results/data/{dataset}.nc and a card with what is known of it, and keeps both in results/data/verified, from where
a job takes them when nothing else is to be read: Snakemake deletes what a job makes before the job starts."""


localrules:
    dataset,
    own_dataset,


# Both take all cores, before everything else: a dataset that cannot be had ends the run before anything is computed.
# (A gate rule that blocks take as ancient() would do that too, but while it is due to run, Snakemake passes over
# every other reason to rerun what lies behind it.)


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
    conda:
        "../../envs/compute.yaml"
    threads: 1024
    resources:
        mem_mb=1500,
        # A resource, not a parameter: whatever the source, the content is the same.
        folder=config.get("data_folder", ""),
    message:
        "Fetching {wildcards.dataset}"
    script:
        "../../scripts/fetch_dataset.py"


rule own_dataset:
    """One dataset of the user's own; read anew when the content of its files changes, not their age or place."""
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
        dataset="|".join(OWN_DATASETS) or "(?!)",
    priority: 100
    conda:
        "../../envs/compute.yaml"
    threads: 1024
    resources:
        mem_mb=6000,
        # Resources, not parameters: wherever the files lie, the content is the same.
        path=lambda wildcards: OWN_DATASETS[wildcards.dataset]["path"] or "",
        expected=lambda wildcards: OWN_DATASETS[wildcards.dataset]["expected"],
        place=lambda wildcards: OWN_DATASETS[wildcards.dataset]["place"],
        licence=lambda wildcards: OWN_DATASETS[wildcards.dataset]["licence"],
        limit_mib=lambda wildcards: OWN_DATASETS[wildcards.dataset]["limit_mib"],
    message:
        "Reading {wildcards.dataset}"
    script:
        "../../scripts/read_own_dataset.py"
