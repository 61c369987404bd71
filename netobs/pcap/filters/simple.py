"""The simple form of a filter, ``tcp,80``: compiled here, so that it works without libpcap.

    PROTOCOL,PORT[,PORT...]     as ``tcp port 80 or tcp port 443``, and the same behind one VLAN tag
    PROTOCOL                    the word alone, as in the language of pcap-filter(7): a tag hides it
    (nothing)                   every packet, as there

Any text with a comma is meant so, as that language has none; so is a word of PROTOCOLS.

The ports are looked at in one place, wherever the header with them begins: what a filter costs to verify grows with its
instructions.
"""

from __future__ import annotations

import socket
from collections.abc import Sequence
from dataclasses import dataclass

from netobs.base.errors import FilterError
from netobs.config.text import nearest
from netobs.pcap.filters import classic
from netobs.pcap.filters.classic import ABS, ADD, ALL, ALU, IMM, IND, JMP, LD, LDX, MSH, RET_K, TAX, TXA, B, H
from netobs.pcap.selection import Instruction, Program

MAX_PORT = 65535
MAX_PORTS = 255  # the reach of a conditional jump
ANY = -1
_TAGS = (0x8100, 0x88A8, 0x9100)  # as ``vlan`` of pcap-filter
_TYPE_AT, _TAG_OCTETS = 12, 4
_FRAGMENT_HEADER = 44


@dataclass(frozen=True)
class Protocol:
    """The number of a protocol in IPv4 and in IPv6, ANY for every protocol; None: that version does not carry it."""

    ipv4: int | None = None
    ipv6: int | None = None
    ethertype: int | None = None
    """EtherType of a protocol that IP does not carry."""
    has_ports: bool = False


PROTOCOLS = {
    "tcp": Protocol(6, 6, has_ports=True),
    "udp": Protocol(17, 17, has_ports=True),
    "sctp": Protocol(132, 132, has_ports=True),
    "icmp": Protocol(ipv4=1),
    "icmp6": Protocol(ipv6=58),
    "igmp": Protocol(ipv4=2),
    "esp": Protocol(50, 50),
    "ah": Protocol(51, 51),
    "pim": Protocol(103, 103),
    "ip": Protocol(ipv4=ANY),
    "ip6": Protocol(ipv6=ANY),
    "arp": Protocol(ethertype=0x0806),
}
"""The words of the simple form."""

_WITH_PORTS = ", ".join(name for name, protocol in PROTOCOLS.items() if protocol.has_ports)


def is_simple(text: str) -> bool:
    """Whether ``text`` is an attempt at the simple form, right or wrong."""
    return "," in text or text.strip().lower() in ("", *PROTOCOLS)


def compile_simple(text: str) -> tuple[Program, Program]:
    """The classic programs of ``text`` for packets that begin with an Ethernet header, and with that of IP.

    :raises FilterError: the protocol is unknown, or a port is invalid.
    """
    name, *words = (word.strip().lower() for word in text.split(","))
    if not name and not words:
        return (_SELECT,), (_SELECT,)
    protocol, ports = _parsed(name, words)
    return _of_ethernet(protocol, ports), _of_ip(protocol, ports)


def merged(texts: Sequence[str]) -> tuple[str, ...]:
    """Texts that together select what ``texts`` select, each once: those with ports of one protocol are joined, as far
    as they are right."""
    ports: dict[str, set[int]] = {}
    others: dict[str, None] = {}
    for text in texts:
        name, *words = (word.strip().lower() for word in text.split(","))
        try:
            found = _parsed(name, words)[1] if words else []
        except FilterError:  # whoever compiles it says so
            found = []
        if found:
            ports.setdefault(name, set()).update(found)
        else:
            others[text] = None
    joined = [
        ",".join((name, *map(str, sorted(its)[begin : begin + MAX_PORTS])))
        for name, its in ports.items()
        for begin in range(0, len(its), MAX_PORTS)
    ]
    return (*joined, *others)


def _parsed(name: str, words: Sequence[str]) -> tuple[Protocol, list[int]]:
    protocol = _protocol(name)
    if words and not protocol.has_ports:
        raise FilterError(f"{name} has no ports", f'write "{name}" alone; these have ports: {_WITH_PORTS}')
    if len(words) > MAX_PORTS:
        raise FilterError(f"it has {len(words)} ports; the limit is {MAX_PORTS}", "write a list of filters")
    return protocol, sorted({_port(name, word) for word in words})


def _protocol(name: str) -> Protocol:
    if name in PROTOCOLS:
        return PROTOCOLS[name]
    if " " in name:
        raise FilterError(f'there is no protocol "{name}"', 'the language of pcap-filter(7) has no comma: join by "or"')
    near = nearest(name, PROTOCOLS)
    hint = f"did you mean {near}?" if near else f"write PROTOCOL,PORT with one of {_WITH_PORTS}"
    raise FilterError(f'there is no protocol "{name}"' if name else "there is no protocol before the comma", hint)


def _port(name: str, word: str) -> int:
    if word.isascii() and word.isdecimal():
        if int(word) > MAX_PORT:
            raise FilterError(f"there is no port {word}", f"ports are 0 to {MAX_PORT}")
        return int(word)
    if not word:
        raise FilterError("there is no port after a comma", f'write {name},80, or "{name}" alone for all ports')
    first, dash, last = word.partition("-")
    if dash and first.isdecimal() and last.isdecimal():
        raise FilterError(f'port "{word}" is not a number', f'for a range write "{name} portrange {word}"')
    try:
        number = socket.getservbyname(word, name)
    except (OSError, UnicodeError):
        raise FilterError(f'port "{word}" is not a number', f"ports are 0 to {MAX_PORT}") from None
    raise FilterError(f'port "{word}" is not a number', f"write {name},{number}")


# Each of these is a piece of a program. All but ``_when``, ``_accept`` and ``_require`` end it, whatever the packet is,
# or lead to its ports, with X where the header with these begins.

_SELECT, _REJECT = Instruction(RET_K, k=ALL), Instruction(RET_K)
_TO_PORTS = Instruction(JMP | classic.JA, k=0xFFFFFFFF)
"""Stands for a jump to the end of the pieces, where the ports are looked at."""


def _of_ethernet(protocol: Protocol, ports: Sequence[int]) -> Program:
    load = Instruction(LD | H | ABS, k=_TYPE_AT)
    untagged = _versions(protocol, bool(ports), _TYPE_AT + 2, 0x0800, 0x86DD)
    if not ports:
        return load, *untagged, _REJECT
    behind = _TYPE_AT + _TAG_OCTETS
    tagged = _versions(protocol, True, behind + 2, 0x0800, 0x86DD)
    behind_tag = _when(_TAGS, (Instruction(LD | H | ABS, k=behind), *tagged, _REJECT))
    return _with_ports((load, *untagged, *behind_tag, _REJECT), ports)


def _of_ip(protocol: Protocol, ports: Sequence[int]) -> Program:
    """Empty: no such packet begins with an IP header."""
    if protocol.ethertype is not None:
        return ()
    version = Instruction(ALU | classic.AND, k=0xF0)
    pieces = Instruction(LD | B | ABS, k=0), version, *_versions(protocol, bool(ports), 0, 0x40, 0x60), _REJECT
    return _with_ports(pieces, ports) if ports else pieces


def _with_ports(pieces: Program, ports: Sequence[int]) -> Program:
    source, destination = ((Instruction(LD | H | IND, k=at), *_accept(ports)) for at in (0, 2))
    jumps = (_TO_PORTS._replace(k=distance) for distance in range(len(pieces) - 1, -1, -1))
    led = (jump if each == _TO_PORTS else each for each, jump in zip(pieces, jumps))
    return *led, *source, *destination, _REJECT


def _versions(protocol: Protocol, has_ports: bool, ip_at: int, ipv4: int, ipv6: int) -> Program:
    """A tells what comes at ``ip_at``. Goes on if it is nothing that carries the protocol."""
    pieces: Program = ()
    if protocol.ethertype is not None:
        pieces += _when((protocol.ethertype,), (_SELECT,))
    if protocol.ipv4 is not None:
        pieces += _when((ipv4,), _ipv4(protocol.ipv4, has_ports, ip_at))
    if protocol.ipv6 is not None:
        pieces += _when((ipv6,), _ipv6(protocol.ipv6, has_ports, ip_at))
    return pieces


def _ipv4(number: int, has_ports: bool, at: int) -> Program:
    if number == ANY:
        return (_SELECT,)
    begin = Instruction(LD | B | ABS, k=at + 9), *_require(number)
    if not has_ports:
        return *begin, _SELECT
    is_fragment = Instruction(LD | H | ABS, k=at + 6), Instruction(JMP | classic.JSET, 0, 1, 0x1FFF), _REJECT
    behind = Instruction(LDX | B | MSH, k=at), Instruction(TXA), Instruction(ALU | ADD, k=at)
    return *begin, *is_fragment, *behind, Instruction(TAX), _TO_PORTS


def _ipv6(number: int, has_ports: bool, at: int) -> Program:
    if number == ANY:
        return (_SELECT,)
    begin = Instruction(LD | B | ABS, k=at + 6)
    if has_ports:
        return begin, *_require(number), Instruction(LDX | IMM, k=at + 40), _TO_PORTS
    in_fragment = *_require(_FRAGMENT_HEADER), Instruction(LD | B | ABS, k=at + 40), *_require(number), _SELECT
    return begin, *_accept((number,)), *in_fragment


def _accept(values: Sequence[int]) -> Program:
    """Selects the packet if A is one of ``values``."""
    return _when(values, (_SELECT,))


def _require(value: int) -> Program:
    """Does not select it if A is anything else."""
    return Instruction(JMP | classic.JEQ, 1, 0, value), _REJECT


def _when(values: Sequence[int], piece: Program) -> Program:
    """``piece`` if A is one of ``values``. It may be longer than a conditional jump."""
    tests = (Instruction(JMP | classic.JEQ, len(values) - index, 0, value) for index, value in enumerate(values))
    return *tests, Instruction(JMP | classic.JA, k=len(piece)), *piece
