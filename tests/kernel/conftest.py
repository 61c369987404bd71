"""One load of the programs for all the tests of a module that need nothing special of it."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from netobs.capture.layout import FLOW_TABLES
from tests.kernel.programs import Programs


@pytest.fixture(scope="module", params=FLOW_TABLES)
def programs(request: pytest.FixtureRequest) -> Iterator[Programs]:
    """Programs with each of the flow tables, a small one; each test leaves it empty (``observe`` evicts)."""
    with Programs(max_flows=1024, flow_table=request.param) as loaded:
        yield loaded
