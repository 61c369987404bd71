"""What clients ask the packet server for. Real sockets; the packets are handed in as the tap would."""

from __future__ import annotations

import re
import socket
import struct

import pytest

from lab.packet_site import Site, ask, compiling, numbered, numbers_in, stop
from lab.packets import ETH0, ETH1, SECOND, WG0, mixed
from netobs.base.errors import NetobsError
from netobs.pcap.selection import Filter, Selection


def test_a_silent_client_gets_what_is_configured() -> None:
    with Site() as site:
        client = site.connect(None)
        site.until_clients(1)
        assert next(iter(site.source.selected.values())).filter.text == "tcp,80"
        assert site.source.snaplen == 262_144
        site.source.feed(numbered(range(1000)))
        site.until(lambda: site.server.total.sent == 1000)
        site.stop()
        assert numbers_in(site.all_of(client)) == list(range(1000))


@pytest.mark.parametrize("request_", [b"udp\n", b'{"filter": "udp"}\n', b"udp\r\n"])
def test_a_filter_of_its_own(request_: bytes) -> None:
    with Site() as site:
        site.connect(request_)
        site.until_clients(1)
        assert [selection.filter.text for selection in site.source.selected.values()] == ["udp"]


def test_each_gets_what_it_selects_in_its_own_form() -> None:
    with Site() as site:
        plain = site.connect()
        site.until_clients(1)
        other = site.connect(ask(filter="udp", snaplen=64))
        site.until_clients(2)
        same = site.connect(ask(filter=["tcp,80"]))
        site.until_clients(3)
        assert len(site.source.selected) == 2
        first, second = numbered(range(50)), numbered(range(50, 100), filters=2)
        both = numbered(range(100, 150), filters=3)
        site.source.feed(first + second + both)
        site.until(lambda: site.server.total.sent == 300)
        site.stop()
        streams = {name: site.all_of(client) for name, client in (("plain", plain), ("other", other), ("same", same))}
    assert numbers_in(streams["plain"]) == [*range(50), *range(100, 150)]
    assert streams["same"] == streams["plain"]
    assert numbers_in(streams["other"]) == list(range(50, 150))
    assert len(streams["other"]) == 24 + 100 * (16 + 64)
    assert streams["other"][16:20] == struct.pack("<I", 64)


def test_the_interface_of_a_request() -> None:
    with Site() as site:
        client = site.connect(ask(interface="wg0"))
        site.until_clients(1)
        assert [selection.ifindex for selection in site.source.selected.values()] == [WG0.index]
        site.stop()
        assert site.all_of(client)[20:24] == struct.pack("<I", 101)  # LINKTYPE_RAW


def test_what_is_left_is_read_in_the_next_rounds() -> None:
    with Site() as site:
        site.connect()
        site.until_clients(1)
        for number in range(10):
            site.source.feed(numbered(range(number, number + 1)))
        for _ in range(11):
            site.loop.run_once(0)
        assert site.source.waiting == 0


def test_an_interface_that_is_not_captured_yet() -> None:
    with Site(interfaces=()) as site:
        site.source.could_be_captured = [ETH0, ETH1, WG0]  # nothing is attached as long as nobody is there
        assert site.answer(ask(interface="eth9")).endswith("captured are: eth0, eth1, wg0\n")
        client = site.connect(ask(interface="wg0"))
        site.until_clients(1)
        site.until(lambda: site.source.captured == [ETH0, ETH1, WG0], "all are attached to, one after the other")
        assert [selection.ifindex for selection in site.source.selected.values()] == [WG0.index]
        site.stop()
        assert site.all_of(client)[20:24] == struct.pack("<I", 101)


def test_the_port_of_the_server_is_told_to_the_tap() -> None:
    with Site() as site:
        assert site.source.own_port == site.port


def test_without_ethernet_anywhere_the_link_type_is_raw() -> None:
    with Site(interfaces=(WG0,)) as site:
        client = site.connect()
        site.until_clients(1)
        site.stop()
        assert site.all_of(client)[20:24] == struct.pack("<I", 101)


def test_packets_of_another_link_type_are_counted() -> None:
    packets = mixed(100, links=(0, 1))
    with Site() as site:
        client = site.connect()
        site.until_clients(1)
        site.source.feed(packets)
        raw = sum(packet.link for packet in packets)
        site.until(lambda: site.server.total.sent == 100 - raw)
        assert site.server.total.other_link == raw
        site.stop()
        site.all_of(client)


def test_snaplen_of_the_tap_is_the_largest_that_anybody_wants() -> None:
    with Site(snaplen=1000) as site:
        small = site.connect(ask(snaplen=64))
        site.until_clients(1)
        assert site.source.snaplen == 64
        large = site.connect(ask(snaplen=5000))
        site.until_clients(2)
        assert site.source.snaplen == 1000  # a client may ask for less than what is configured
        large.close()
        site.source.feed(numbered(range(100)))
        site.until_clients(1)
        site.until(lambda: site.source.snaplen == 64)
        small.close()


@pytest.mark.parametrize(
    ("request_", "answer"),
    [
        (b"no such\n", 'netobs: filter "no such": can\'t parse filter expression: syntax error\n'),
        (b'{"filtre": "udp"}\n', 'netobs: the request has an unknown key "filtre"; did you mean "filter"?\n'),
        (b'{"interface": "eth00"}\n', None),
        (b'{"interface": "no"}\n', 'netobs: interface "no" is not captured; captured are: eth0, eth1, wg0\n'),
        (b'{"recorded": true}\n', "netobs: nothing is recorded here; set packet_capture.recorder\n"),
        (b"\x16\x03\x01\x02\x00\x01\n", None),
        (b"\x00\x01\x02\xff\n", None),
        (b"x" * 10_000, "netobs: the request has more than 4096 bytes; a shorter filter, or fewer of them\n"),
        (b"x" * 10_000 + b"\n", "netobs: the request has more than 4096 bytes; a shorter filter, or fewer of them\n"),
        (b"tcp,80", None),  # no newline
    ],
)
def test_a_refused_request_gets_one_line(request_: bytes, answer: str | None, caplog: pytest.LogCaptureFixture) -> None:
    with Site() as site:
        other = site.connect()
        site.until_clients(1)
        said = site.answer(request_)
        assert said.startswith("netobs: ")
        assert said.count("\n") == 1
        assert answer in (None, said)
        assert sum("refused" in line for line in caplog.messages) == 1
        assert sum(site.server.admission.refused.values()) == 1
        site.source.feed(numbered(range(10)))
        site.until(lambda: site.server.total.sent == 10)
        site.stop()
        assert numbers_in(site.all_of(other)) == list(range(10))


def test_a_request_may_come_in_pieces_but_not_for_long() -> None:
    with Site() as site:
        client = site.connect(None)
        for piece in (b'{"filter"', b': "udp"', b"}\n"):
            client.send(piece)
            site.loop.run_once(0)
        site.until_clients(1)
        slow, pieces = site.connect(None), iter(range(10_000))
        answer = bytearray()

        def refused() -> bool:  # a byte at a time, as long as anybody listens
            try:
                slow.send(b"x" if next(pieces) < 900 else b"")
                answer.extend(slow.recv(1000))
            except BlockingIOError:
                pass
            return answer.endswith(b"\n")

        site.until(refused)
        assert answer.decode().startswith("netobs: the request did not end within 250 ms; it is one line")
        slow.close()
        client.close()


def test_a_request_that_is_ended_by_the_end_of_the_sender() -> None:
    with Site() as site:
        client = site.connect(None)
        client.send(b"udp")
        client.shutdown(socket.SHUT_WR)
        site.until_clients(1)
        assert [selection.filter.text for selection in site.source.selected.values()] == ["udp"]
        site.source.feed(numbered(range(10)))
        site.until(lambda: site.server.total.sent == 10)
        site.stop()
        assert numbers_in(site.all_of(client)) == list(range(10))


def test_a_filter_whose_names_are_not_found_in_time() -> None:
    with Site(filter_names=True) as site:
        keeper = site.connect()
        site.until_clients(1)
        slow = site.connect(b"host slow.example\n")
        site.until(lambda: len(compiling()) == 1)
        stop(compiling()[0])  # as if nobody answered
        quick = site.connect(b"udp\n")
        site.until_clients(2)  # the others go on
        site.source.feed(numbered(range(10), filters=3))
        site.until(lambda: site.server.total.sent == 20)
        site.skip(10 * SECOND)
        answer = site.all_of(slow).decode()
        assert answer.startswith("netobs: the filter was not compiled within 10 s: the name service does not answer")
        assert compiling() == []
        late = site.connect(b"host slow.example\n")
        site.until(lambda: len(compiling()) == 1)
        site.stop()
        assert site.all_of(late).decode() == "netobs: the daemon is stopping\n"
        assert compiling() == []
        for client in (keeper, quick):
            client.close()
        site.until(lambda: not site.server.admission.connections)


def test_a_client_that_leaves_takes_its_compilation_along() -> None:
    with Site(filter_names=True) as site:
        for _ in range(20):
            client = site.connect(b"host slow.example\n")
            site.until(lambda: len(compiling()) == 1)
            stop(compiling()[0])
            client.close()
            site.until(lambda: compiling() == [])
        assert site.server.admission.refused == {}


def test_filters_of_one_user_that_are_compiled_at_a_time() -> None:
    with Site(filter_names=True, max_clients=20) as site:
        for number in (1, 2):
            site.connect(b"host slow%d.example\n" % number)
            site.until(lambda: len(compiling()) == number)  # noqa: B023 - it is called here only
            for pid in compiling():
                stop(pid)
        many = [site.connect(b"host slow%d.example\n" % number) for number in range(3, 7)]
        site.until(lambda: site.server.admission.refused.get("filter") == 4)
        assert len(compiling()) == 2
        assert site.all_of(many[-1]) == b"netobs: too many filters are being compiled; try again later\n"


@pytest.mark.parametrize("text", ["host localhost", "src host a.example and port 80", "net nowhere", "ether host b"])
def test_names_in_a_filter_are_not_looked_up_for_clients(text: str) -> None:
    with Site() as site:
        answer = site.answer(f"{text}\n".encode())
        assert re.search(r"unknown (ether )?(host|network) .*; write addresses; names are looked up", answer)
        assert "packet_capture.filter_names" in answer
        for allowed in (b"tcp port http\n", b"ip proto ospf\n", b"host 192.0.2.1\n", b"host 192.0.2.1\n"):
            client = site.connect(allowed)
            site.until_clients(1)
            client.close()
            site.until_clients(0)


def test_a_configured_filter_that_cannot_be_compiled() -> None:
    with pytest.raises(NetobsError) as caught, Site(filter=("no such",)):
        pass
    assert str(caught.value).startswith('packet_capture.filter: filter "no such": can\'t parse filter expression')


def test_a_tap_that_has_no_bit_left() -> None:
    with Site(max_clients=31) as site:
        for bit in range(32):
            site.source.selected[bit] = Selection(Filter(f"udp port {bit}", (), ()))  # others' selections
        assert site.answer(b"udp\n") == "netobs: 32 filters are in use already; try again later\n"
        site.source.selected.clear()
