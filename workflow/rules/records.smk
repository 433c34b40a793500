"""Records: settings and fingerprints of code, in files named by the hash of their content. Needs the configuration and
the code; makes results/{run}/{settings,fingerprints}/{name}.{hash}.{ending}, and results/data/… alike. Rules take them as
inputs, so that what a change reaches is seen before anything is written, and also when .snakemake/ is lost."""


localrules:
    record,


rule record:
    """One record. Those of other content go: results that were made by them are made again when they come back."""
    output:
        "results/{place}/{name}.{hash}.{ending}",
    log:
        "logs/{place}/{name}.{hash}.{ending}.log",
    wildcard_constraints:
        place="[a-z0-9_]+/(settings|fingerprints)|data/own",
        name="[A-Za-z0-9_-]+",
        hash=records.HASH,
        ending="txt|yaml",
    conda:
        "../../envs/plot.yaml"
    params:
        # Compressed: a shell takes no more than 128 KiB, with every letter in its place.
        text=lambda wildcards, output: packed(output[0]),
    message:
        "Recording {wildcards.name} of {wildcards.place}"
    shell:
        "rm -f results/{wildcards.place}/{wildcards.name}.????????????????.{wildcards.ending} 2> {log} && "
        "echo {params.text} | base64 --decode | gzip --decompress > {output} 2>> {log}"
