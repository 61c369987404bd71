"""Name servers that never answer: what asks them waits, metering does not."""

from __future__ import annotations

import contextlib
import re
import signal
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from lab.collectors import UdpSink
from lab.daemon import Daemon, configuration, total
from lab.namespaces import Lab, Link, in_namespace
from lab.programs import WAIT_S, wait_until
from lab.traffic import Traffic

pytestmark = pytest.mark.e2e(tools=("make",))

NAME_SERVER = ("127.0.0.53", 53)
PATIENCE_S = 30
OFTEN = {"eviction_interval": "200ms"}
AT_ONCE = {"active_timeout": "0s"}
NO_SUCH_NAME = b"\x81\x83"


class NameServer:
    """Takes questions (RFC 1035, section 4.1), and answers them only when it is told to: there is no such name."""

    def __init__(self, ns: str) -> None:
        with in_namespace(ns):
            self._sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._sock.bind(NAME_SERVER)
        self._sock.setblocking(False)

    @property
    def is_asked(self) -> bool:
        """Whether a question waits for its answer."""
        with contextlib.suppress(BlockingIOError):
            return bool(self._sock.recv(512, socket.MSG_PEEK))
        return False

    def answer(self) -> None:
        with contextlib.suppress(BlockingIOError):
            while True:
                question, address = self._sock.recvfrom(512)
                self._sock.sendto(question[:2] + NO_SUCH_NAME + question[4:], address)

    def close(self) -> None:
        self._sock.close()


@pytest.fixture
def link(lab: Lab) -> tuple[Link, Link]:
    """A pair of namespaces; programs in the second one wait long for their name server."""
    near, far = lab.pair()
    lab.name_servers(far.ns, NAME_SERVER[0], timeout_s=PATIENCE_S, attempts=5)
    return near, far


@pytest.fixture
def name_server(link: tuple[Link, Link]) -> Iterator[NameServer]:
    with contextlib.closing(NameServer(link[1].ns)) as server:
        yield server


def asking(name: str) -> str:
    """A configuration whose check asks the name service."""
    return configuration(OFTEN, AT_ONCE, packet_capture={"enabled": True, "filter": f"host {name}"})


def longest_silence_ms(daemon: Daemon) -> int:
    """As the last account says it."""
    return int(re.findall(r" loop: longest silence (\d+) ms", daemon.log)[-1])


def test_neither_metering_nor_the_end_waits_for_a_reload_that_asks_for_names(
    lab: Lab, tmp_path: Path, link: tuple[Link, Link], name_server: NameServer
) -> None:
    near, far = link
    with UdpSink(far.ns), Daemon(lab, far.ns, tmp_path, configuration(OFTEN, AT_ONCE)) as daemon:
        daemon.conf.write_text(asking("first.example"), encoding="utf-8")
        daemon.process.send_signal(signal.SIGHUP)
        wait_until(lambda: name_server.is_asked, "the file is read")
        for packets in (100, 200):
            Traffic(packets=100).send(lab, near)
            wait_until(lambda: total(daemon.account().sent).packets >= packets, "flows are exported")  # noqa: B023
        account = daemon.finish()
        assert " reload: " not in daemon.log
        assert longest_silence_ms(daemon) < PATIENCE_S * 1000 / 10
    assert account.sent["127.0.0.1"].packets == 200


def test_a_reload_that_is_asked_for_meanwhile_follows_once(
    lab: Lab, tmp_path: Path, link: tuple[Link, Link], name_server: NameServer
) -> None:
    _, far = link
    with Daemon(lab, far.ns, tmp_path, configuration(OFTEN, AT_ONCE)) as daemon:
        daemon.conf.write_text(asking("first.example"), encoding="utf-8")
        daemon.process.send_signal(signal.SIGHUP)
        wait_until(lambda: name_server.is_asked, "the file is read")
        daemon.conf.write_text(configuration(OFTEN, AT_ONCE, [{"name": "second"}]), encoding="utf-8")
        for _ in range(3):
            daemon.process.send_signal(signal.SIGHUP)
            daemon.account()
        assert " reload: " not in daemon.log
        while "reload: failed" not in daemon.log:
            wait_until(lambda: name_server.is_asked or "reload: failed" in daemon.log, "the first one ends")
            name_server.answer()
        daemon.wait_for("reload: done")
        daemon.account()
        assert re.findall(r" reload: (failed|done)", daemon.log) == ["failed", "done"]
        assert daemon.stop() == 0
        assert 'collector "second"' in daemon.log


@pytest.mark.usefixtures("name_server")
def test_neither_metering_nor_the_start_waits_for_the_name_of_a_collector(
    lab: Lab, tmp_path: Path, link: tuple[Link, Link]
) -> None:
    near, far = link
    collectors = [{"host": "collector.example"}, {"name": "near"}]
    with UdpSink(far.ns), Daemon(lab, far.ns, tmp_path, configuration(OFTEN, AT_ONCE, collectors)) as daemon:
        Traffic(packets=100).send(lab, near)
        wait_until(lambda: daemon.account().sent["near"].packets == 100, "the other collector gets the flows")
        assert daemon.finish(within=WAIT_S).seen.packets == 100
