"""Programs that tests need besides Python: `make programs` installs them first, because apt refuses concurrent runs."""

import os
from typing import NoReturn

import pytest


def missing(reason: str) -> NoReturn:
    """Skip a test for a reason or, where no test may be skipped (CI is set), fail."""
    if os.environ.get("CI"):
        pytest.fail(reason)
    pytest.skip(reason)
