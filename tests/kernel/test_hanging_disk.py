"""A spool on a disk that hangs: flows go on to the other collectors, and each flow stays accounted for."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from lab.disk import Disk
from netobs.export.spool.replay import SLOW_NS
from tests.unit.export.site import Site, received, tcp
from tests.unit.export.support import ROW, SECOND, TcpCollector, free_port

pytestmark = pytest.mark.kernel(tools=("mkfs.ext4", "mount"))

ROW_BYTES = ROW.itemsize + 16
QUEUE_FLOWS = 2000


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Disk]:
    with Disk(tmp_path) as made:
        yield made


class Two:
    """Two collectors that get everything: one with a spool on ``disk``, which is away, and one that is up."""

    def __init__(self, disk: Disk, stack: contextlib.ExitStack) -> None:
        self.disk, self.stack = disk, stack
        self.port = free_port(socket.SOCK_STREAM)
        self.second = TcpCollector()
        stack.callback(self.second.close)
        self.site = self.make()
        self.sent: list[int] = []

    def make(self) -> Site:
        spooled = tcp("a", self.port, spool=str(self.disk.path / "spool"), queue_max_bytes=QUEUE_FLOWS * ROW_BYTES)
        site = Site([spooled, tcp("b", self.second.port)], [])
        self.stack.callback(site.close)
        self.stack.callback(self.disk.thaw)
        site.open()
        site.until(lambda: site.sessions[1].account.reconnects or self.second.poll().connection, "one is connected")
        return site

    def send(self, count: int) -> None:
        self.sent += self.site.send(count)

    def second_has_all(self) -> None:
        self.site.until(lambda: received(self.second) == self.sent, "the other collector gets all")


@pytest.fixture
def two(disk: Disk, cleanup: contextlib.ExitStack) -> Two:
    return Two(disk, cleanup)


@pytest.fixture
def cleanup() -> Iterator[contextlib.ExitStack]:
    with contextlib.ExitStack() as stack:
        yield stack


def spool_threads() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name == "netobs-spool"]


def test_metering_and_the_others_go_on_and_all_is_stored_when_the_disk_is_back(
    two: Two, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    site, first = two.site, two.site.sessions[0]
    two.send(100)
    site.until(lambda: first.account.spooled.flows == 100, "the flows are in the spool")
    two.disk.freeze()
    for _ in range(3):
        two.send(100)
        two.second_has_all()
        site.move(1)
    assert (first.account.spooled.flows, first.account.queued.flows) == (100, 300)
    assert two.disk.is_frozen
    site.move(SLOW_NS / SECOND)
    two.send(1)
    assert [line for line in caplog.messages if "has not answered for 10 s; flows wait in memory" in line] != []
    two.disk.thaw()
    site.until(lambda: first.account.spooled.flows == 401, "all is in the spool")
    assert caplog.messages[-1].endswith("the disk answers again")
    collector = TcpCollector(port=two.port)
    two.stack.callback(collector.close)
    site.until(lambda: received(collector) == two.sent, "the collector gets all", step_s=1)
    assert (first.account.sent.flows, first.account.not_sent) == (401, {})


def test_memory_is_bounded_and_what_it_cannot_hold_is_counted(two: Two) -> None:
    site, first = two.site, two.site.sessions[0]
    two.send(100)
    site.until(lambda: first.account.spooled.flows == 100, "the flows are in the spool")
    two.disk.freeze()
    for _ in range(10):
        two.send(1000)
        site.move(2)
    two.send(1)
    two.second_has_all()
    assert first.account.queued.flows <= QUEUE_FLOWS + 1
    assert set(first.account.not_sent) == {"queue_full"}
    assert (
        first.account.spooled.flows + first.account.queued.flows + first.account.not_sent["queue_full"].flows == 10_101
    )


def test_the_end_does_not_wait_for_the_disk(two: Two, caplog: pytest.LogCaptureFixture) -> None:
    site, (first, second) = two.site, two.site.sessions
    two.send(100)
    site.until(lambda: first.account.spooled.flows == 100, "the flows are in the spool")
    two.disk.freeze()
    two.send(200)
    two.second_has_all()
    for session in site.sessions:
        session.close(site.now_ns, site.now_ns + 4 * SECOND)
    site.move(6)
    assert (first.closed, second.closed) == (True, True)
    assert first.account.queued.flows == 0
    assert first.account.not_sent["closed"].flows == 200
    assert "the disk does not answer: 200 flows that wait are given up" in caplog.text
    assert two.disk.is_frozen
    two.disk.thaw()
    for thread in spool_threads():
        thread.join()
    two.site = two.make()
    assert two.site.sessions[0].account.taken_over.flows >= 100


def test_new_flows_go_on_while_the_spool_cannot_be_read_on(two: Two) -> None:
    site, first = two.site, two.site.sessions[0]
    for _ in range(20):
        two.send(1000)
        site.until(lambda: not first.account.queued.flows, "the flows are in the spool")
    two.disk.freeze()
    collector = TcpCollector(port=two.port)
    two.stack.callback(collector.close)
    site.until(lambda: first.reach.is_open, "the collector is back", step_s=1)
    old, new = two.sent[:], two.site.send(10)
    two.sent += new
    site.until(lambda: set(new) <= set(received(collector)), "the new flows arrive", step_s=0.5)
    assert first.account.spooled.flows > 0
    assert two.disk.is_frozen
    two.disk.thaw()
    site.until(lambda: sorted(received(collector)) == old + new, "all arrives, once", step_s=0.5)
    assert first.account.not_sent == {}
