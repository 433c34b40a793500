"""Programs that tests need beside Python: `make programs` installs them first, for apt refuses two at once."""

import os
from typing import NoReturn

import pytest


def missing(reason: str) -> NoReturn:
    """Leave a test out for a reason or, where nothing may be left out (CI is set), fail."""
    if os.environ.get("CI"):
        pytest.fail(reason)
    pytest.skip(reason)
