"""Metadata of archives against the specification of RO-Crate 1.1."""

import datetime
import json
import tarfile

import pytest

from goldilocks_zone.cli import archive as cli_archive
from goldilocks_zone.provenance import archive as provenance_archive
from goldilocks_zone.provenance import attributes

ABOUT = {"run": "tiny", "commit": "abc", "date": "2026-01-31", "code": {}, "settings": {}}
NAMES = ("curvature/study/mnist/fc-10x2-relu/plane-10-sparse/draws-000-001.nc", "claims.csv", "cards/mnist.yaml")
# Terms of the specification's own vocabulary, schema.org's but for conformsTo and File; others are defined beside it.
TERMS = {"name", "description", "datePublished", "license", "version", "hasPart", "contentSize", "encodingFormat"}
TERMS |= {"conformsTo", "about", "File", "Dataset", "CreativeWork"}


@pytest.fixture
def packed(tmp_path):
    """Pack an archive; returns its members by name, the entities of its RO-Crate metadata by @id, and the metadata."""
    contents = {name: tmp_path / "source" / name for name in NAMES}
    for name, path in contents.items():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(name)
    provenance_archive.pack(tmp_path / "tiny.tar.gz", contents, ABOUT)
    with tarfile.open(tmp_path / "tiny.tar.gz") as archive:
        members = {member.name: archive.extractfile(member).read() for member in archive}
    crate = json.loads(members["ro-crate-metadata.json"])
    entities = {entity["@id"]: entity for entity in crate["@graph"]}
    assert len(entities) == len(crate["@graph"])
    return members, entities, crate


def test_the_descriptor_names_version_and_root(packed):
    _, entities, crate = packed
    assert set(crate) == {"@context", "@graph"} and "https://w3id.org/ro/crate/1.1/context" in crate["@context"]
    descriptor = entities["ro-crate-metadata.json"]
    assert descriptor["@type"] == "CreativeWork" and descriptor["about"] == {"@id": "./"}
    assert descriptor["conformsTo"] == {"@id": "https://w3id.org/ro/crate/1.1"}


def test_the_root_has_what_it_must(packed):
    _, entities, _ = packed
    root = entities["./"]
    assert root["@type"] == "Dataset" and root["name"] and root["description"]
    assert datetime.date.fromisoformat(root["datePublished"]) == datetime.date(2026, 1, 31)
    licence = entities[root["license"]["@id"]]
    assert licence["@type"] == "CreativeWork" and licence["name"] and licence["description"]


def test_the_metadata_is_flat_and_every_key_and_type_is_defined(packed):
    _, entities, crate = packed
    (more,) = [part for part in crate["@context"] if isinstance(part, dict)]
    assert all(value.startswith("https://") for value in more.values())
    for entity in entities.values():
        assert set(entity) - {"@id", "@type"} <= TERMS | set(more) and entity["@type"] in TERMS
        for value in entity.values():
            for each in value if isinstance(value, list) else [value]:
                assert isinstance(each, str) or set(each) == {"@id"}


def test_every_file_is_part_of_the_root_and_there(packed):
    members, entities, _ = packed
    described = {name for name, entity in entities.items() if entity["@type"] == "File"}
    assert described == set(NAMES) <= set(members)
    assert {part["@id"] for part in entities["./"]["hasPart"]} == described
    for name in described:
        entity = entities[name]
        assert int(entity["contentSize"]) == len(members[name]) and entity["encodingFormat"]


def test_the_date_is_that_of_the_commit_or_else_of_the_release(monkeypatch, tmp_path):
    assert datetime.date.fromisoformat(cli_archive.release_day()) >= datetime.date(2026, 11, 22)
    assert not attributes.commit_day() or datetime.date.fromisoformat(attributes.commit_day())
    monkeypatch.setattr(attributes, "ROOT", tmp_path)
    assert attributes.commit_day() == ""
