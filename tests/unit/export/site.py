"""Several collectors behind a router, for the tests of groups."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np

from netobs.base.clock import ClockPair
from netobs.base.loop import EventLoop
from netobs.config import CollectorConfig, GroupConfig
from netobs.export import TransportSession
from netobs.export.policies import Member
from netobs.export.router import Router
from netobs.flow.records import FlowBatch, Records, empty
from netobs.flow.tally import Tally
from tests.unit.export.support import (
    REALTIME_NS,
    SECOND,
    Encoder,
    Header,
    Rows,
    TcpCollector,
    numbers_of,
    rows,
    tcp_config,
)


def flows(start: int, count: int) -> Records:
    """UDP flows of one client; ``ifindex`` is the number."""
    made = empty(count)
    made["ifindex"] = np.arange(start, start + count)
    made["src_addr"][:, 10:] = (0xFF, 0xFF, 192, 0, 2, 1)
    made["dst_addr"][:, 10:] = (0xFF, 0xFF, 198, 51, 100, 1)
    made["src_port"], made["dst_port"], made["protocol"] = np.arange(start, start + count), 53, 17
    return made


class Made(NamedTuple):
    """What an encoder gives."""

    data_sets: list[Rows]
    unencodable: Tally
    clamped: int = 0


class FlowEncoder(Encoder):
    """The Data Record of a flow has its ``ifindex`` as the number; flows with ``vlan_id`` 1 have no Template."""

    def __init__(self) -> None:
        super().__init__()
        self.batches: list[int] = []

    def encode(self, batch: FlowBatch) -> Made:
        self.batches.append(len(batch))
        numbers = batch.records["ifindex"][batch.records["vlan_id"] == 0]
        made = rows(0, len(numbers))
        made.rows["number"] = numbers
        return Made([made], Tally(int(np.count_nonzero(batch.records["vlan_id"]))))


class Site:
    """Sessions on one loop, whose clock stands still until it is moved, and the router in front of them."""

    def __init__(
        self, configs: Sequence[CollectorConfig], groups: Sequence[GroupConfig], encoders: Sequence[FlowEncoder] = ()
    ) -> None:
        self.now_ns = 5 * SECOND
        self.loop = EventLoop(lambda: self.now_ns)
        encoders = encoders or [FlowEncoder()] * len(configs)
        self.members = [
            Member(config.name, TransportSession(config, encoder, Header, self.loop), encoder)
            for config, encoder in zip(configs, encoders)
        ]
        self.sessions = [member.sink for member in self.members]
        self.router = Router(self.members, groups, self.loop)
        self._next = 0

    @property
    def clock(self) -> ClockPair:
        return ClockPair(self.now_ns, REALTIME_NS + self.now_ns)

    def open(self) -> None:
        for session in self.sessions:
            session.open(self.clock, self.now_ns)
        self.router.start(self.now_ns)

    def send(self, count: int) -> list[int]:
        """Flows with the next ``count`` numbers; return these."""
        start, self._next = self._next, self._next + count
        self.router.export(FlowBatch(flows(start, count), self.clock), self.now_ns)
        self.check()
        return list(range(start, self._next))

    def until(self, condition: Callable[[], Any], what: str, step_s: float = 0) -> None:
        """Run the loop until ``condition``; before each look at it the clock moves by ``step_s``."""
        for _ in range(1000):
            self.move(step_s)
            if condition():
                return
            self.loop.run_once(5_000_000)
            self.check()
        raise AssertionError(f"never happened: {what}")

    def move(self, seconds: float) -> None:
        """In steps of half a second: the router looks at the sessions each second."""
        for _ in range(int(seconds * 2)):
            self.now_ns += SECOND // 2
            for _ in range(3):
                self.loop.run_once(0)
                self.check()

    def check(self) -> None:
        """Every flow is accounted for, at one collector; what one gave away another took over."""
        away, taken = Tally(), Tally()
        for session in self.sessions:
            stats = session.account
            found = stats.sent + stats.not_sent_total() + stats.queued + stats.spooled + stats.moved_away
            assert stats.seen + stats.taken_over == found
            away, taken = away + stats.moved_away, taken + stats.moved_in
        assert away == taken

    def close(self) -> None:
        self.router.stop()
        for session in self.sessions:
            session.close(self.now_ns, self.now_ns)
        self.until(lambda: all(session.closed for session in self.sessions), "the end")
        assert all(session.closed and not session.account.queued.flows for session in self.sessions)
        self.check()
        self.loop.close()


def group(policy: str, *names: str) -> GroupConfig:
    return GroupConfig("site", names, policy)


def tcp(name: str, port: int, **changes: object) -> CollectorConfig:
    return tcp_config(port, name=name, reconnect_max_ns=SECOND, **changes)


def received(collector: TcpCollector) -> list[int]:
    """All Data Records over all connections."""
    collector.poll()
    return [number for session in collector.sessions for number in numbers_of(session)]
