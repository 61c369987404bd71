"""Whose connections get packets: users of this host, by a Unix socket or by TCP, and how many each may have."""

from __future__ import annotations

import contextlib
import grp
import os
import pwd
import socket
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest

from lab.packet_site import Site, ask, numbered, numbers_in
from netobs.base.errors import NetobsError
from netobs.config.addresses import Endpoint
from netobs.kernel.listening import check, listening_sockets
from netobs.pcap.server.admission import LISTEN
from netobs.pcap.server.peer import is_there, may_connect, peer_of

IS_ROOT = os.geteuid() == 0
ONE, OTHER = pwd.getpwnam("daemon"), pwd.getpwnam("bin")
GROUP = grp.getgrgid(ONE.pw_gid).gr_name

as_root = pytest.mark.skipif(not IS_ROOT, reason="only root can be several users")


@contextlib.contextmanager
def user(uid: int) -> Iterator[None]:
    """What this process does meanwhile it does as another user."""
    os.seteuid(uid)
    try:
        yield
    finally:
        os.seteuid(0)


def connect(site: Site, uid: int, request: bytes | None = b"\n") -> socket.socket:
    with user(uid):
        return site.connect(request)


@as_root
def test_who_is_not_in_the_group_gets_nothing_by_tcp() -> None:
    with Site(group=GROUP) as site:
        answer = site.all_of(connect(site, OTHER.pw_uid))
        assert answer.decode() == f"netobs: uid {OTHER.pw_uid} is not in the group {GROUP}; add the user to it\n"
        assert site.server.admission.refused == {"user": 1}
        connect(site, ONE.pw_uid)
        site.connect()  # root
        site.until_clients(2)
    with Site() as site:
        assert b"is not in the group netobs" in site.all_of(connect(site, ONE.pw_uid))


@as_root
@pytest.mark.parametrize("host", ["::1", "::"])
def test_the_same_by_ipv6(host: str) -> None:
    with Site(host=host) as site:
        assert b"is not in the group netobs" in site.all_of(connect(site, OTHER.pw_uid))
        site.connect()
        site.until_clients(1)
        if host == "::":  # an IPv4 client of a socket for both
            with user(OTHER.pw_uid):
                client = socket.create_connection(("127.0.0.1", site.port))
            client.setblocking(False)
            assert b"is not in the group netobs" in site.all_of(client)


def test_the_user_itself_may_connect() -> None:
    assert may_connect(os.geteuid())
    assert may_connect(0)
    assert not may_connect(None)
    assert not may_connect(4_000_000_000)
    assert not may_connect(OTHER.pw_uid, "no-such-group")


@as_root
def test_a_user_cannot_take_all_places() -> None:
    with Site(max_clients=4, group=GROUP) as site:
        for _ in range(3):
            connect(site, ONE.pw_uid)
        site.until_clients(3)
        answer = site.all_of(connect(site, ONE.pw_uid)).decode()
        assert answer.startswith(f"netobs: uid {ONE.pw_uid} has 3 clients already, and one place is kept for others")
        site.connect()
        site.connect()  # root has one beyond max_clients
        site.until_clients(5)
        assert site.answer(b"\n").startswith("netobs: 4 clients are connected already")


def has_header(client: socket.socket) -> bool:
    with contextlib.suppress(BlockingIOError):
        return client.recv(4, socket.MSG_PEEK) == b"\x4d\x3c\xb2\xa1"
    return False


@as_root
def test_clients_that_close_at_once_keep_no_place() -> None:
    """Faster than their streams have packets: root is served each time."""
    with Site(max_clients=4, group=GROUP) as site:
        for _ in range(50):
            for _ in range(8):
                connect(site, ONE.pw_uid).close()
            served = site.connect(ask(count=1, filter="udp"))
            site.until(lambda: has_header(served), "root is served")  # noqa: B023 - it is called here only
            site.source.feed(numbered(range(1), filters=0xFF))
            assert numbers_in(site.all_of(served)) == [0]


@pytest.mark.parametrize("half_close_first", [False, True])
def test_a_client_that_closes_after_its_request_is_gone_at_once(tmp_path: Path, half_close_first: bool) -> None:
    for host in ("127.0.0.1", str(tmp_path / "socket")):
        with Site(host=host) as site:
            client = site.connect(b"udp\n")
            if half_close_first:
                client.shutdown(socket.SHUT_WR)
            site.until_clients(1)
            site.source.feed(numbered(range(3)))
            site.until(lambda: site.server.total.sent == 3)
            client.close()
            if half_close_first:
                site.skip(1_000_000_000)
            site.until_clients(0)  # and no packet came


def test_a_unix_socket(tmp_path: Path) -> None:
    path = tmp_path / "run" / "capture.sock"
    with Site(host=str(path), format="pcapng") as site:
        mode = path.stat().st_mode
        assert stat.S_ISSOCK(mode)
        assert stat.S_IMODE(mode) in (0o600, 0o660)
        client, silent = site.connect(ask(format="pcap")), site.connect(None)
        silent.shutdown(socket.SHUT_WR)  # socat -u
        site.until_clients(2)
        assert {str(each) for each in site.server.clients} == {
            f"packet client of uid {os.geteuid()}, pid {os.getpid()}"
        }
        site.source.feed(numbered(range(10), filters=3))
        site.until(lambda: site.server.total.sent == 20)
        site.stop()
        assert numbers_in(site.all_of(client)) == list(range(10))
        assert site.all_of(silent)[:4] == b"\x0a\x0d\x0d\x0a"
        assert not site.source.streams
    assert not path.exists()


@as_root
def test_a_unix_socket_is_not_for_others(tmp_path: Path) -> None:
    for folder in (tmp_path, *tmp_path.parents):
        if folder.owner() == "root" and folder.stat().st_mode & 0o077 == 0:
            folder.chmod(folder.stat().st_mode | 0o011)
    with Site(host=str(tmp_path / "capture.sock")) as site, pytest.raises(PermissionError):
        connect(site, OTHER.pw_uid)


def test_what_is_where_the_socket_is_to_be(tmp_path: Path) -> None:
    path = tmp_path / "capture.sock"
    endpoint = Endpoint(str(path))
    with socket.socket(socket.AF_UNIX) as stale:
        stale.bind(str(path))
    with Site(host=str(path)):  # the one before was killed
        with pytest.raises(NetobsError, match="another program listens there; end it, or set another socket") as caught:
            listening_sockets(LISTEN, endpoint)
        assert caught.value.may_pass
        check(LISTEN, endpoint)  # it may be we
        assert path.exists()
    assert not path.exists()
    check(LISTEN, endpoint)
    assert not path.exists()
    path.write_text("precious")
    with pytest.raises(NetobsError, match="a file is there that is no socket"):
        listening_sockets(LISTEN, endpoint)
    assert path.read_text() == "precious"


def test_whether_a_client_is_still_there(tmp_path: Path) -> None:
    unix, tcp = socket.socket(socket.AF_UNIX), socket.create_server(("127.0.0.1", 0))
    unix.bind(str(tmp_path / "socket"))
    unix.listen()
    for listener in (unix, tcp):
        with listener, socket.socket(listener.family) as client:
            client.connect(listener.getsockname())
            accepted, sockaddr = listener.accept()
            peer = peer_of(accepted, sockaddr)
            assert peer.uid == os.geteuid()
            client.shutdown(socket.SHUT_WR)
            assert is_there(accepted, peer) is True
            client.close()
            assert is_there(accepted, peer) is False
            accepted.close()
