"""The daemon under a service manager: what systemd hears of it."""

from __future__ import annotations

import signal
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from lab.collectors import UdpSink
from lab.daemon import Daemon, configuration
from lab.namespaces import Lab, stop
from lab.programs import WAIT_S, wait_until
from lab.traffic import Traffic

pytestmark = pytest.mark.e2e(tools=("make",))

OFTEN = {"eviction_interval": "200ms"}
AT_ONCE = {"active_timeout": "0s"}


class Manager:
    """The other end of NOTIFY_SOCKET."""

    def __init__(self, directory: Path) -> None:
        self.path = directory / "notify"
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.socket.bind(str(self.path))
        self.socket.settimeout(WAIT_S)

    @property
    def environment(self) -> dict[str, str]:
        return {"NOTIFY_SOCKET": str(self.path), "WATCHDOG_USEC": "30000000"}

    def hear(self) -> str:
        return self.socket.recv(4096).decode()

    def hear_until(self, message: str) -> list[str]:
        heard = [self.hear()]
        while heard[-1].split("\n")[0] != message:
            heard.append(self.hear())
        return heard


@pytest.fixture
def manager(tmp_path: Path) -> Iterator[Manager]:
    made = Manager(tmp_path)
    yield made
    made.socket.close()


def test_what_systemd_hears(lab: Lab, tmp_path: Path, manager: Manager) -> None:
    near, far = lab.pair()
    with UdpSink(far.ns) as sink:
        daemon = Daemon(lab, far.ns, tmp_path, configuration(OFTEN, AT_ONCE), environment=manager.environment)
        with daemon:
            heard = manager.hear_until("READY=1")
            assert "WATCHDOG=1" not in heard
            assert heard[-2].startswith(
                "STATUS=measuring 1 interfaces, 0 flows/s, 1 of 1 collectors up; packets lost: 0"
            )
            assert len(sink.receive()) > 16  # a Message: the Templates are out
            Traffic(flows=500, packets=500).send(lab, near)
            wait_until(lambda: "500 flows/s" in manager.hear(), "the status tells the flows")
            manager.hear_until("WATCHDOG=1")
            daemon.reload(configuration({"eviction_interval": "20s"}, AT_ONCE))
            assert manager.hear_until("RELOADING=1")[-1].startswith("RELOADING=1\nMONOTONIC_USEC=")
            assert "WATCHDOG_USEC=60000000" in manager.hear_until("READY=1")
            daemon.reload("[capture")
            manager.hear_until("RELOADING=1")
            assert "; the last reload failed: see the log" in manager.hear_until("READY=1")[-2]
            assert daemon.stop() == 0
            manager.hear_until("STOPPING=1")


def test_a_daemon_that_hangs_says_where(lab: Lab, tmp_path: Path) -> None:
    _, far = lab.pair()
    with Daemon(lab, far.ns, tmp_path, configuration(OFTEN, AT_ONCE)) as daemon:
        assert stop(daemon.process, signal.SIGABRT) == -signal.SIGABRT
        assert "Fatal Python error: Aborted" in daemon.log
        assert "in run_once" in daemon.log
