"""The simple form selects what libpcap's expression for it does; what it means is clear, and so are its errors."""

from __future__ import annotations

import pytest

from netobs.pcap.filters import compile_filter, libpcap, simple
from netobs.pcap.selection import LINK_ETHERNET, LINK_IP, Program
from tests.filters import packets
from tests.filters.oracle import Oracle, compiled, need_libpcap
from tests.filters.refusals import refusal

FRAMES, IP_PACKETS = packets.frames(2000, 11), packets.ip_packets(1000, 12)
MANY = ",".join(str(port) for port in range(1, 256))
TOO_MANY = ",".join(str(port) for port in range(1, 257))


@pytest.fixture(autouse=True)
def there_is_libpcap() -> None:
    need_libpcap()


def selected(program: Program, of: list[bytes]) -> list[bool]:
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
    verdicts = selected(filter_.ethernet[0], FRAMES)
    assert verdicts == selected(compiled(f"({expression}) or (vlan and ({expression}))"), FRAMES)
    assert any(verdicts)
    verdicts = selected(filter_.ip[0], IP_PACKETS)
    assert verdicts == selected(compiled(expression, libpcap.RAW_IP), IP_PACKETS)
    assert any(verdicts)


@pytest.mark.parametrize(
    "texts", [["tcp,80", "udp,53", "TCP, 443", "tcp,80,22", "udp,4789"], [f"tcp,{n}" for n in (80, 1)]]
)
def test_a_list_selects_what_any_of_its_texts_selects_with_one_program_for_each_protocol(texts: list[str]) -> None:
    whole = compile_filter(texts)
    assert len(whole.programs(LINK_ETHERNET)) == len({text.lower().split(",")[0] for text in texts})
    for link, frames in ((LINK_ETHERNET, FRAMES), (LINK_IP, IP_PACKETS)):
        apart = [selected(compile_filter([text]).programs(link)[0], frames) for text in texts]
        together = [selected(program, frames) for program in whole.programs(link)]
        assert list(map(any, zip(*together))) == list(map(any, zip(*apart)))


def test_what_is_joined_and_what_is_not() -> None:
    assert simple.merged(["udp,53", "tcp,443", "tcp", "tcp,80,443", "TCP,22", "tcp port 1", "tcp"]) == (
        "udp,53",
        "tcp,22,80,443",
        "tcp",
        "tcp port 1",
    )
    assert simple.merged(["tcp,1", "tcp,x", "icmp,1", "tcp,2"]) == ("tcp,1,2", "tcp,x", "icmp,1")
    many = simple.merged([f"tcp,{port}" for port in range(1, 512)])
    assert [len(text.split(",")) - 1 for text in many] == [255, 255, 1]


def test_the_instructions_of_a_long_list_grow_with_its_ports_not_with_its_texts() -> None:
    one = compile_filter([f"tcp,{','.join(map(str, range(1000, 1110)))}"])
    assert compile_filter([f"tcp,{port}" for port in range(1000, 1110)]) == one
    assert one.instructions < 4 * 110 + 100  # each port as source and as destination, with Ethernet and without


@pytest.mark.parametrize("word", simple.PROTOCOLS)
def test_a_word_alone_is_what_libpcap_takes_it_for(word: str) -> None:
    filter_ = compile_filter([word])
    verdicts = selected(filter_.ethernet[0], FRAMES)
    assert verdicts == selected(compiled(word), FRAMES)
    assert any(verdicts)
    if filter_.ip:
        assert selected(filter_.ip[0], IP_PACKETS) == selected(compiled(word, libpcap.RAW_IP), IP_PACKETS)
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
        ("tcp,http", 'port "http" is not a number; write tcp,80'),
        ("udp,80,domain", 'port "domain" is not a number; write udp,53'),
        ("tcp,-1", 'port "-1" is not a number; ports are 0 to 65535'),
        ("tcp,nosuch", 'port "nosuch" is not a number; ports are 0 to 65535'),
        ("tcp,8\N{SUPERSCRIPT TWO}", 'port "8\N{SUPERSCRIPT TWO}" is not a number; ports are 0 to 65535'),
        ("udp,50-60", 'port "50-60" is not a number; for a range write "udp portrange 50-60"'),
        ("tcp,", 'there is no port after a comma; write tcp,80, or "tcp" alone for all ports'),
        (",80", "there is no protocol before the comma; write PROTOCOL,PORT with one of tcp, udp, sctp"),
        ("icmp,8", 'icmp has no ports; write "icmp" alone; these have ports: tcp, udp, sctp'),
        (
            "tcp port 80, udp",
            'there is no protocol "tcp port 80"; the language of pcap-filter(7) has no comma: join by "or"',
        ),
        (f"tcp,{TOO_MANY}", "it has 256 ports; the limit is 255; write a list of filters"),
    ],
)
def test_a_mistake_is_said_with_what_to_do(text: str, said: str) -> None:
    shown = text if len(text) <= 120 else f"{text[:120]}..."
    assert refusal([text]) == f'filter "{shown}": {said}'
