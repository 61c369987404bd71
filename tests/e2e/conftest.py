"""What tests of the daemon share."""

from __future__ import annotations

import pytest

from tests.e2e.daemon import AS_USER


@pytest.fixture(params=["root", "unprivileged"])
def as_user(request: pytest.FixtureRequest) -> bool:
    """Whether the daemon runs as an unprivileged user with the capabilities that it needs: both is tried."""
    return AS_USER or request.param == "unprivileged"
