"""Compares a configuration with this host as it is now. The daemon, a reload and --dry-run give the same warnings."""

from __future__ import annotations

import errno
import functools
import logging
import os
import socket
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from netobs.base.errors import ExportError, NetobsError
from netobs.base.loop import EventLoop
from netobs.base.tls import who_else_reads
from netobs.config import CaptureConfig, CollectorConfig, Config, PacketCaptureConfig
from netobs.config.addresses import as_address, plain
from netobs.config.selector import is_name
from netobs.config.text import quoted
from netobs.export.link.address import Address, is_numeric, resolve_for_loop, source_address
from netobs.export.spool.folder import used_bytes
from netobs.export.spool.place import Unusable, check, folder_of, never, trouble
from netobs.kernel.interfaces import Interface, LinkMonitor

log = logging.getLogger("netobs")

_MIB = 1 << 20
_DISCARD_PORT = 9  # nothing is sent: connect() of a UDP socket only asks for the route


def warnings_of(config: Config, present: Sequence[Interface]) -> list[str]:
    """A warning for each setting that does not fit this host. Asks no name service."""
    found = [*_interfaces(config, present), *_keys(config)]
    for collector in config.collectors:
        found += [f"[collector {quoted(collector.name)}] {line}" for line in _collector(collector)]
    return [f"{config.path}: {line}" for line in found]


def present_interfaces() -> list[Interface]:
    """All interfaces of this network namespace."""
    links = LinkMonitor()
    try:
        return links.interfaces()
    finally:
        links.close()


def problems_of(config: Config) -> list[str]:
    """The problems that would keep the daemon from starting, in the daemon's words."""
    return [problem for problem, _ in map(check_spool, config.collectors) if problem]


def check_spool(collector: CollectorConfig) -> tuple[str, str]:
    """An error if the spool can never work, and a warning if it does not work now; in the daemon's words, or empty."""
    directory, name = folder_of(collector.spool, collector.name), f'collector "{collector.name}"'
    try:
        if collector.spool:
            check(directory)
    except Unusable as error:
        return str(never(error, name)), ""
    except OSError as error:
        return "", f"{name}: {trouble(error, directory)}"
    return "", ""


def twins(config: Config, found: Mapping[str, Sequence[Address]]) -> Iterator[str]:
    """Warnings about collectors with the same address. ``found``: the addresses of each, by its name."""
    owners: dict[tuple[object, ...], CollectorConfig] = {}
    for collector in config.collectors:
        for address in found.get(collector.name, ()):
            first = owners.setdefault((collector.transport, *_bare(address)), collector)
            if first is not collector:
                where = f"{config.path}: [collector {quoted(collector.name)}] host"
                yield f"{where}: {address} is collector {quoted(first.name)}, too: what both get arrives there twice"
                break


def look_for_twins(config: Config, loop: EventLoop, now_ns: int) -> None:
    """Logs what ``twins`` finds, when the name service has answered: beside ``loop``, which does not wait for it."""
    places = Counter((each.port, each.transport) for each in config.collectors)
    alike = [each for each in config.collectors if places[each.port, each.transport] > 1]
    found: dict[str, list[Address]] = {}

    def resolved(name: str, addresses: list[Address] | NetobsError, _now_ns: int) -> None:
        found[name] = [] if isinstance(addresses, NetobsError) else addresses
        if len(found) == len(alike):
            for warning in twins(config, found):
                log.warning("%s", warning)

    if not all(is_numeric(each.host) for each in alike):  # addresses are compared when the file is read
        for each in alike:
            resolve_for_loop(each, loop, functools.partial(resolved, each.name), now_ns)


def _bare(address: Address) -> tuple[object, ...]:
    """Equal for an IPv4 address and its IPv4-mapped IPv6 address."""
    ip = as_address(address.sockaddr[0].partition("%")[0])
    return (ip and plain(ip), address.sockaddr[1], *(scope for scope in address.sockaddr[3:] if scope))


def _interfaces(config: Config, present: Sequence[Interface]) -> Iterator[str]:
    names = {interface.name for interface in present}
    capture, packets = config.capture, config.packet_capture
    tables: list[tuple[str, CaptureConfig | PacketCaptureConfig]] = [("capture", capture)]
    tables += [("packet_capture", packets)] if packets.enabled else []
    for table, its in tables:
        some = any(its.selector.matches(name) for name in names)  # without any match, another message says so
        for entry in its.interfaces:
            if some and is_name(entry) and entry not in names:
                yield f"[{table}] interfaces: the host has no {quoted(entry)} now; it is taken in when it appears"
        for entry in its.exclude:
            if is_name(entry) and entry not in names:
                yield f"[{table}] exclude: the host has no {quoted(entry)} now; is it misspelt?"


def _keys(config: Config) -> Iterator[str]:
    """Private keys that others may read."""
    tables = [(f"[collector {quoted(each.name)}]", each.key) for each in config.collectors if each.transport == "tls"]
    if config.packet_capture.enabled:
        tables.append(("[packet_capture]", config.packet_capture.key))
    for place, path in tables:
        others = who_else_reads(path) if path else ""
        if others:
            yield f"{place} key: {others} may read {quoted(path)}: let only the user or group of netobs read it"


def missing_interface(collector: CollectorConfig) -> str:
    """A warning if an address of ``collector`` names an interface that the host does not have now."""
    for key, text in (("host", collector.host), ("source", collector.source)):
        interface = text.partition("%")[2]
        if interface and as_address(text) is not None and not _is_interface(interface):
            return f"{key}: the host has no interface {quoted(interface)} now: nothing is sent until it appears"
    return ""


def _collector(collector: CollectorConfig) -> Iterator[str]:
    reason = missing_interface(collector) or _cannot_send(collector)
    if reason:
        yield reason
    if collector.spool:
        yield from _space(collector)


def _is_interface(name: str) -> bool:
    try:
        return name.isdecimal() or bool(socket.if_nametoindex(name))
    except OSError:
        return False


def _cannot_send(collector: CollectorConfig) -> str:
    """Checks source, and a host that is an address, with a socket that sends nothing."""
    host, source = as_address(collector.host), as_address(collector.source)
    if host is None and source is None:
        return ""
    version = (source or host).version  # type: ignore[union-attr]
    try:
        sock = socket.socket(
            socket.AF_INET if version == 4 else socket.AF_INET6, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC
        )
    except OSError as error:
        return f"host: {error.strerror}"
    with sock:
        try:
            if source is not None:
                sock.bind(source_address(collector).sockaddr)
        except (OSError, ExportError) as error:
            if isinstance(error, OSError) and error.errno == errno.EADDRNOTAVAIL:
                return f"source: {collector.source} is no address of this host now: nothing is sent until it is"
            return f"source: {collector.source}: {error.strerror if isinstance(error, OSError) else error}"
        try:
            if host is not None:
                sock.connect((collector.host, _DISCARD_PORT))
        except OSError as error:
            if error.errno == errno.EACCES:
                return f"host: {collector.host} is a broadcast address here: nothing can be sent to it"
    return ""


def _space(collector: CollectorConfig) -> Iterator[str]:
    directory = folder_of(collector.spool, collector.name)
    try:
        place = next(path for path in (directory, *directory.parents) if path.is_dir())
        disk = os.statvfs(place)
        left = collector.spool_max_bytes - used_bytes(directory)
    except OSError:
        return  # another check reports the error
    free = disk.f_bavail * disk.f_frsize
    if free < left:
        yield f"spool_max: {free / _MIB:.1f} MiB are free in {Path(place)}, less than the spool may take"
