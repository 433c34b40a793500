"""Archives of a run's results: one file that is verified before anything in it is used.

`manifest.json`, the first member, lists every file with its checksum, and the code and the settings that the results
were computed with. `ro-crate-metadata.json` repeats the list of files as RO-Crate metadata. Names are relative to
results/<run>. Imports nothing heavy.
"""

import gzip
import io
import json
import tarfile
import zlib
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import yaml

from goldilocks_zone.storage import files

MANIFEST, CRATE = "manifest.json", "ro-crate-metadata.json"
LIMIT_MB = 100
CARDS, AVAILABLE = "cards", "available.yaml"
# Media types of an archive's files, by suffix.
FORMATS = {
    **{".nc": "application/x-netcdf", ".csv": "text/csv", ".pdf": "application/pdf"},
    **{".png": "image/png", ".yaml": "application/yaml"},
}
# The term sha256 comes from RO-Crate's profile for workflow runs: RO-Crate's own vocabulary has none for checksums.
CONTEXT = ["https://w3id.org/ro/crate/1.1/context", {"sha256": "https://w3id.org/ro/terms/workflow-run#sha256"}]
LICENCE = {
    "@id": "https://spdx.org/licenses/MIT",
    "@type": "CreativeWork",
    "name": "MIT License",
    "description": "Use, change and pass on as you like, with the copyright notice and without warranty.",
}


def pack(path: str | Path, contents: Mapping[str, Path], about: dict) -> None:
    """Write an archive of `contents`, which maps names in the archive to paths of files, to `path`.

    `about` is included in the manifest. Its keys `run`, `commit` and `date` (of the commit, such as 2026-01-31) also
    enter the RO-Crate metadata. The same contents give the same bytes. Raises ValueError if the archive would exceed
    LIMIT_MB, or if a file is missing.
    """
    data = {}
    for name, source in sorted(contents.items()):
        if not source.is_file():
            raise ValueError(f"{source} is missing: build the run first, then archive it")
        data[name] = source.read_bytes()
    manifest = {**about, "files": {name: files.sha256(each) for name, each in data.items()}}
    described = crate(manifest, {name: len(each) for name, each in data.items()})
    content = packed({MANIFEST: _json(manifest), CRATE: _json(described), **data})
    size = len(content) / 1e6
    if size > LIMIT_MB:
        raise ValueError(
            f"the archive would be {size:.0f} MB, more than {LIMIT_MB} MB: archive a run with fewer studies"
        )
    with files.whole_file(path) as temporary:
        temporary.write_bytes(content)


def packed(contents: Mapping[str, bytes]) -> bytes:
    """Pack `contents`, which maps names to bytes, into a gzipped tar archive, and return its bytes.

    The files are in the order of `contents`. The same contents give the same bytes.
    """
    buffer = io.BytesIO()
    with gzip.GzipFile(fileobj=buffer, mode="wb", mtime=0) as zipped, tarfile.open(fileobj=zipped, mode="w") as archive:
        for name, content in contents.items():
            entry = tarfile.TarInfo(name)
            entry.size, entry.mode = len(content), 0o644
            archive.addfile(entry, io.BytesIO(content))
    return buffer.getvalue()


def crate(manifest: dict, sizes: Mapping[str, int]) -> dict:
    """RO-Crate 1.1 metadata of an archive: the run, its licence and every file of the `manifest`.

    `sizes` maps the name of each file to its number of bytes.
    """
    parts = []
    for name, checksum in manifest["files"].items():
        part = {"@id": name, "@type": "File", "name": name, "contentSize": str(sizes[name]), "sha256": checksum}
        known = FORMATS.get(Path(name).suffix)
        parts.append({**part, "encodingFormat": known} if known else part)
    root = {
        "@id": "./",
        "@type": "Dataset",
        "name": f"Results of the run {manifest['run']} of goldilocks",
        "description": "Spectra, trained networks' accuracies, figures with their data, verdicts and paper.",
        "datePublished": manifest["date"],
        "license": {"@id": LICENCE["@id"]},
        "version": manifest["commit"],
        "hasPart": [{"@id": part["@id"]} for part in parts],
    }
    conforms = {"conformsTo": {"@id": "https://w3id.org/ro/crate/1.1"}, "about": {"@id": "./"}}
    descriptor = {"@id": CRATE, "@type": "CreativeWork", **conforms}
    return {"@context": CONTEXT, "@graph": [descriptor, root, LICENCE, *parts]}


def read_manifest(path: str | Path) -> dict:
    """Read the manifest of an archive. Raises ValueError in one sentence if `pack` has not written the file."""
    with _opened(path) as archive:
        first = archive.next()
        if first is None or first.name != MANIFEST or not first.isfile():
            raise ValueError(
                f"results_from: {path} was not written by 'make archive': name an archive that 'make archive' wrote"
            )
        return json.loads(files.member(archive, first))


@contextmanager
def _opened(path: str | Path) -> Iterator[tarfile.TarFile]:
    """Context that yields the opened tar archive at `path`.

    Raises ValueError if it is damaged or does not exist, OSError if it cannot be read.
    """
    if not Path(path).is_file():
        raise ValueError(f"results_from: there is no file {path}: name an archive that 'make archive' wrote")
    try:
        with tarfile.open(path, "r:gz") as archive:
            yield archive
    except (tarfile.TarError, OSError, EOFError, zlib.error, UnicodeDecodeError, json.JSONDecodeError) as error:
        files.refuse_unreadable(path)
        raise ValueError(f"results_from: {path} is damaged ({error}): fetch the archive again") from error


def read(path: str | Path, names: Iterable[str]) -> dict[str, bytes]:
    """Read the files `names` from the archive at `path`, and return their bytes by name.

    Raises ValueError if a file is missing or does not match its checksum.
    """
    manifest, wanted, found = read_manifest(path), set(names), {}
    with _opened(path) as archive:
        for member in archive:
            # `pack` writes no links and devices.
            if member.name in wanted and member.isfile():
                found[member.name] = files.member(archive, member)
    for name in sorted(wanted):
        if name not in found or name not in manifest["files"]:
            raise ValueError(f"results_from: {path} lacks {name}, which its manifest names: fetch the archive again")
        if files.sha256(found[name]) != manifest["files"][name]:
            raise ValueError(f"results_from: {name} in {path} does not match its checksum: fetch the archive again")
    return found


def available(path: str | Path) -> dict:
    """Availability of datasets on the machine where the archive at `path` was made, as {dataset: record}.

    `make data` wrote the records. A record has the key `available` and, for missing datasets, `reason`. The result is
    empty if the archive has no such records. Raises the errors of `read`.
    """
    recorded = AVAILABLE in read_manifest(path)["files"]
    return yaml.safe_load(read(path, [AVAILABLE])[AVAILABLE]) if recorded else {}


def difference(expected: Mapping, found: Mapping) -> str:
    """Text that lists the keys whose values differ, such as `seed (2 there, 1 here)`; empty if no values differ.

    `there` marks the values in `found`, `here` the values in `expected`.
    """
    keys = [key for key in sorted({*expected, *found}) if expected.get(key) != found.get(key)]
    return ", ".join(f"{key} ({_shown(found.get(key))} there, {_shown(expected.get(key))} here)" for key in keys)


def _shown(value: object) -> str:
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) < 40 else f"{text[:37]}…"


def _json(value: dict) -> bytes:
    return json.dumps(value, indent=1, sort_keys=True).encode()
