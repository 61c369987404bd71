"""How tests share the machine when several workers run them (``pytest -n 2``, pytest-xdist).

Namespaces keep most tests apart. One that measures time, or uses up what a user has once on a host, is marked
``alone``: the other workers wait until it has ended. Tests that share a costly fixture stay together on one worker.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

TOGETHER = ("exchange",)
"""Fixtures of a whole run: the tests of each of their parameters go to one worker, which makes it once."""


def arrange(items: list[pytest.Item]) -> None:
    """What needs no kernel comes first, then tests/kernel, then tests/e2e, and at the end what has to be alone."""
    items.sort(key=lambda item: [item.get_closest_marker(name) is not None for name in ("alone", "e2e", "kernel")])
    for item in items:
        parameters = item.callspec.params if isinstance(item, pytest.Function) and hasattr(item, "callspec") else {}
        for name in TOGETHER:
            if name in parameters:
                item.add_marker(pytest.mark.xdist_group(f"{name}-{parameters[name]}"))


@contextlib.contextmanager
def turn(item: pytest.Item) -> Iterator[None]:
    """Wait until ``item`` may run beside what the other workers run, and keep them from what may not run beside it."""
    if "PYTEST_XDIST_WORKER" not in os.environ:
        yield
        return
    # Two files of this tree that nobody writes to: locks on them need no clearing up. A test that is to be alone keeps
    # the first while it waits for the second, so that others do not go before it again and again.
    with Path(__file__).open("rb") as queue, Path(__file__).with_name("conftest.py").open("rb") as machine:
        fcntl.flock(queue, fcntl.LOCK_EX)
        fcntl.flock(machine, fcntl.LOCK_EX if item.get_closest_marker("alone") else fcntl.LOCK_SH)
        fcntl.flock(queue, fcntl.LOCK_UN)
        try:
            yield
        finally:
            fcntl.flock(machine, fcntl.LOCK_UN)  # a child of the test may have inherited the file
