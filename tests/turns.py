"""How tests share the machine when several workers run them (``pytest -n 2``, pytest-xdist).

Namespaces keep most tests apart. One that measures time, or uses up what a user has once on a host, is marked
``alone``: the other workers wait until it has ended. Tests that share a costly fixture go to one worker.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

FOLDER = Path(__file__).parent


def arrange(items: list[pytest.Item]) -> None:
    """What needs no kernel comes first, then tests/kernel, then tests/e2e, and at the end what has to be alone."""
    items.sort(key=lambda item: [item.get_closest_marker(name) is not None for name in ("alone", "e2e", "kernel")])


def group(nodeid: str) -> str:
    """The tests with the same answer go to one worker: those of a module, which share its fixtures.

    Of tests/e2e each goes by itself, since most wait for other programs; but one worker has all collectors that an
    ``exchange`` feeds.
    """
    if not nodeid.startswith("tests/e2e/"):
        return nodeid.partition("::")[0]
    exchange = re.match(r"tests/e2e/test_interop_\w+\.py::\w+\[((?:un)?sampled)\b", nodeid)
    return exchange[1] if exchange else nodeid


def scheduler(config: pytest.Config, log: Any) -> Any:
    """A scheduler of pytest-xdist that keeps each ``group`` together. The mark xdist_group would do the same, but
    pytest-xdist 3.8 looks for it in vain with pytest 9.2."""
    from xdist.scheduler import LoadScopeScheduling

    class Scheduler(LoadScopeScheduling):  # type: ignore[misc]  # it has no types
        def _split_scope(self, nodeid: str) -> str:
            return group(nodeid)

    return Scheduler(config, log)


@contextlib.contextmanager
def turn(item: pytest.Item, folder: Path = FOLDER) -> Iterator[None]:
    """Wait until ``item`` may run beside what the other workers run, and keep them from what may not run beside it."""
    if "PYTEST_XDIST_WORKER" not in os.environ:
        yield
        return
    # Two files that nobody writes to during a run: locks on them need no clearing up. A test that is to be alone keeps
    # the first while it waits for the second, so that others do not go before it again and again.
    with (folder / "turns.py").open("rb") as queue, (folder / "conftest.py").open("rb") as machine:
        fcntl.flock(queue, fcntl.LOCK_EX)
        fcntl.flock(machine, fcntl.LOCK_EX if item.get_closest_marker("alone") else fcntl.LOCK_SH)
        fcntl.flock(queue, fcntl.LOCK_UN)
        try:
            yield
        finally:
            fcntl.flock(machine, fcntl.LOCK_UN)  # a child of the test may have inherited the file
