"""The root helper: what it does for the daemon, and what it does for nobody."""

from __future__ import annotations

import contextlib
import errno
import os
import re
import socket
import struct
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from lab.helper import RunningHelper
from lab.namespaces import Lab, Link, in_namespace
from lab.prog_run import Programs
from lab.programs import wait_until
from netobs.base.loop import EventLoop
from netobs.daemon.helper_calls import HelperCalls
from netobs.daemon.namespace_hooks import NamespaceHooks
from netobs.helper.server import BURST, MAX_CONNECTIONS
from netobs.kernel import inotify
from netobs.kernel.attach import FLOWS_PLACE, Attachment
from netobs.kernel.helper_client import Helper
from netobs.kernel.helper_protocol import MAX_ANSWER_BYTES, MAX_REQUEST_BYTES, Message, receive, send
from netobs.kernel.interfaces import LinkMonitor
from tests.kernel.foreign import tcx_programs

pytestmark = pytest.mark.kernel

SO_NETNS_COOKIE = 71
NOBODY = 65534
LINK: dict[str, object] = {
    "verb": "link", "namespace": "good-1", "ifindex": 1, "direction": "ingress", "method": "tcx", "last": False,
}  # fmt: skip


@pytest.fixture(scope="module")
def lab() -> Iterator[Lab]:
    with Lab() as made:
        yield made


@pytest.fixture(scope="module")
def programs() -> Iterator[Programs]:
    with Programs(max_flows=1024) as loaded:
        yield loaded


@pytest.fixture(scope="module")
def folder(lab: Lab, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, str]]:
    """A folder with what a name can stand for, and the namespace that ``good-1`` is a link to."""
    ns = lab.namespace("helped")
    names = tmp_path_factory.mktemp("folder") / "names"
    names.mkdir()
    (names / "good-file").write_text("no namespace", encoding="ascii")
    (names / "good-link").symlink_to(f"/run/netns/{ns}")
    (names / "good-mount").symlink_to("/proc/self/ns/mnt")
    os.mkfifo(names / "good-pipe")
    for name in ("good-1", "bad-1"):
        (names / name).touch()
        subprocess.run(["mount", "--bind", f"/run/netns/{ns}", str(names / name)], check=True)
    yield str(names), ns
    for name in ("good-1", "bad-1"):
        subprocess.run(["umount", str(names / name)], check=True)


@pytest.fixture(scope="module")
def helper(folder: tuple[str, str], tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningHelper]:
    """For all tests that do not end it."""
    with RunningHelper(tmp_path_factory.mktemp("helper"), ["good-*"], folder[0]) as running:
        yield running


@pytest.fixture
def running(helper: RunningHelper) -> RunningHelper:
    """Without connections of an earlier test; its log is of this test."""
    wait_until(lambda: helper.descriptors() == helper.descriptors_at_rest, "earlier connections are closed")
    helper.forget_log()
    return helper


@contextlib.contextmanager
def connected(path: str) -> Iterator[socket.socket]:
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as sock:
        sock.settimeout(20)
        sock.connect(path)
        yield sock


def ask(sock: socket.socket, *fds: int, **values: object) -> Message | None:
    send(sock, values, fds)
    return receive(sock, MAX_ANSWER_BYTES)


def error_of(answer: Message | None) -> str:
    assert answer is not None
    assert not answer.fds
    return str(answer.values["error"])


def cookie(sock: socket.socket) -> int:
    number: int = struct.unpack("=Q", sock.getsockopt(socket.SOL_SOCKET, SO_NETNS_COOKIE, 8))[0]
    return number


def test_names_and_sockets_are_those_of_the_namespaces(running: RunningHelper, folder: tuple[str, str]) -> None:
    inode = os.stat(f"/run/netns/{folder[1]}").st_ino
    client = Helper(running.path)
    assert client.list() == {"good-1": inode}
    sock, found = client.open("good-1")
    with sock, in_namespace(folder[1]), socket.socket(socket.AF_NETLINK, socket.SOCK_RAW) as inside:
        assert (found, cookie(sock)) == (inode, cookie(inside))
    sockets = client.open("good-1")[0], client.open("good-1")[0]
    monitor = LinkMonitor(sockets, netns=5)
    assert [(each.name, each.key) for each in monitor.interfaces()] == [("lo", 5 << 32 | 1)]
    assert (monitor.name_of(1), monitor.name_of(2)) == ("lo", "")
    monitor.close()
    client.close()
    assert re.search(r"INFO uid 0, process \d+: open good-1: done", running.log)


class Hooked:
    """``NamespaceHooks`` for lo of ``good-1``, and its loop."""

    def __init__(self, path: str, programs: Programs, method: str, loop: EventLoop) -> None:
        self._programs, self._method, self._loop = programs, method, loop
        self.away: list[str] = []
        client = Helper(path)
        sockets, _ = client.open_two("good-1")
        self.links = LinkMonitor(sockets, netns=1)
        self.calls = HelperCalls(client, loop, lambda why, now_ns: self.away.append(why))
        self.hooks = NamespaceHooks(self.calls, "good-1", sockets[1])
        (self.lo,) = self.links.interfaces()

    def attach(self, way: str) -> Attachment:
        """Or BlockingIOError while the helper is asked."""
        program = self._programs.program_fd(f"netobs_{way}")
        return self.hooks.attach(self.lo, way, program, self._method, FLOWS_PLACE)

    def ask(self, way: str) -> None:
        with pytest.raises(BlockingIOError):
            self.attach(way)

    def until_idle(self) -> None:
        self.calls.when_idle(lambda _now_ns: self._loop.stop(), 0)
        self._loop.run()

    def attached(self, way: str) -> Attachment:
        """When the helper has answered."""
        made: list[Attachment] = []
        self.hooks.settle = lambda index: made.append(self.attach(way))
        self.ask(way)
        self.until_idle()
        return made[0]

    def close(self) -> None:
        self.until_idle()
        self.links.close()
        self.calls.close()


@pytest.fixture(params=["tcx", "tc"])
def hooked(
    running: RunningHelper, folder: tuple[str, str], programs: Programs, request: pytest.FixtureRequest
) -> Iterator[Hooked]:
    with EventLoop() as loop, contextlib.closing(Hooked(running.path, programs, request.param, loop)) as made:
        yield made


def left_on_lo(lab: Lab, ns: str) -> list[int]:
    """TCX programs, filters and clsact qdiscs."""
    link = Link(ns, "lo", 1, "")
    shown = lab.run(ns, ["tc", "qdisc", "show", "dev", "lo"]).stdout.count("clsact")
    return [len(tcx_programs(link, "ingress")), len(tcx_programs(link, "egress")), shown]


def test_programs_are_attached_in_the_namespace(
    lab: Lab, hooked: Hooked, folder: tuple[str, str], programs: Programs
) -> None:
    ns = folder[1]
    made = [hooked.attached(way) for way in ("ingress", "egress")]
    assert all(each.is_there() for each in made)
    for each in made:
        each.swap(programs.program_fd(f"netobs_{each.direction}"))
    hooked.until_idle()
    assert all(each.is_there() for each in made)
    with programs.accounting() as observed, in_namespace(ns), contextlib.closing(_udp_socket()) as sender:
        sender.sendto(b"x", ("127.0.0.1", 9))
    assert {int(row["direction"]) for row in observed[0].records} == {0, 1}
    for each in made:
        each.detach()
    hooked.until_idle()
    assert left_on_lo(lab, ns) == [0, 0, 0]


def test_what_nobody_wants_any_more_is_taken_off_again(lab: Lab, hooked: Hooked, folder: tuple[str, str]) -> None:
    """The interface is not selected any more by the time at which the helper answers."""
    settled: list[int] = []
    hooked.hooks.settle = settled.append
    hooked.ask("ingress")
    hooked.ask("ingress")  # it is asked once
    hooked.ask("egress")
    hooked.until_idle()
    assert settled == [1, 1]
    assert left_on_lo(lab, folder[1]) == [0, 0, 0]


def test_what_was_asked_for_before_the_programs_changed_is_asked_for_again(
    lab: Lab, hooked: Hooked, folder: tuple[str, str]
) -> None:
    made: list[Attachment] = []

    def settle(_index: int) -> None:
        with contextlib.suppress(BlockingIOError):
            made.append(hooked.attach("ingress"))

    hooked.hooks.settle = settle
    hooked.ask("ingress")
    hooked.hooks.outdate()
    hooked.until_idle()
    (only,) = made
    assert only.is_there()
    only.detach()
    hooked.until_idle()
    assert left_on_lo(lab, folder[1]) == [0, 0, 0]


def test_calls_that_wait_for_a_helper_that_is_away_fail_together(tmp_path: Path) -> None:
    """Each would wait as long as the first one."""
    answers: list[OSError | dict[str, int]] = []
    away: list[str] = []
    with EventLoop() as loop:
        calls = HelperCalls(Helper(str(tmp_path / "none.sock")), loop, lambda why, now_ns: away.append(why))
        for _ in range(3):
            calls.call(calls.helper.list, lambda answer, _now_ns: answers.append(answer))
        calls.when_idle(lambda _now_ns: loop.stop(), 0)
        loop.run()
        calls.close()
    assert [each.errno for each in answers if isinstance(each, OSError)] == [errno.EPIPE] * 3
    assert len(away) == 1


@pytest.mark.parametrize(
    "name",
    ["bad-1", "", ".", "..", "/", "good-1/", "../names/good-1", "good-../good-1", "good-/../bad-1", "good-1\0",
     "good-\n", "good-" + "x" * 300, "good-file", "good-link", "good-mount", "good-pipe", "good-none", "GOOD-1",
     7, None, ["good-1"], {"good-1": 1}, True],
)  # fmt: skip
def test_no_other_name_is_opened(running: RunningHelper, name: object) -> None:
    with connected(running.path) as sock:
        for verb in ("open", "unlink"):
            rest = {} if verb == "open" else {"ifindex": 1, "direction": "ingress", "priority": 1, "program": 1}
            assert error_of(ask(sock, verb=verb, namespace=name, made_qdisc=False, **rest))
        assert ask(sock, verb="list")  # it goes on
    assert "done" not in running.log.replace("list: done", "")


def test_a_file_that_is_about_to_be_a_namespace_is_asked_for_again(
    running: RunningHelper, folder: tuple[str, str]
) -> None:
    """ "ip netns add" makes a file that nobody may read, and mounts the namespace on it some time later."""
    young = Path(folder[0]) / "good-young"
    young.touch(mode=0)
    client = Helper(running.path)
    try:
        with pytest.raises(BlockingIOError):
            client.open("good-young")
        assert "good-young" not in client.list()
        subprocess.run(["mount", "--bind", f"/run/netns/{folder[1]}", str(young)], check=True)
        client.open("good-young")[0].close()
        subprocess.run(["umount", str(young)], check=True)
    finally:
        young.unlink()
        client.close()


GARBAGE = {
    "no JSON": b"\xff\xfe\0",
    "no object": b"[1, 2]",
    "a number": b"7",
    "brackets": b"[" * MAX_REQUEST_BYTES,
    "too long": b'{"verb": "list", "x": "' + b"x" * MAX_REQUEST_BYTES + b'"}',
    "digits": b'{"verb": ' + b"9" * (MAX_REQUEST_BYTES - 20) + b"}",
    "no UTF-8": b'{"verb": "\xc3"}',
}


@pytest.mark.parametrize("kind", GARBAGE)
def test_garbage_gets_one_error(running: RunningHelper, kind: str) -> None:
    with connected(running.path) as sock:
        sock.send(GARBAGE[kind])
        assert error_of(receive(sock, MAX_ANSWER_BYTES))
    wait_until(lambda: running.descriptors() == running.descriptors_at_rest, "the connection is closed")
    assert "WARNING" in running.log


ODD_VALUES = [
    {"ifindex": 0}, {"ifindex": -1}, {"ifindex": 1 << 31}, {"ifindex": "1"}, {"ifindex": True}, {"ifindex": 1.0},
    {"direction": "sideways"}, {"direction": None}, {"method": "xdp"}, {"last": 1}, {"verb": "exec"}, {"verb": 1},
    {"beside": 1}, {"priority": 0},
]  # fmt: skip


@pytest.mark.parametrize("odd", ODD_VALUES, ids=str)
def test_odd_values_are_refused(running: RunningHelper, programs: Programs, odd: dict[str, object]) -> None:
    with connected(running.path) as sock:
        answer = ask(sock, programs.program_fd("netobs_ingress"), **{**LINK, **odd})
        assert next(iter(odd)) in error_of(answer)
    assert "done" not in running.log


def test_descriptors_of_another_kind_are_refused(running: RunningHelper, programs: Programs, tag_object: Path) -> None:
    with connected(running.path) as sock, open(tag_object, "rb") as file:
        assert ask(sock, verb="list")
        before = running.descriptors()
        mine = programs.program_fd("netobs_ingress")
        for fd in (sock.fileno(), file.fileno(), programs.map_fd("ledgers")):
            assert "no program of netobs" in error_of(ask(sock, fd, **LINK))
        assert "descriptor" in error_of(ask(sock, **LINK))
        assert "descriptor" in error_of(ask(sock, mine, verb="list"))
        assert running.descriptors() == before
        send(sock, LINK, [mine, mine])  # two of them: no request
        assert "too many descriptors" in error_of(receive(sock, MAX_ANSWER_BYTES))
        assert receive(sock, MAX_ANSWER_BYTES) is None
    wait_until(lambda: running.descriptors() == before - 1, "all descriptors are closed")


def test_other_users_are_refused(running: RunningHelper) -> None:
    """Even if the file system lets them connect."""
    os.chmod(running.path, 0o666)
    for parent in Path(running.path).parents:
        if parent.stat().st_uid == os.geteuid() and not parent.stat().st_mode & 1:
            parent.chmod(parent.stat().st_mode | 0o011)
    program = (
        "import os, socket, sys\n"
        f"os.setgid({NOBODY}); os.setuid({NOBODY})\n"
        "sock = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)\n"
        "sock.connect(sys.argv[1])\n"
        "print(sock.recv(4096).decode(), sock.recv(4096))\n"
    )
    done = subprocess.run([sys.executable, "-c", program, running.path], capture_output=True, text=True, check=True)
    assert f"uid {NOBODY} is not served" in done.stdout
    assert done.stdout.endswith("b''\n")
    assert re.search(rf"WARNING uid {NOBODY}, process \d+: refused", running.log)
    assert "done" not in running.log


def test_a_helper_that_was_started_again_is_asked_once_more(tmp_path: Path) -> None:
    """Its end is noticed with the first request after it, which is nobody's mistake."""
    with RunningHelper(tmp_path, ["good-*"], str(tmp_path)) as first, contextlib.closing(Helper(first.path)) as client:
        assert client.list() == {}
        first.end()
        with RunningHelper(tmp_path, ["good-*"], str(tmp_path)):
            assert client.list() == {}
        with pytest.raises(OSError, match=r"helper\.sock: No such file"):
            client.list()


def test_a_flood_ends_a_connection_and_no_other(running: RunningHelper) -> None:
    before_kib = running.memory_kib()
    with connected(running.path) as sock, connected(running.path) as other:
        sock.settimeout(0.2)
        sent = 0
        with contextlib.suppress(OSError):  # not read any more, or ended
            for _ in range(20 * BURST):
                send(sock, {"verb": "list"})
                sent += 1
        assert sent < 20 * BURST
        answer = ask(other, verb="list")
        assert answer is not None
        assert "names" in answer.values
    assert running.memory_kib() - before_kib < 8192


def test_few_connections_at_a_time(running: RunningHelper) -> None:
    with contextlib.ExitStack() as stack:
        first = [stack.enter_context(connected(running.path)) for _ in range(MAX_CONNECTIONS)]
        for sock in first:
            assert ask(sock, verb="list")
        beyond = stack.enter_context(connected(running.path))
        assert "connections already" in error_of(receive(beyond, MAX_ANSWER_BYTES))
        first[0].close()
        wait_until(lambda: _served(running.path), "there is room again")


def _udp_socket() -> socket.socket:
    return socket.socket(socket.AF_INET, socket.SOCK_DGRAM)


def _served(path: str) -> bool:
    client = Helper(path)
    try:
        return bool(client.list())
    except OSError:
        return False
    finally:
        client.close()


def test_names_that_come_and_go(running: RunningHelper, folder: tuple[str, str]) -> None:
    client = Helper(running.path)
    events = client.events()
    try:
        Path(folder[0], "good-2").touch()
        os.unlink(Path(folder[0], "good-2"))
        found = list(inotify.read_events(events))
    finally:
        os.close(events)
        client.close()
    assert [(each.name, each.appeared, each.lost) for each in found] == [
        ("good-2", True, False),
        ("good-2", False, False),
    ]


def test_without_the_helper_or_after_its_end_the_error_says_so(tmp_path: Path) -> None:
    client = Helper(str(tmp_path / "none.sock"))
    assert not client.is_there
    with pytest.raises(OSError, match=r"none.sock: No such file"):
        client.list()
    with RunningHelper(tmp_path, ["good-*"]) as running:
        client = Helper(running.path)
        assert client.list() == {}
    with pytest.raises(OSError, match=r"helper.sock: No such file"):  # it has asked for a new connection
        client.list()
    client.close()
