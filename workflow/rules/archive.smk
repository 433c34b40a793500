"""Results from an archive. Needs the archive that results_from names; makes the blocks of this run that it contains.
Other blocks, such as those of an added network, are computed."""


rule unpack:
    """The blocks and dataset cards of this run that the archive contains, verified by their checksums."""
    input:
        archive=SETTINGS.results_from,
        settings=lambda wildcards: [recorded(place) for place in THIS_RUN.archived_settings],
        block_code=lambda wildcards: [recorded(place) for place in THIS_RUN.archived_codes],
        code=record("fingerprints/unpack.txt"),
    output:
        [f"results/{RUN}/{name}" for name in THIS_RUN.archived_blocks],
        [f"results/{RUN}/unpacked/{name}" for name in THIS_RUN.archived_cards],
    log:
        f"logs/{RUN}/unpack.log",
    benchmark:
        f"logs/{RUN}/unpack.benchmark.tsv"
    conda:
        "../../envs/plot.yaml"
    message:
        "Verifying and unpacking results"
    script:
        "../../scripts/unpack_results.py"


ruleorder: unpack > cuts


for kind in kinds.known().values():
    workflow.ruleorder("unpack", kind.name)
