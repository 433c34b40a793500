"""Records: settings and fingerprints of code, in files named by the hash of their content. Needs the configuration and
the code; makes results/{run}/{settings,fingerprints}/{name}.{hash}.{ending}, and the same below results/data. Rules take
them as inputs, so that the effect of a change is known before anything is written, and after .snakemake/ is lost."""


rule record:
    """One record. Others of the same place are removed, so that results are made again if an earlier content returns."""
    output:
        "results/{place}/{name}.{hash}.{ending}",
    log:
        "logs/{place}/{name}.{hash}.{ending}.log",
    wildcard_constraints:
        place="[a-z0-9_]+/(settings|fingerprints)|data/own",
        name="[A-Za-z0-9_-]+",
        hash=records.HASH,
        ending="txt|yaml",
    # The highest priority of any job, because the jobs that have it wait for their records.
    priority: 100
    localrule: True
    conda:
        "../../envs/plot.yaml"
    params:
        # Compressed, because a shell takes at most 128 KiB, and in characters that it does not interpret.
        text=lambda wildcards, output: THIS_RUN.packed(output[0]),
    message:
        "Recording {wildcards.name} of {wildcards.place}"
    shell:
        "rm -f results/{wildcards.place}/{wildcards.name}.????????????????.{wildcards.ending} 2> {log} && "
        "echo {params.text} | base64 --decode | gzip --decompress > {output} 2>> {log}"
