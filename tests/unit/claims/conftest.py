import sys

import pytest

from goldilocks_zone.claims import estimators, quantities


@pytest.fixture
def room(tmp_path, monkeypatch):
    """Empty folder whose modules are found as estimators of claims during this test."""
    folder = tmp_path / "estimators"
    folder.mkdir()
    monkeypatch.setattr(estimators, "__path__", [*estimators.__path__, str(folder)])
    forget(folder)
    yield folder
    forget(folder)


def forget(folder):
    for function in (quantities.known, quantities.keys):
        function.cache_clear()
    for path in folder.glob("*.py"):
        sys.modules.pop(f"{estimators.__name__}.{path.stem}", None)
