"""The line of a request."""

from __future__ import annotations

import json

import pytest

from netobs.pcap.server.request import MAX_LINE_BYTES, Refusal, Request, parse_request


@pytest.mark.parametrize(
    ("line", "request_"),
    [
        (b"", Request()),
        (b"\r", Request()),
        (b"  ", Request()),
        (b"{}", Request()),
        (b"tcp,80", Request(filter=("tcp,80",))),
        (b"host 192.0.2.1 and\tport 53\r", Request(filter=("host 192.0.2.1 and port 53",))),
        (b'{"filter": "udp"}', Request(filter=("udp",))),
        (b' {"filter": ["udp", "tcp,80"]} ', Request(filter=("udp", "tcp,80"))),
        (b'{"snaplen": 96, "format": "pcapng"}', Request(snaplen=96, format="pcapng")),
        (b'{"interface": "eth0", "count": 10}', Request(interface="eth0", count=10)),
        (b'{"duration": "10s"}', Request(duration_ns=10_000_000_000)),
        (b'{"recorded": true, "interface": "eth0"}', Request(recorded=True, interface="eth0")),
        ('{"interface": "büro"}'.encode(), Request(interface="büro")),
    ],
)
def test_what_is_understood(line: bytes, request_: Request) -> None:
    assert parse_request(line) == request_


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (b'{"filtr": "udp"}', 'the request has an unknown key "filtr"; did you mean "filter"?'),
        (
            b'{"xyz": 1}',
            'the request has an unknown key "xyz"; known are filter, snaplen, format, interface, count, ',
        ),
        (b'{"format": "pcapgn"}', 'format: expected one of "pcap", "pcapng", got "pcapgn"; did you mean "pcapng"?'),
        (b'{"snaplen": 10}', "snaplen: expected an integer from 64 to 262144, got 10"),
        (b'{"snaplen": "96"}', 'snaplen: expected an integer from 64 to 262144, got "96"; write it without quotes'),
        (b'{"count": 0}', "count: expected an integer from 1 to 9223372036854775807, got 0"),
        (b'{"recorded": "yes"}', 'recorded: expected true or false, got "yes"'),
        (b'{"interface": ""}', "interface: expected the name of an interface of 1 to 64 printable characters, got"),
        (b'{"duration": 10}', 'duration: expected a time from "1ms" to "24h" (a whole number and one of ms, s, m, h'),
        (b'{"filter": []}', "filter: expected a filter such as"),
        (b'{"filter": "tcp"', "the request is not JSON: Expecting ',' delimiter"),
        (b'{"count": 1, "count": 2}', 'the request is not JSON: "count" is listed twice'),
        (b'{"a":' * 160, "the request is not JSON: "),
        (b'{"recorded": true, "filter": "tcp"}', 'the request has "filter" beside "recorded"; the recorder keeps what'),
        (b'{"recorded": true, "duration": "1s"}', 'the request has "duration" beside "recorded"; a recording has its'),
        (b"\x16\x03\x01\x02\x00\x01\x00", "this port does not speak TLS; set packet_capture.cert and key there"),
        (b"tcp\x00,80", "the request is not a line of text; send a filter or a JSON object, or nothing"),
        (b"\xff\xfe", "the request is not a line of text"),
        (b"x" * MAX_LINE_BYTES, "the request has more than 4096 bytes"),
    ],
)
def test_what_is_refused(line: bytes, message: str) -> None:
    with pytest.raises(Refusal) as caught:
        parse_request(line)
    assert str(caught.value).startswith(message)
    assert "\n" not in str(caught.value)


def test_the_longest_line() -> None:
    text = "x" * 1000  # as long as the configuration may have one
    line = json.dumps({"filter": text, "snaplen": 64}).ljust(MAX_LINE_BYTES - 1).encode()
    assert parse_request(line).filter == (text,)
    with pytest.raises(Refusal):
        parse_request(line + b" ")
