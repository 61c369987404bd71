"""What of a configuration does not fit the host that it is on."""

from __future__ import annotations

import socket
import threading
from pathlib import Path

import pytest

from netobs.base.loop import EventLoop
from netobs.config import Config, parse
from netobs.daemon import host_check
from netobs.export.link.address import Address, resolve
from netobs.kernel.interfaces import Interface

LO, ETH0 = Interface(1, "lo", 772), Interface(2, "eth0", 1)
V4, V6 = int(socket.AF_INET), int(socket.AF_INET6)


def config(*collectors: str, rest: str = "") -> Config:
    tables = "".join(f"[[collector]]\n{each}\n" for each in collectors or ("host = '127.0.0.1'",))
    return parse(tables + rest, "F")


def found(*collectors: str, rest: str = "") -> list[str]:
    return host_check.warnings_of(config(*collectors, rest=rest), [LO, ETH0])


def test_nothing_is_said_of_what_fits() -> None:
    assert found("host = '127.0.0.1'\nsource = '127.0.0.7'", "host = 'flows.example'", "host = '::1'\nport = 1") == []
    assert found(rest="[capture]\ninterfaces = ['lo', 'eth*']\nexclude = ['eth0', 'docker*']") == []


@pytest.mark.parametrize("table", ["capture", "packet_capture"])
def test_names_of_interfaces_that_are_not_there(table: str) -> None:
    rest = f"[{table}]\ninterfaces = ['eth0', 'eth9', 'tap*']\nexclude = ['tap1', 'docker*', 'eth0']"
    rest = rest.replace(", 'eth0']", "]") + ("\nenabled = true" if table == "packet_capture" else "")
    assert found(rest=rest) == [
        f'F: [{table}] interfaces: the host has no "eth9" now; it is taken in when it appears',
        f'F: [{table}] exclude: the host has no "tap1" now; is it misspelt?',
    ]
    assert found(rest=rest.replace("'eth0', ", "").replace("'tap*'", "'eth8'"))[:1] != [
        f'F: [{table}] interfaces: the host has no "eth9" now; it is taken in when it appears'
    ], "that nothing matches is said by others"


ADDRESSES = [
    ("host = '192.0.2.1'\nsource = '192.0.2.9'", "source: 192.0.2.9 is no address of this host now"),
    ("host = 'a'\nsource = '2001:db8::9'", "source: 2001:db8::9 is no address of this host now"),
    ("host = '127.255.255.255'", "host: 127.255.255.255 is a broadcast address here: nothing can be sent to it"),
    ("host = 'fe80::1%nosuch'", 'host: the host has no interface "nosuch" now: nothing is sent until it appears'),
    ("host = 'a'\nsource = 'fe80::1%nosuch'", 'source: the host has no interface "nosuch" now'),
]


@pytest.mark.parametrize(("lines", "said"), ADDRESSES)
def test_addresses_that_are_not_those_of_this_host(lines: str, said: str) -> None:
    (warning,) = found(f"name = 'main'\n{lines}")
    assert warning.startswith(f'F: [collector "main"] {said}')


def test_a_spool_that_can_never_be_one_and_one_that_cannot_be_now(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    spools = {name: str(tmp_path / name) for name in ("file", "missing/spool/x", "spool")}
    each = config(*(f"host = '{number}.example'\nspool = '{path}'" for number, path in enumerate(spools.values())))
    problem = f'collector "0.example": spool {tmp_path}/file: Not a directory; set spool to a folder on a disk'
    assert host_check.problems_of(each) == [problem]
    wait = "flows wait in memory, and the spool is tried again each minute"
    assert [host_check.check_spool(one) for one in each.collectors] == [
        (problem, ""),
        ("", f'collector "1.example": spool {tmp_path}/missing/spool: No such file or directory; {wait}'),
        ("", ""),
    ]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file"]


def test_collectors_that_are_the_same_one() -> None:
    each = config("host = 'a'", "host = 'b'", "host = 'c'", "host = 'd'\nport = 7", "host = 'e'\ntransport = 'tcp'")
    one, mapped = Address(V4, ("192.0.2.1", 4739)), Address(V6, ("::ffff:192.0.2.1", 4739, 0, 0))
    other = Address(V6, ("2001:db8::1", 4739, 0, 0))
    addresses = {"a": [other, one], "b": [one], "c": [], "d": [Address(V4, ("192.0.2.1", 7))], "e": [one]}
    said = 'F: [collector "b"] host: {} is collector "a", too: what both get arrives there twice'
    assert list(host_check.twins(each, addresses)) == [said.format("192.0.2.1:4739")]
    assert list(host_check.twins(each, {"a": [other]})) == []
    assert list(host_check.twins(each, {"a": [one], "b": [mapped]})) == [said.format("[::ffff:192.0.2.1]:4739")]
    links = [Address(V6, ("fe80::1%x", 4739, 0, scope)) for scope in (2, 3)]
    assert list(host_check.twins(each, {"a": links[:1], "b": links[1:]})) == []


@pytest.mark.parametrize(("first", "second", "twice"), [("localhost", "127.0.0.1", 1), ("127.0.0.2", "127.0.0.1", 0)])
def test_names_are_resolved_beside_the_loop(
    first: str, second: str, twice: int, caplog: pytest.LogCaptureFixture
) -> None:
    each = config(f"host = '{second}'", f"host = '{first}'", "host = '192.0.2.1'\nport = 5")
    with EventLoop() as loop:
        host_check.look_for_twins(each, loop, 0)
        names = [thread for thread in threading.enumerate() if thread.name == "netobs-resolve"]
        for thread in names:
            thread.join()
        loop.run_once(0)
    assert len(caplog.messages) == twice
    if twice:
        assert resolve(each.collectors[1])
        assert caplog.messages[0].endswith('is collector "127.0.0.1", too: what both get arrives there twice')
