"""Unpack blocks from the archive of another run instead of computing them."""

import logging
from pathlib import Path

import yaml

from goldilocks_zone.jobs.log import job_log
from goldilocks_zone.provenance import archive, records
from goldilocks_zone.storage import files


def unpack_results(
    path_to_archive: str, paths_to_settings: list[str], paths_to_code: list[str], paths_to_outputs: list[str]
) -> None:
    manifest = archive.read_manifest(path_to_archive)
    for path in map(Path, paths_to_settings):
        # The record is named study-<name> or cuts.
        name = records.name_of(path).removeprefix("study-")
        settings = yaml.safe_load(path.read_text(encoding="utf-8"))
        if found := archive.difference(settings, manifest["settings"].get(name, {})):
            advice = "change the configuration to them, or leave out results_from"
            raise ValueError(f"{path_to_archive} has {name} with other settings than the present: {found}; {advice}")
    for path in map(Path, paths_to_code):
        rule = records.name_of(path)
        if manifest["code"].get(rule) != path.read_text().strip():
            known = manifest["commit"] != "unknown"
            wanted = f"check out its commit {manifest['commit']}" if known else "take its code, of a commit not known"
            other = f"{path_to_archive} was made by other code of {rule} than the present"
            raise ValueError(f"{other}: {wanted}, or leave out results_from")
    names = {"/".join(Path(path).parts[2:]).removeprefix("unpacked/"): Path(path) for path in paths_to_outputs}
    for name, content in archive.read(path_to_archive, names).items():
        with files.whole_file(names[name]) as temporary:
            temporary.write_bytes(content)
    logging.info("%d files of the run %s, commit %s", len(names), manifest["run"], manifest["commit"])


if __name__ == "__main__":
    with job_log(snakemake.log[0], snakemake.input):
        unpack_results(
            path_to_archive=snakemake.input.archive,
            paths_to_settings=list(snakemake.input.settings),
            paths_to_code=list(snakemake.input.block_code),
            paths_to_outputs=list(snakemake.output),
        )
