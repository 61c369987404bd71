"""Whatever happens to the collectors of a group, each flow comes to exactly one of them when all is well again."""

from __future__ import annotations

import contextlib
import socket

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.unit.export.site import Site, group, received, tcp
from tests.unit.export.support import TcpCollector, check_sequence, free_port

NAMES = "abc"
EVENTS = st.lists(
    st.one_of(
        st.tuples(st.just("send"), st.sampled_from([1, 39, 500, 4000])),
        st.tuples(st.just("move"), st.sampled_from([1, 3, 12])),
        st.tuples(st.sampled_from(["up", "down"]), st.integers(0, len(NAMES) - 1)),
    ),
    max_size=20,
)


class Collectors:
    """Collectors that come and go on their ports; ``lives``: all that there were, by number."""

    def __init__(self) -> None:
        self.ports = [free_port(socket.SOCK_STREAM) for _ in NAMES]
        self.lives: list[list[TcpCollector]] = [[] for _ in NAMES]
        self.up: list[TcpCollector | None] = [None for _ in NAMES]

    def start(self, number: int) -> None:
        if self.up[number] is None:
            collector = self.up[number] = TcpCollector(port=self.ports[number])
            self.lives[number].append(collector)

    def stop(self, number: int) -> None:
        collector = self.up[number]
        if collector is not None:
            received(collector)  # what has come is read: nothing is on its way when it ends
            collector.close()
            self.up[number] = None

    def poll(self) -> None:
        for collector in self.up:
            if collector is not None:
                collector.poll()

    def numbers(self) -> list[list[int]]:
        return [[number for life in lives for number in _numbers(life)] for lives in self.lives]


def _numbers(collector: TcpCollector) -> list[int]:
    return [number for session in collector.sessions for message in session for number in message.numbers]


@pytest.mark.parametrize("policy", ["failover", "balance"])
@settings(max_examples=25, deadline=None)
@given(EVENTS)
def test_each_flow_comes_to_one_collector(policy: str, events: list[tuple[str, int]]) -> None:
    with contextlib.ExitStack() as stack:
        collectors = Collectors()
        configs = [tcp(name, port) for name, port in zip(NAMES, collectors.ports)]
        site = Site(configs, [group(policy, *NAMES)])
        stack.callback(lambda: [collectors.stop(number) for number in range(len(NAMES))])
        stack.callback(site.close)
        site.open()
        sent = 0
        actions = {"send": site.send, "move": site.move, "up": collectors.start, "down": collectors.stop}
        for name, value in events:
            actions[name](value)
            sent += value if name == "send" else 0
            collectors.poll()
        for number in range(len(NAMES)):
            collectors.start(number)
        site.until(lambda: site.move(1) or all(session.available for session in site.sessions), "all are up")
        site.until(
            lambda: collectors.poll() or sum(map(len, collectors.numbers())) >= sent, "all arrives, or is there already"
        )
        numbers = collectors.numbers()
        assert sorted(number for share in numbers for number in share) == list(range(sent))
        assert [session.stats.sent.flows for session in site.sessions] == [len(share) for share in numbers]
        for lives in collectors.lives:
            for life in lives:
                for session in life.sessions:
                    check_sequence(session)
