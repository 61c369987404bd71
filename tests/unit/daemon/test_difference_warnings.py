"""When the log warns that the kernel's counters and netobs's go apart."""

from __future__ import annotations

import logging

import numpy as np
import pytest

from netobs.base.clock import NS_PER_S
from netobs.daemon.difference_warnings import AGAIN_NS, LEAST_PACKETS, DifferenceWarnings, Growth


class Told:
    """What the log says after each reading of hooks, ``{name: (difference, packets)}``, five seconds apart."""

    def __init__(self, caplog: pytest.LogCaptureFixture) -> None:
        self._warnings, self._caplog, self.now_ns = DifferenceWarnings(), caplog, 0
        caplog.set_level(logging.INFO)

    def __call__(self, **hooks: tuple[int, int]) -> list[str]:
        self._caplog.clear()
        self.now_ns += 5 * NS_PER_S
        names = [*hooks]
        keys = np.array([int.from_bytes(name.encode()[:7], "big") for name in names], "<u8")
        difference, packets = (np.array([hooks[name][i] for name in names], "<i8") for i in (0, 1))
        self._warnings.tell(Growth(keys, names, difference, packets), self.now_ns)
        return [record.getMessage() for record in self._caplog.records]


@pytest.fixture
def told(caplog: pytest.LogCaptureFixture) -> Told:
    return Told(caplog)


def test_a_difference_that_lasts_is_said_once(told: Told) -> None:
    assert told(eth0=(0, 10_000)) == []
    assert told(eth0=(5000, 10_000)) == []
    (line,) = told(eth0=(5000, 10_000))
    assert line.startswith("eth0: the kernel counts packets there that netobs does not see, 5000 of 10000; ")
    assert line.endswith("see netobs(8), INTERFACE COUNTERS")
    for _ in range(10):
        assert told(eth0=(5000, 10_000)) == []


def test_packets_on_their_way_are_no_difference(told: Told) -> None:
    for grown in (5000, 0, -5000, 0, 5000, 0):
        assert told(eth0=(grown, 10_000)) == []


@pytest.mark.parametrize(("grown", "packets"), [(LEAST_PACKETS - 1, 1000), (999, 100_000), (-999, 100_000)])
def test_what_is_too_little_to_say(told: Told, grown: int, packets: int) -> None:
    for _ in range(5):
        assert told(eth0=(grown, packets)) == []


def test_both_signs_have_their_remedy_and_many_hooks_one_line(told: Told) -> None:
    hooks = {f"tap{number}": (1000, 2000) for number in range(20)}
    told(eth0=(-400, 2000), **hooks)
    more, less = told(eth0=(-400, 2000), **hooks)
    assert "the kernel counts packets there that netobs does not see, 20000 of 40000; " in more
    assert less.startswith("eth0: netobs sees packets there that the kernel does not count, 400 of 2000; ")


def test_it_is_said_again_after_a_while(told: Told) -> None:
    told(eth0=(5000, 10_000))
    assert len(told(eth0=(5000, 10_000))) == 1
    said_ns = told.now_ns
    lines: list[str] = []
    while not lines:
        lines = told(eth0=(5000, 10_000))
    assert told.now_ns - said_ns == AGAIN_NS
