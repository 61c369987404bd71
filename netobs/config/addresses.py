"""Kinds of value that name a host or a socket. Syntax only: nothing is resolved here."""

from __future__ import annotations

import re
import socket
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network
from typing import NamedTuple, Union

from netobs.config.text import quoted, toml_text
from netobs.config.values import BadValue, Kind

IPAddress = Union[IPv4Address, IPv6Address]
IPNetwork = Union[IPv4Network, IPv6Network]
LABEL = "[A-Za-z0-9_](?:[A-Za-z0-9_-]{0,61}[A-Za-z0-9_])?"
HOST_NAME = re.compile(rf"(?=.{{1,254}}$){LABEL}(?:\.{LABEL})*\.?")
MAX_PORT = 65535
MAX_SOCKET_PATH_BYTES = 107  # unix(7): sun_path, with its NUL
BROADCAST = IPv4Address("255.255.255.255")
THIS_NETWORK = IPv4Network("0.0.0.0/8")
NUMBERS = re.compile(r"(?:0[xX][0-9a-fA-F]*|[0-9]+)(?:\.(?:0[xX][0-9a-fA-F]*|[0-9]+)){0,3}")
"""Other notations that inet_aton(3), and so the resolver, accepts for an IPv4 address: 127.1, 0x7f000001."""
IPV4_MAPPED_BITS = 96  # RFC 4291, section 2.5.5.2


class Endpoint(NamedTuple):
    """Where to listen: an address or a name with a port, or, as ``host`` alone, the path of a Unix socket."""

    host: str
    port: int = 0

    @property
    def is_path(self) -> bool:
        """Whether it is a Unix socket."""
        return self.host.startswith("/")

    def __str__(self) -> str:
        if self.is_path:
            return self.host
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


def as_address(text: str) -> IPAddress | None:
    """``text`` as an IP address, or None if it is not an address."""
    try:
        return ip_address(text)
    except ValueError:
        return None


def plain(address: IPAddress) -> IPAddress:
    """``address``, or the IPv4 address that it stands for (RFC 4291, section 2.5.5.2)."""
    return (address.ipv4_mapped or address) if isinstance(address, IPv6Address) else address


def meant_by_numbers(text: str) -> str:
    """The IPv4 address that a resolver makes of an unusual notation, such as 127.1; else an empty string."""
    if as_address(text) is not None or NUMBERS.fullmatch(text) is None:
        return ""
    try:
        return socket.inet_ntoa(socket.inet_aton(text))
    except OSError:
        return ""


def is_host_name(text: str) -> bool:
    """Whether ``text`` can be a host name: RFC 1123 section 2.1, and underscores, which occur in the field."""
    last_label = text.rstrip(".").rpartition(".")[2]
    return HOST_NAME.fullmatch(text) is not None and not last_label.isdigit() and not meant_by_numbers(text)


class Host(Kind):
    """A name or address to send to."""

    @property
    def expected(self) -> str:
        return "a host name, an IPv4 or an IPv6 address"

    def parse(self, value: object) -> str:
        if not isinstance(value, str):
            raise self.refuse(value)
        address = as_address(value)
        if address is None and not is_host_name(value):
            raise self.refuse(value, _host_hint(value))
        if address is not None and _is_no_host(plain(address)):
            raise self.refuse(value, "this address does not belong to a host")
        if address is not None and plain(address) == BROADCAST:
            raise self.refuse(value, "a broadcast address cannot be sent to; give the address of one collector")
        if address is not None and _lacks_interface(value, address):
            raise self.refuse(value, f'a link-local address needs its interface: "{value}%eth0"')
        return value


def _is_no_host(address: IPAddress) -> bool:
    """RFC 1122, section 3.2.1.3: 0.0.0.0/8 is "this" network; RFC 4291, section 2.5.2: the unspecified address."""
    return address.is_unspecified or (isinstance(address, IPv4Address) and address in THIS_NETWORK)


def _lacks_interface(text: str, address: IPAddress) -> bool:
    return isinstance(address, IPv6Address) and address.is_link_local and "%" not in text


def _host_hint(text: str) -> str:
    """A hint for common mistakes in a host; else an empty string."""
    if meant_by_numbers(text):
        return f'an IPv4 address has four decimal numbers: write "{meant_by_numbers(text)}"'
    if text.startswith("["):
        return "write the address without brackets"
    if text.count(":") == 1 and re.fullmatch("[0-9]+", text.rpartition(":")[2]):
        return "give the port by the key port"
    return "give the host alone, without a scheme" if "://" in text else ""


class LocalAddress(Kind):
    """An address of this machine, or an empty string to let the kernel choose."""

    @property
    def expected(self) -> str:
        return 'an IPv4 or IPv6 address of this machine, or "" to let the kernel choose'

    def parse(self, value: object) -> str:
        address = as_address(value) if isinstance(value, str) else None
        if not isinstance(value, str) or (value and address is None):
            hint = meant_by_numbers(value) if isinstance(value, str) else ""
            raise self.refuse(value, hint and f'write "{hint}"')
        if address is not None and (plain(address).is_multicast or plain(address) == BROADCAST):
            raise self.refuse(value, "a host cannot send from a multicast or broadcast address")
        if address is not None and _lacks_interface(value, address):
            raise self.refuse(value, f'a link-local address needs its interface: "{value}%eth0"')
        return value


class ServerName(Kind):
    """The name that a certificate must have, or an empty string for the host."""

    @property
    def expected(self) -> str:
        return 'a host name or an address as in the certificate of the collector, or "" for its host'

    def parse(self, value: object) -> str:
        if not isinstance(value, str) or (value and as_address(value) is None and not is_host_name(value)):
            raise self.refuse(value)
        return value


class Listen(Kind):
    """A socket to listen on, parsed to an Endpoint: an address and port, or a path from the root."""

    @property
    def expected(self) -> str:
        return (
            "the path of a socket such as "
            f'"/run/netobs/capture.sock", or an address and a port from 1 to {MAX_PORT} such as "127.0.0.1:9990"'
        )

    def parse(self, value: object) -> Endpoint:
        if isinstance(value, str) and value.startswith("/"):
            if len(value.encode("utf-8", "replace")) > MAX_SOCKET_PATH_BYTES or not value.isprintable():
                raise self.refuse(value, f"a path of a socket has at most {MAX_SOCKET_PATH_BYTES} octets")
            return Endpoint(value)
        match = re.fullmatch(r"(?:\[([^\[\]]+)\]|([^:\[\]]+)):([0-9]{1,5})", value) if isinstance(value, str) else None
        if match is None or not 1 <= int(match[3]) <= MAX_PORT:
            raise self.refuse(value)
        host = match[1] or match[2]
        if isinstance(as_address(host), IPv6Address) != bool(match[1]):
            raise self.refuse(value)
        if match[2] and as_address(host) is None and not is_host_name(host):
            raise self.refuse(value)
        return Endpoint(host, int(match[3]))


class ListenAddress(Listen):
    """An address and port to listen on, parsed to an Endpoint; an empty string gives one without a host. No name: what
    listens asks no name service."""

    @property
    def expected(self) -> str:
        return f'an address and a port from 1 to {MAX_PORT} such as "127.0.0.1:9469", or ""'

    def parse(self, value: object) -> Endpoint:
        if value == "":
            return Endpoint("")
        found = super().parse(value)
        if as_address(found.host) is None:
            raise self.refuse(value, f'write "127.0.0.1:{found.port}"' if found.host == "localhost" else "")
        return found


class Prefixes(Kind):
    """A list of addresses and prefixes, parsed to a tuple of networks."""

    @property
    def expected(self) -> str:
        return 'a list of addresses and prefixes such as ["192.0.2.0/24", "2001:db8::1"]'

    def parse(self, value: object) -> tuple[IPNetwork, ...]:
        if not isinstance(value, (list, tuple)):
            raise self.refuse(value, f"write [{quoted(value)}]" if isinstance(value, str) else "")
        found = [_network(entry) for entry in value]
        reasons = [f"entry {number}: {each}" for number, each in enumerate(found, 1) if isinstance(each, str)]
        if reasons:
            raise BadValue(*reasons)
        return tuple(each for each in found if not isinstance(each, str))


def _network(entry: object) -> IPNetwork | str:
    """The network that ``entry`` names, or the mistake in it."""
    if not isinstance(entry, str):
        return f"expected an address or a prefix, got {toml_text(entry)}"
    try:
        network = ip_network(entry, strict=False)
    except ValueError:
        return f"{quoted(entry)} is neither an address nor a prefix"
    if as_address(entry.partition("/")[0]) != network.network_address:
        return f'{quoted(entry)} has bits beyond its prefix; write "{network}"'
    mapped = network.network_address.ipv4_mapped if isinstance(network, IPv6Network) else None
    if mapped and network.prefixlen >= IPV4_MAPPED_BITS:  # IPv4, whatever a socket calls it: clients are compared so
        return f'{quoted(entry)} is IPv4; write "{mapped}/{network.prefixlen - IPV4_MAPPED_BITS}"'
    return network
