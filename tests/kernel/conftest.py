"""One load of the programs for all the tests of a module that need nothing special of it."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.kernel.programs import Programs


@pytest.fixture(scope="module")
def programs() -> Iterator[Programs]:
    """Programs with a small table; each test leaves it empty (``observe`` evicts)."""
    with Programs(max_flows=1024) as loaded:
        yield loaded
