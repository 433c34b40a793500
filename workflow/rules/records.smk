"""Records: settings and fingerprints of code, in files named by the hash of their content. Needs the configuration and
the code; makes results/{run}/{settings,fingerprints}/{name}.{hash}.{ending}, and similar files below results/data. As
records are inputs of the other rules, the effect of a change is known before anything is written, and even after
.snakemake/ is lost."""


rule record:
    """One record. Others at the same place are removed, so that results are made again if one of them returns."""
    output:
        "results/{place}/{name}.{hash}.{ending}",
    log:
        "logs/{place}/{name}.{hash}.{ending}.log",
    wildcard_constraints:
        place="[a-z0-9_]+/(settings|fingerprints)|data/own",
        name="[A-Za-z0-9_-]+",
        hash=records.HASH,
        ending="txt|yaml",
    # The highest priority of all, because the jobs of datasets, which have it too, wait for their records.
    priority: 100
    localrule: True
    conda:
        "../../envs/plot.yaml"
    params:
        # Compressed, because a shell takes at most 128 KiB, and encoded in characters that no shell interprets.
        text=lambda wildcards, output: THIS_RUN.packed(output[0]),
    message:
        "Recording {wildcards.name} of {wildcards.place}"
    shell:
        "rm -f results/{wildcards.place}/{wildcards.name}.????????????????.{wildcards.ending} 2> {log} && "
        "echo {params.text} | base64 --decode | gzip --decompress > {output} 2>> {log}"
