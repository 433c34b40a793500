import pytest

from made_up.projects import Project


def pytest_collection_modifyitems(items):
    """Start the workflow's test files first: they take longest, and no worker should run one alone at the end."""
    items.sort(key=lambda item: item.path.parent.name != "workflow")


@pytest.fixture(params=["graph", "automatic"])
def general(request):
    """Path of `dispatch` for networks that are not chains: GRAPH, then AUTOMATIC, which this fixture enforces."""
    from goldilocks_zone.curvature import dispatch

    if request.param == "graph":
        return dispatch.GRAPH
    request.getfixturevalue("automatic")
    return dispatch.AUTOMATIC


@pytest.fixture
def automatic(monkeypatch):
    """Let no graph be traced, so that networks that are not chains are differentiated automatically."""
    from goldilocks_zone.curvature import graph_tangents

    monkeypatch.setattr(graph_tangents, "traced", lambda *given: None)


@pytest.fixture(scope="session")
def built(tmp_path_factory):
    """Project in which the run `tiny` has been built up to claims and figures; all tests share it."""
    project = Project.create(tmp_path_factory.mktemp("built"))
    jobs = project.dry_run()
    assert sum(jobs.values()) <= 12, jobs
    project.run()
    return project


@pytest.fixture
def project(built, tmp_path):
    """Copy of the project `built`, with the same modification times of files, that a test may change."""
    return built.copy(tmp_path / "project")
