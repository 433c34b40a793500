"""Captions for the report: a template that holds them all, since Snakemake takes one for all figures of a rule."""

import json
from pathlib import Path

from goldilocks_zone.jobs.log import job_log
from goldilocks_zone.paper import captions
from goldilocks_zone.storage import files


def write_captions(
    paths_to_sections: list[str],
    path_to_references: str,
    path_to_generated: str,
    path_to_template: str,
    path_to_output: str,
) -> None:
    found = captions.captions(Path(paths_to_sections[0]).parent, Path(path_to_references), Path(path_to_generated))
    texts = {name: captions.restructured(text) for name, text in found.items()}
    # JSON is how Jinja writes a dictionary, too.
    known = f"{{% set captions = {json.dumps(texts, ensure_ascii=False)} %}}\n"
    files.write_text(known + Path(path_to_template).read_text(encoding="utf-8"), path_to_output)


if __name__ == "__main__":
    with job_log(snakemake.log[0], snakemake.input):
        write_captions(
            paths_to_sections=list(snakemake.input.sections),
            path_to_references=snakemake.input.references,
            path_to_generated=snakemake.input.generated,
            path_to_template=snakemake.input.template,
            path_to_output=snakemake.output[0],
        )
