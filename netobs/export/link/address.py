"""From the host of a collector to the addresses to try."""

from __future__ import annotations

import functools
import socket
from typing import TYPE_CHECKING, Any, Callable, NamedTuple, Union

from netobs.base import background
from netobs.base.errors import ExportError, NetobsError
from netobs.base.loop import EventLoop

if TYPE_CHECKING:
    from netobs.config import CollectorConfig


class Address(NamedTuple):
    """Where a collector can be: address family (AF_INET or AF_INET6) and the socket address for ``connect``."""

    family: int
    sockaddr: tuple[Any, ...]

    def __str__(self) -> str:
        host, port = self.sockaddr[:2]
        return f"[{host}]:{port}" if self.family == socket.AF_INET6 else f"{host}:{port}"


Resolved = Callable[[Union[list[Address], NetobsError], int], None]
"""Gets the addresses or what went wrong, and ``now_ns``."""


def is_numeric(host: str) -> bool:
    """Whether ``host`` is an address, which needs no name service."""
    try:
        socket.getaddrinfo(host, None, flags=socket.AI_NUMERICHOST)
    except (OSError, UnicodeError):
        return False
    return True


def resolve(config: CollectorConfig) -> list[Address]:
    """The addresses of the collector in the order to try them, of the family of ``source`` if one is set.

    Blocks while the name service answers, at most for its own limits (see resolv.conf(5): by default 5 s, twice, for
    each name server). Raises ExportError.
    """
    kind = socket.SOCK_DGRAM if config.transport == "udp" else socket.SOCK_STREAM
    where = f'collector "{config.name}"'
    try:
        found = socket.getaddrinfo(config.host, config.port, type=kind)
    except (OSError, UnicodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "not a valid name"
        raise ExportError(
            f'{where}: host "{config.host}" has no address: {reason}', "check host and the name service"
        ) from error
    # dict: each address once, in order
    addresses = list(dict.fromkeys(Address(int(family), sockaddr) for family, _, _, _, sockaddr in found))
    if config.source:
        family = source_address(config).family
        addresses = [address for address in addresses if address.family == family]
        if not addresses:
            raise ExportError(
                f'{where}: host "{config.host}" has no address of the family of source "{config.source}"',
                "use a source of the other family, or none",
            )
    return addresses


def source_address(config: CollectorConfig, port: int = 0) -> Address:
    """The local address to bind to. Raises ExportError if ``source`` is not an address."""
    try:
        found = socket.getaddrinfo(config.source, port, type=socket.SOCK_DGRAM, flags=socket.AI_NUMERICHOST)
    except OSError as error:
        raise ExportError(
            f'collector "{config.name}": source "{config.source}": {error.strerror}', "set an address of this host"
        ) from error
    return Address(int(found[0][0]), found[0][4])


def resolve_for_loop(config: CollectorConfig, loop: EventLoop, done: Resolved, now_ns: int) -> None:
    """Call ``done`` with the addresses: at once if ``host`` is an address, else from the loop when a thread has them.

    The name service can block for half a minute: metering must not wait for it.
    """

    if is_numeric(config.host):
        try:
            addresses: list[Address] | NetobsError = resolve(config)
        except ExportError as error:
            addresses = error
        done(addresses, now_ns)
    else:
        background.run(loop, "resolve", functools.partial(resolve, config), done)
