"""Descriptors that systemd keeps: a socket of the test plays it."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Callable

import pytest

from lab.keeping import ServiceStore
from netobs.base.loop import EventLoop
from netobs.daemon.fd_store import FdStore, inherited, store_size
from netobs.daemon.systemd import ServiceManager

Store = Callable[..., FdStore]
REPOSITORY = Path(__file__).parents[3]
CHILD = """
import json, os, sys
from netobs.daemon.fd_store import inherited
found = inherited(os.environ)
print(json.dumps({name: os.pread(fd, 99, 0).decode() for name, fd in found.items()}))
assert not any(os.get_inheritable(fd) for fd in found.values())
"""


@pytest.fixture
def manager(tmp_path: Path) -> Iterator[ServiceStore]:
    with ServiceStore(tmp_path / "notify") as made:
        yield made


@pytest.fixture
def loop() -> Iterator[EventLoop]:
    with EventLoop() as made:
        yield made


@pytest.fixture
def store(manager: ServiceStore, loop: EventLoop) -> Iterator[Callable[..., FdStore]]:
    with contextlib.ExitStack() as stack:

        def make(size: int = 8192, **former: int) -> FdStore:
            service = stack.enter_context(contextlib.closing(ServiceManager(manager.environment, loop)))
            return stack.enter_context(contextlib.closing(FdStore(service, former, size)))

        yield make


def content(fd: int) -> bytes:
    return os.pread(fd, 99, 0)


def test_what_is_kept_is_the_newest_of_each_name(manager: ServiceStore, store: Store) -> None:
    kept = store()
    os.write(kept.memory("cache-1"), b"first")
    with open(__file__, "rb") as file:
        kept.keep("file", file.fileno())
    os.write(kept.memory("gone"), b"nothing")
    os.write(kept.memory("cache-1"), b"second")
    kept.drop("gone")
    kept.drop("never")
    manager.read()
    assert {name: content(fd)[:9] for name, fd in manager.fds.items()} == {"cache-1": b"second", "file": b'"""Descri'}
    assert not any(message.endswith("never") for message in manager.heard)


def test_the_next_process_finds_it(manager: ServiceStore, store: Store) -> None:
    kept = store()
    for name in ("a", "b", "l-0-12345678-i"):
        os.write(kept.memory(name), name.upper().encode())
    kept.settle(0)
    manager.read()
    command = [*manager.prefix(), sys.executable, "-c", CHILD]
    done = subprocess.run(command, pass_fds=[*manager.fds.values()], cwd=REPOSITORY, check=True, capture_output=True)
    assert json.loads(done.stdout) == {"a": "A", "b": "B", "l-0-12345678-i": "L-0-12345678-I"}


def test_a_former_one_is_found_until_it_is_dropped(manager: ServiceStore, store: Store) -> None:
    with open(__file__, "rb") as file:
        kept = store(old=os.dup2(file.fileno(), 500), other=os.dup2(file.fileno(), 501))
    assert (kept.keeps, kept.names(), kept.former("new")) == (True, frozenset({"old", "other"}), None)
    assert kept.former("old") == 500
    kept.drop("old")
    assert kept.former("old") is None
    assert kept.names() == {"other"}
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(500)
    assert manager.read() == ["FDSTOREREMOVE=1\nFDNAME=old"]
    assert store().memory("new") >= 0  # of a name that nobody had
    assert manager.read()[1:] == ["FDSTORE=1\nFDPOLL=0\nFDNAME=new"]


def test_more_than_the_socket_takes_follows_in_its_order(manager: ServiceStore, loop: EventLoop, store: Store) -> None:
    """The kernel lets few datagrams wait: net.unix.max_dgram_qlen."""
    kept = store()
    for number in range(300):
        os.close(os.dup(kept.memory(f"m-{number}")))
        if number % 3 == 0:
            kept.drop(f"m-{number}")
    while len(manager.read()) < 300 + 100:
        loop.run_once()
    assert list(manager.fds) == [f"m-{number}" for number in range(300) if number % 3]
    open_fds = len(os.listdir("/proc/self/fd"))
    kept.close()
    assert len(os.listdir("/proc/self/fd")) < open_fds - 150


def test_the_end_waits_for_what_is_on_its_way(manager: ServiceStore, store: Store) -> None:
    kept = store()
    for number in range(200):
        kept.memory(f"m-{number}")
    assert len(manager.read()) < 200
    kept.settle(60_000_000_000, lambda _ns: manager.read())  # systemd reads meanwhile
    assert len(manager.read()) == 200


def test_a_full_store_is_said_once(manager: ServiceStore, store: Store, caplog: pytest.LogCaptureFixture) -> None:
    kept = store(size=2)
    for name in ("a", "b", "c", "d"):
        kept.memory(name)
    kept.drop("a")
    kept.memory("e")
    manager.read()
    assert set(manager.fds) == {"b", "e"}
    assert caplog.text.count("FileDescriptorStoreMax=") == 1


def test_nobody_listens(loop: EventLoop) -> None:
    with contextlib.closing(ServiceManager({"NOTIFY_SOCKET": "/nonexistent/notify"}, loop)) as service:
        kept = FdStore(service, {}, 9)
        assert kept.memory("a") >= 0
        kept.settle(0)
        kept.close()


@pytest.mark.parametrize(
    "environment",
    [
        {},
        {"LISTEN_PID": "1", "LISTEN_FDS": "3"},
        {"LISTEN_PID": str(os.getpid())},
        {"LISTEN_PID": str(os.getpid()), "LISTEN_FDS": "many"},
        {"LISTEN_PID": str(os.getpid()), "LISTEN_FDS": "0", "LISTEN_FDNAMES": ""},
    ],
)
def test_what_systemd_passes_to_others_is_theirs(environment: dict[str, str]) -> None:
    assert inherited(environment) == {}


def test_the_first_of_two_with_one_name_counts() -> None:
    first = os.memfd_create("first")
    fds = [os.dup2(first, 500 + number) for number in range(3)]
    names = {"LISTEN_PID": str(os.getpid()), "LISTEN_FDS": "3", "LISTEN_FDNAMES": "a:b:a"}
    assert inherited(names, 500) == {"a": fds[0], "b": fds[1]}
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(fds[2])
    for fd in (first, *fds[:2]):
        os.close(fd)


def test_whether_there_is_a_store() -> None:
    assert store_size({}) == 0
    assert store_size({"FDSTORE": "9"}) == 0
    assert store_size({"NOTIFY_SOCKET": "/x", "FDSTORE": ""}) == 0
    assert store_size({"NOTIFY_SOCKET": "/x", "FDSTORE": "8192"}) == 8192
