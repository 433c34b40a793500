"""Results of another's run. Needs its archive (results_from); makes the blocks that this run has in common with it. What
is not in the archive, as an added network, is computed."""


rule unpack:
    """All blocks that the archive has, once they have been verified."""
    input:
        archive=config["results_from"],
        settings=lambda wildcards: sorted({settings_of(name) for name in ARCHIVED}),
        block_code=lambda wildcards: sorted({code_of(name) for name in ARCHIVED}),
        code=record("fingerprints/unpack.txt"),
    output:
        [f"results/{RUN}/{name}" for name in ARCHIVED],
        [f"results/{RUN}/unpacked/{name}" for name in ARCHIVED_CARDS],
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


ruleorder: unpack > curvature
ruleorder: unpack > training
ruleorder: unpack > cuts
