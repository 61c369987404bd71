"""What tests of the daemon share."""

from __future__ import annotations

import pytest

from lab.adapters import missing
from lab.daemon import AS_USER
from tests.e2e import exchange as exchanges


@pytest.fixture(params=["root", "unprivileged"])
def as_user(request: pytest.FixtureRequest) -> bool:
    """Whether the daemon runs as an unprivileged user with the capabilities that it needs: both is tried."""
    return AS_USER or request.param == "unprivileged"


@pytest.fixture(scope="session", params=[1, 100], ids=["unsampled", "sampled"])
def exchange(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> exchanges.Exchange:
    """All collectors whose tests were selected and can run, fed by one daemon."""
    selected = {item.path.stem.replace("test_interop_", "") for item in request.session.items if not missing(item)}
    wanted = [name for name in exchanges.COLLECTORS if name in selected]
    return exchanges.run(tmp_path_factory.mktemp("exchange"), request.param, wanted)
