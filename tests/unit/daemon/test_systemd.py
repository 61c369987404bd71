"""What systemd is told, read from a socket like its own."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from netobs.base.loop import EventLoop
from netobs.daemon.systemd import ServiceManager

S = 1_000_000_000


class Manager:
    """The other end of NOTIFY_SOCKET."""

    def __init__(self, address: str) -> None:
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.socket.bind(address.replace("@", "\0", 1) if address.startswith("@") else address)
        self.socket.setblocking(False)
        self.address = address

    def heard(self) -> list[str]:
        return list(iter(self._next, ""))

    def _next(self) -> str:
        try:
            return self.socket.recv(4096).decode()
        except BlockingIOError:
            return ""


@pytest.fixture(params=["path", "abstract"])
def manager(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Manager]:
    address = str(tmp_path / "notify") if request.param == "path" else f"@netobs-test-{os.getpid()}"
    made = Manager(address)
    yield made
    made.socket.close()


@pytest.fixture
def loop() -> Iterator[EventLoop]:
    with EventLoop() as made:
        yield made


def service(manager: Manager, loop: EventLoop, **environment: str) -> ServiceManager:
    return ServiceManager({"NOTIFY_SOCKET": manager.address, **environment}, loop)


def test_the_life_of_a_service(manager: Manager, loop: EventLoop) -> None:
    told = service(manager, loop)
    told.status("measuring 1 interfaces")
    told.ready()
    told.reloading(5 * S + 999)
    told.ready()
    told.stopping()
    told.takes_longer()
    told.close()
    told.status("after the end")
    assert manager.heard() == [
        "STATUS=measuring 1 interfaces",
        "READY=1",
        "RELOADING=1\nMONOTONIC_USEC=5000000",
        "READY=1",
        "STOPPING=1",
        "EXTEND_TIMEOUT_USEC=20000000",
    ]


def test_without_a_watchdog_no_sign_of_life_is_given(manager: Manager, loop: EventLoop) -> None:
    for environment in ({}, {"WATCHDOG_USEC": "soon"}, {"WATCHDOG_USEC": "30000000", "WATCHDOG_PID": "1"}):
        told = service(manager, loop, **environment)
        told.expect_evictions(S)
        told.alive()
        told.close()
    assert manager.heard() == []


def test_a_watchdog_waits_for_a_rare_eviction(manager: Manager, loop: EventLoop) -> None:
    told = service(manager, loop, WATCHDOG_USEC="30000000", WATCHDOG_PID=str(os.getpid()))
    told.expect_evictions(5 * S)
    told.alive()
    told.expect_evictions(60 * S)
    told.expect_evictions(60 * S)
    told.expect_evictions(1 * S)
    told.close()
    assert manager.heard() == ["WATCHDOG=1", "WATCHDOG_USEC=180000000", "WATCHDOG_USEC=30000000"]


def test_nobody_listens(loop: EventLoop) -> None:
    for environment in ({}, {"NOTIFY_SOCKET": ""}, {"NOTIFY_SOCKET": "/nonexistent/notify"}):
        told = ServiceManager({**environment, "WATCHDOG_USEC": "1000000"}, loop)
        told.ready()
        told.alive()
        told.close()


def test_a_full_socket_does_not_block(manager: Manager, loop: EventLoop) -> None:
    told = service(manager, loop)
    for number in range(10_000):
        told.status(f"{number:0200d}")
    told.close()
    heard = manager.heard()
    assert 0 < len(heard) < 10_000
    assert heard[0] == f"STATUS={0:0200d}"


def test_what_a_full_socket_does_not_take_follows_in_its_order(manager: Manager, loop: EventLoop) -> None:
    """A start whose READY=1 got lost would be ended by systemd after its time limit."""
    told = service(manager, loop)
    for _ in range(1_000):
        told.send("FDSTOREREMOVE=1")
    told.reloading(0)
    told.status("old when it is read")
    told.ready()
    heard = manager.heard()
    while len(heard) < 1_002:
        loop.run_once()
        heard += manager.heard()
    assert heard == ["FDSTOREREMOVE=1"] * 1_000 + ["RELOADING=1\nMONOTONIC_USEC=0", "READY=1"]
    told.close()
