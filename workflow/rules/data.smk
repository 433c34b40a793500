"""Datasets. Needs the folder of the user's own data, official mirrors or package registries;
makes results/data/{dataset}.nc, and results/{run}/data.txt once all of a run's are there.
"""


rule dataset:
    """One dataset, verified by the checksum of its content."""
    input:
        code="results/data/fingerprint.txt",
    output:
        "results/data/{dataset}.nc",
    log:
        "logs/data/{dataset}.log",
    benchmark:
        "logs/data/{dataset}.benchmark.tsv"
    conda:
        "../../envs/compute.yaml"
    resources:
        mem_mb=1500,
        # A resource, not a parameter: whatever the source, the content is the same.
        folder=config.get("data_folder", ""),
    message:
        "Fetching {wildcards.dataset}"
    script:
        "../../scripts/fetch_dataset.py"


rule gate:
    """All data of this run are there: nothing is computed before."""
    input:
        expand(
            "results/data/{dataset}.nc",
            dataset=sorted({name for study in config["studies"].values() for name in study["datasets"]}),
        ),
    output:
        touch("results/{run}/data.txt"),
    log:
        "logs/{run}/gate.log",
    conda:
        "../../envs/compute.yaml"
    message:
        "All data of the run {wildcards.run} are there"
