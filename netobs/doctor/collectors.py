"""The collectors as this host reaches them: their names, and those that are on this host, with their sockets."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from netobs.base import clock
from netobs.base.clock import NS_PER_S
from netobs.base.errors import NetobsError
from netobs.config import CollectorConfig
from netobs.config.addresses import as_address
from netobs.config.text import quoted
from netobs.doctor.finding import Finding
from netobs.export.link.address import Address, is_numeric, resolve
from netobs.kernel import host

RESOLVE_WITHIN_NS = 5 * NS_PER_S
_SLOW_NS = NS_PER_S
_TCP_LISTEN = "0A"
_NET = Path("/proc/thread-self/net")


class Answer(NamedTuple):
    """What the name service said of a collector, and how long it took. ``error``: "" if there are addresses."""

    addresses: list[Address]
    error: str
    took_ns: int


class SocketState(NamedTuple):
    """A row of /proc/net/udp or tcp. ``drops``: datagrams that found its buffer full."""

    waiting_bytes: int
    drops: int


def findings(collectors: Sequence[CollectorConfig], net: Path = _NET) -> Iterator[Finding]:
    """Asks the name service, for ``RESOLVE_WITHIN_NS`` at most. Sends nothing to the collectors."""
    answers = ask(collectors)
    is_local = False
    for each in collectors:
        where, answer = (f"collector {quoted(each.name)}",), answers.get(each.name)
        if answer is None:
            yield Finding(
                "name-unanswered", "warning", f"the name service did not answer for {quoted(each.host)} within "
                f"{RESOLVE_WITHIN_NS // NS_PER_S} s", where, "it asks again; flows wait meanwhile",
                "check /etc/resolv.conf, or set an address",
            )  # fmt: skip
            continue
        if answer.error:
            yield Finding("name-unresolved", "problem", answer.error, where, "it asks again; flows wait meanwhile")
        elif answer.took_ns > _SLOW_NS:
            took_s = answer.took_ns / NS_PER_S
            yield Finding("name-slow", "note", f"the name service took {took_s:.1f} s for {quoted(each.host)}", where)
        if any(map(is_of_this_host, answer.addresses)):
            is_local = True
            yield from _local(each, where, net)
    if is_local:
        yield from _buffers(net)


def ask(collectors: Sequence[CollectorConfig], within_ns: int = RESOLVE_WITHIN_NS) -> dict[str, Answer]:
    """The answers by name of the collector, without those that are late. A thread asks for each name."""
    answers: dict[str, Answer] = {}

    def look_up(each: CollectorConfig) -> None:
        began_ns = clock.monotonic_ns()
        try:
            addresses, error = resolve(each), ""
        except NetobsError as problem:
            addresses, error = [], str(problem)
        answers[each.name] = Answer(addresses, error, clock.monotonic_ns() - began_ns)

    threads = []
    for each in collectors:
        if is_numeric(each.host):
            look_up(each)
        else:
            threads.append(threading.Thread(target=look_up, args=(each,), daemon=True))
            threads[-1].start()
    end_ns = clock.monotonic_ns() + within_ns
    for thread in threads:
        thread.join(max(0, end_ns - clock.monotonic_ns()) / NS_PER_S)
    return dict(answers)


def is_of_this_host(address: Address) -> bool:
    """Whether a socket here could have this address."""
    ip = as_address(address.sockaddr[0].partition("%")[0])
    if ip is None or ip.is_multicast:
        return False
    try:
        with socket.socket(address.family, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as sock:
            sock.bind((address.sockaddr[0], 0, *address.sockaddr[2:]))
    except OSError:
        return False
    return True


def _local(collector: CollectorConfig, where: tuple[str, ...], net: Path) -> Iterator[Finding]:
    protocol = "udp" if collector.transport == "udp" else "tcp"
    found = sockets_at(collector.port, protocol, net)
    if not found:
        yield Finding(
            "collector-not-listening", "warning",
            f"the collector is on this host, and nothing listens at {protocol} port {collector.port}", where,
            "it counts what is refused" if protocol == "udp" else "flows wait until it listens", "start the collector",
        )  # fmt: skip
    drops = sum(each.drops for each in found)
    if drops:
        yield Finding(
            "collector-drops", "warning",
            f"{drops} datagrams found the socket buffer of the collector on this host full (/proc/net/udp)", where,
            "it counts them as sent: over UDP nobody tells it otherwise",
            "raise the collector's receive buffer, and net.core.rmem_max; or use tcp",
        )  # fmt: skip


def sockets_at(port: int, protocol: str, net: Path = _NET) -> list[SocketState]:
    """The sockets at ``port`` of this network namespace; over TCP those that listen."""
    found = []
    for name in (protocol, f"{protocol}6"):
        for line in host.read_if_there(f"{net}/{name}").splitlines()[1:]:
            row = line.split()
            if int(row[1].rpartition(":")[2], 16) == port and (protocol == "udp" or row[3] == _TCP_LISTEN):
                waiting = int(row[4].partition(":")[2], 16)
                found.append(SocketState(waiting, int(row[-1]) if protocol == "udp" else 0))
    return found


def _buffers(net: Path) -> Iterator[Finding]:
    counts = udp_counters(net)
    rmem = host.read_if_there("/proc/sys/net/core/rmem_max").strip()
    words = f"net.core.rmem_max {rmem or 'is not visible here'}"
    errors = sum(value for name, value in counts.items() if name.endswith("RcvbufErrors"))
    if errors:
        yield Finding(
            "udp-buffer-errors", "note",
            f"{errors} datagrams found a full receive buffer on this host since it booted (RcvbufErrors); {words}",
            remedy="netstat -su, and the column drops of /proc/net/udp, say whose buffer; raise it",
        )  # fmt: skip
    else:
        yield Finding("udp-buffers", "ok", f"no UDP receive buffer was full on this host; {words}")


def udp_counters(net: Path = _NET) -> Mapping[str, int]:
    """The counters of UDP: of IPv4 as in /proc/net/snmp, of IPv6 with ``Udp6`` before their names."""
    lines = [line.split() for line in host.read_if_there(f"{net}/snmp").splitlines() if line.startswith("Udp:")]
    found = dict(zip(lines[0][1:], map(int, lines[1][1:]))) if len(lines) == 2 else {}
    rows = [line.split() for line in host.read_if_there(f"{net}/snmp6").splitlines() if line.startswith("Udp6")]
    return {**found, **{row[0]: int(row[1]) for row in rows if len(row) == 2}}
