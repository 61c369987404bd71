"""Filters of the live table: ``host 192.0.2.1 and (port 443 or proto icmp) and not if tap*``.

    [src|dst] host ADDRESS     [src|dst] net ADDRESS/LENGTH     [src|dst] port N[-M]
    proto NAME|N               if NAME|PATTERN                  vlan N
    in, out                    ip, ip6                          tcp, udp, sctp, icmp, icmp6

joined by ``and``, ``or``, ``not`` and parentheses; ``and`` binds closer than ``or``.
"""

from __future__ import annotations

import ipaddress
import re
from typing import NamedTuple, NoReturn, Union

from netobs.base.errors import FilterError
from netobs.config.text import nearest, quoted

LONGEST = 1000
"""Characters of a filter."""
DEEPEST = 50
PROTOCOLS = {
    "icmp": 1, "igmp": 2, "tcp": 6, "udp": 17, "gre": 47, "esp": 50, "ah": 51, "icmp6": 58, "ospf": 89, "pim": 103,
    "vrrp": 112, "l2tp": 115, "sctp": 132,
}  # fmt: skip
"""Names of protocols (IANA registry "Protocol Numbers")."""
_MAPPED = ipaddress.ip_network("::ffff:0:0/96")
_MAX_PORT, _MAX_VLAN, _MAX_PROTOCOL = 65535, 4095, 255
_TOKEN = re.compile(r"\(|\)|[^\s()]+")
_AT_ENDS = ("host", "net", "port")


class Network(NamedTuple):
    """``ends``: of "src" and "dst", those of which one has to match. ``address``: 16 octets, IPv4 as ::ffff:a.b.c.d;
    ``bits``: how many of these count."""

    ends: tuple[str, ...]
    address: bytes
    bits: int


class Ports(NamedTuple):
    """A port from ``least`` to ``most``."""

    ends: tuple[str, ...]
    least: int
    most: int


class Field(NamedTuple):
    """The field ``name`` of the Flow Key has ``value``."""

    name: str
    value: int


_FIELDS = {
    "in": Field("direction", 0),
    "out": Field("direction", 1),
    "ip": Field("ethertype", 0x0800),
    "ip6": Field("ethertype", 0x86DD),
    **{name: Field("protocol", PROTOCOLS[name]) for name in ("tcp", "udp", "sctp", "icmp", "icmp6")},
}
_WORDS = (*_AT_ENDS, "proto", "if", "vlan", "src", "dst", "not", *_FIELDS)


class InterfaceName(NamedTuple):
    """The interface's name matches a shell pattern (``fnmatch``)."""

    pattern: str


class Not(NamedTuple):
    """The opposite."""

    part: Condition


class Both(NamedTuple):
    """All of ``parts`` hold."""

    parts: tuple[Condition, ...]


class Either(NamedTuple):
    """One of ``parts`` holds, at least."""

    parts: tuple[Condition, ...]


Condition = Union[Network, Ports, Field, InterfaceName, Not, Both, Either]


def parse(text: str) -> Condition | None:
    """The condition that ``text`` describes; None: every flow.

    :raises FilterError: it is not a filter; says where.
    """
    if len(text) > LONGEST:
        raise FilterError(f"the filter has {len(text)} characters", f"the limit is {LONGEST}")
    words = _TOKEN.findall(text)
    return _Parser(words).whole() if words else None


class _Parser:
    def __init__(self, words: list[str]) -> None:
        self._words, self._at, self._depth = words, 0, 0

    def whole(self) -> Condition:
        condition = self._either()
        if self._at < len(self._words):
            self._fail(f"expected and, or, or the end before {quoted(self._words[self._at])}")
        return condition

    def _fail(self, what: str) -> NoReturn:
        raise FilterError(f"filter: {what}", 'write it like "host 192.0.2.1 and port 443"')

    def _next(self) -> str:
        return self._words[self._at].lower() if self._at < len(self._words) else ""

    def _take(self, what: str) -> str:
        if self._at == len(self._words):
            self._fail(f"it ends where {what} is missing")
        self._at += 1
        return self._words[self._at - 1]

    def _either(self) -> Condition:
        parts = [self._both()]
        while self._next() == "or":
            self._at += 1
            parts.append(self._both())
        return parts[0] if len(parts) == 1 else Either(tuple(parts))

    def _both(self) -> Condition:
        parts = [self._single()]
        while self._next() == "and":
            self._at += 1
            parts.append(self._single())
        return parts[0] if len(parts) == 1 else Both(tuple(parts))

    def _single(self) -> Condition:
        self._depth += 1
        if self._depth > DEEPEST:
            self._fail(f"more than {DEEPEST} parentheses and nots within each other")
        word = self._take("a condition")
        condition: Condition
        if word.lower() == "not":
            condition = Not(self._single())
        elif word == "(":
            condition = self._either()
            if self._take('")"') != ")":
                self._fail(f'expected ")" before {quoted(self._words[self._at - 1])}')
        else:
            condition = self._primitive(word.lower())
        self._depth -= 1
        return condition

    def _primitive(self, word: str) -> Condition:
        if word in ("src", "dst"):
            following = self._take(f"host, net or port behind {word}").lower()
            if following not in _AT_ENDS:
                self._fail(f"expected host, net or port behind {word}, got {quoted(following)}")
            return self._at_ends(following, (word,))
        if word in _AT_ENDS:
            return self._at_ends(word, ("src", "dst"))
        if word == "if":
            return InterfaceName(self._take("the name of an interface"))
        return self._field(word)

    def _field(self, word: str) -> Field:
        if word in _FIELDS:
            return _FIELDS[word]
        if word == "vlan":
            return Field("vlan_id", self._number("a VLAN", self._take("a VLAN"), _MAX_VLAN))
        if word == "proto":
            name = self._take("a protocol").lower()
            return Field("protocol", PROTOCOLS.get(name) or self._number("a protocol", name, _MAX_PROTOCOL))
        near = nearest(word, _WORDS)
        return self._fail(f"there is no {quoted(word)}" + (f" (did you mean {near}?)" if near else ""))

    def _at_ends(self, kind: str, ends: tuple[str, ...]) -> Condition:
        if kind == "port":
            text = self._take("a port")
            least, _, most = text.partition("-")
            first = self._number("a port", least, _MAX_PORT)
            return Ports(ends, first, self._number("a port", most, _MAX_PORT) if most else first)
        text = self._take("an address")
        try:
            network = ipaddress.ip_network(text, strict=False)
        except ValueError:
            self._fail(f"{quoted(text)} is not an address")
        if kind == "host" and network.prefixlen != network.max_prefixlen:
            self._fail(f"{text} is a network: write net {text}")
        if network.version == 6:
            return Network(ends, network.network_address.packed, network.prefixlen)
        mapped = _MAPPED.network_address.packed[:12] + network.network_address.packed
        return Network(ends, mapped, _MAPPED.prefixlen + network.prefixlen)

    def _number(self, what: str, text: str, most: int) -> int:
        if not (text.isascii() and text.isdigit()) or int(text) > most:
            self._fail(f"{quoted(text)} is not {what} (0 to {most})")
        return int(text)
