"""The simple form selects what libpcap's expression for it does; what it means is clear, and so are its errors."""

from __future__ import annotations

import pytest

from netobs.pcap.filters import classic, compile_filter, libpcap, simple
from tests.filters import packets
from tests.filters.oracle import Oracle, compiled, need_libpcap
from tests.filters.refusals import refusal

FRAMES, IP_PACKETS = packets.frames(2000, 11), packets.ip_packets(1000, 12)
MANY = ",".join(str(port) for port in range(1, 256))
TOO_MANY = ",".join(str(port) for port in range(1, 257))


@pytest.fixture(autouse=True)
def there_is_libpcap() -> None:
    need_libpcap()


def selected(program: classic.Program, of: list[bytes]) -> list[bool]:
    oracle = Oracle(program)
    return [oracle(packet) for packet in of]


WITH_PORTS = [
    ("tcp,80", "tcp port 80"),
    ("tcp,80,443", "tcp port 80 or tcp port 443"),
    ("udp,53", "udp port 53"),
    ("sctp,443,80,22,80", "sctp port 22 or sctp port 80 or sctp port 443"),
    (" TCP , 22 ", "tcp port 22"),
    ("udp,0,65535", "udp port 0 or udp port 65535"),
    (f"tcp,{MANY}", "tcp portrange 1-255"),
]


@pytest.mark.parametrize(("text", "expression"), WITH_PORTS)
def test_ports_are_those_of_an_expression_with_and_without_a_tag(text: str, expression: str) -> None:
    filter_ = compile_filter([text])
    verdicts = selected(filter_.ethernet, FRAMES)
    assert verdicts == selected(compiled(f"({expression}) or (vlan and ({expression}))"), FRAMES)
    assert any(verdicts)
    verdicts = selected(filter_.ip, IP_PACKETS)
    assert verdicts == selected(compiled(expression, libpcap.RAW_IP), IP_PACKETS)
    assert any(verdicts)


@pytest.mark.parametrize("word", simple.PROTOCOLS)
def test_a_word_alone_is_what_libpcap_takes_it_for(word: str) -> None:
    filter_ = compile_filter([word])
    verdicts = selected(filter_.ethernet, FRAMES)
    assert verdicts == selected(compiled(word), FRAMES)
    assert any(verdicts)
    if filter_.ip:
        assert selected(filter_.ip, IP_PACKETS) == selected(compiled(word, libpcap.RAW_IP), IP_PACKETS)
    else:
        assert word == "arp"


def test_which_texts_are_meant_so() -> None:
    simple_form = ["", " ", "tcp", "ICMP6", "tcp,80", "tpc,80", "tcp, http", "tcp port 80, udp", ","]
    expressions = ["tcp port 80", "vlan", "host 10.0.0.1", "tpc", "not tcp", "(tcp)"]
    assert [text for text in [*simple_form, *expressions] if simple.is_simple(text)] == simple_form


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("tcp,99999", "there is no port 99999; ports are 0 to 65535"),
        ("tcp,80,65536", "there is no port 65536; ports are 0 to 65535"),
        ("tpc,80", 'there is no protocol "tpc"; did you mean tcp?'),
        ("icmpv6,1", 'there is no protocol "icmpv6"; did you mean icmp6?'),
        ("quic,443", 'there is no protocol "quic"; write PROTOCOL,PORT with one of tcp, udp, sctp'),
        ("80,tcp", 'there is no protocol "80"; write PROTOCOL,PORT with one of tcp, udp, sctp'),
        ("tcp,http", 'port "http" is no number; write tcp,80'),
        ("udp,80,domain", 'port "domain" is no number; write udp,53'),
        ("tcp,-1", 'port "-1" is no number; ports are 0 to 65535'),
        ("tcp,nosuch", 'port "nosuch" is no number; ports are 0 to 65535'),
        ("tcp,8\N{SUPERSCRIPT TWO}", 'port "8\N{SUPERSCRIPT TWO}" is no number; ports are 0 to 65535'),
        ("udp,50-60", 'port "50-60" is no number; for a range write "udp portrange 50-60"'),
        ("tcp,", 'no port stands behind a comma; write tcp,80, or "tcp" alone for all ports'),
        (",80", "no protocol stands in front of the comma; write PROTOCOL,PORT with one of tcp, udp, sctp"),
        ("icmp,8", 'icmp has no ports; write "icmp" alone; these have ports: tcp, udp, sctp'),
        (
            "tcp port 80, udp",
            'there is no protocol "tcp port 80"; the language of pcap-filter(7) has no comma: join by "or"',
        ),
        (f"tcp,{TOO_MANY}", "it has 256 ports, and at most 255 are possible; write a list of filters"),
    ],
)
def test_a_mistake_is_said_with_what_to_do(text: str, said: str) -> None:
    shown = text if len(text) <= 200 else f"{text[:200]}..."
    assert refusal([text]) == f'filter "{shown}": {said}'
