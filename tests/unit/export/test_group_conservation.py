"""Whatever happens to the collectors of a group, each flow comes to exactly one of them when all is well again."""

from __future__ import annotations

import contextlib
import select
import socket

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from tests.unit.export.site import Site, group, tcp
from tests.unit.export.support import TcpCollector, check_sequence, free_port, is_up

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

    def stop(self, number: int, sent: int) -> None:
        """End a collector when it has read all ``sent`` Data Records: what is on its way then would be lost."""
        collector = self.up[number]
        if collector is None:
            return
        for _ in range(1000):
            collector.poll()
            if len(self.numbers()[number]) == sent:
                break
            select.select([collector.connection or collector.listener], [], [], 0.005)
        collector.close()
        self.up[number] = None

    def close(self) -> None:
        for lives in self.lives:
            for collector in lives:
                collector.close()

    def poll(self) -> Collectors:
        for collector in self.up:
            if collector is not None:
                collector.poll()
        return self

    def numbers(self) -> list[list[int]]:
        return [[number for life in lives for number in _numbers(life)] for lives in self.lives]


def _numbers(collector: TcpCollector) -> list[int]:
    return [number for session in collector.sessions for message in session for number in message.numbers]


@pytest.mark.parametrize("policy", ["failover", "balance"])
@settings(max_examples=40, deadline=None)
@example([("send", 500), ("move", 1), ("up", 2), ("move", 3), ("up", 1), ("send", 39), ("move", 12), ("send", 1)])
@example([("up", 0), ("move", 1), ("up", 1), ("send", 39), ("down", 0), ("send", 4000), ("move", 3), ("send", 1)])
@given(EVENTS)
def test_each_flow_comes_to_one_collector(policy: str, events: list[tuple[str, int]]) -> None:
    with contextlib.ExitStack() as stack:
        collectors = Collectors()
        configs = [tcp(name, port) for name, port in zip(NAMES, collectors.ports)]
        site = Site(configs, [group(policy, *NAMES)])
        stack.callback(collectors.close)
        stack.callback(site.close)
        site.open()
        sent = 0
        for name, value in events:
            if name == "send":
                sent += len(site.send(value))
            elif name == "move":
                site.move(value)
            elif name == "up":
                collectors.start(value)
            else:
                collectors.stop(value, site.sessions[value].account.sent.flows)
            collectors.poll()
        for number in range(len(NAMES)):
            collectors.start(number)
        site.until(lambda: all(is_up(session) for session in site.sessions), "all are up", step_s=1)
        site.until(lambda: sum(map(len, collectors.poll().numbers())) >= sent, "all arrives, or is there already")
        numbers = collectors.numbers()
        assert sorted(number for share in numbers for number in share) == list(range(sent))
        assert [session.account.sent.flows for session in site.sessions] == [len(share) for share in numbers]
        for lives in collectors.lives:
            for life in lives:
                for session in life.sessions:
                    check_sequence(session)
