"""Results of another's run. Needs its archive (results_from); makes the blocks that this run has in common with it. What
is not in the archive, as an added network, is computed."""


rule unpack:
    """All blocks that the archive has, once they have been verified."""
    input:
        archive=config["results_from"],
        settings=sorted({settings_of(name) for name in ARCHIVED}),
        code=sorted({f"results/{RUN}/fingerprints/{Path(name).parts[0].removesuffix('.nc')}.txt" for name in ARCHIVED}),
        own=f"results/{RUN}/fingerprints/unpack.txt",
    output:
        [f"results/{RUN}/{name}" for name in ARCHIVED],
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
