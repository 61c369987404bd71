"""What the tools that people have read in our streams: everything that was put in, without a warning."""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from lab.packets import EGRESS, ETH0, INTERFACES, OFFSET_NS, SECOND, Packet, all_rows, batch_of, mixed
from netobs.pcap.distribution import ReadContext
from netobs.pcap.formats import stream_of
from netobs.pcap.formats.stream import PacketStream
from netobs.pcap.selection import LINK_ETHERNET, LINK_IP

TOOLS = ("tshark", "tcpdump", "capinfos", "editcap")
pytestmark = pytest.mark.e2e(tools=TOOLS)

BOTH = (LINK_ETHERNET, LINK_IP)
ROOT_NOTICE = 'Running as user "root" and group "root". This could be dangerous.'


def read_by(*argv: str | Path) -> str:
    """What a reader says, which may have nothing to complain of."""
    done = subprocess.run(list(map(str, argv)), capture_output=True, text=True, timeout=60, check=False)
    complaints = [line for line in done.stderr.splitlines() if line != ROOT_NOTICE]
    assert (done.returncode, [line for line in complaints if not line.startswith("reading from file")]) == (0, [])
    return done.stdout


def stream_file(path: Path, stream: PacketStream, packets: Sequence[Packet], dropped: int = 0, lost: int = 0) -> Path:
    """A stream of ``packets`` in batches of 100, each followed by statistics. Of the last batch, so many are said to be
    ``dropped``; of the first packet's interface, ``lost``."""
    data = stream.header()
    for begin in range(0, len(packets), 100):
        batch = batch_of(packets[begin : begin + 100])
        context = ReadContext(packets[begin].time_ns, OFFSET_NS, INTERFACES)
        made = stream.records(batch, all_rows(batch), context)
        sent = len(made) - (dropped if begin + 100 >= len(packets) else 0)
        stream.count(made, sent, len(made) - sent)
        data += made.head + made.body + stream.statistics({packets[0].ifindex: lost}, context)
    path.write_bytes(data)
    return path


def seen_by_tshark(path: Path) -> list[tuple[bytes, int, str]]:
    """Octets, original length and time of each frame."""
    fields = ["frame.time_epoch", "frame.len"]
    lines = read_by("tshark", "-n", "-r", path, "-T", "fields", *(word for name in fields for word in ("-e", name)))
    raw = json.loads(read_by("tshark", "-n", "-r", path, "-T", "jsonraw"))
    octets = [bytes.fromhex(frame["_source"]["layers"]["frame_raw"][0]) for frame in raw]
    rows = [line.split("\t") for line in lines.splitlines()]
    return [(each, int(length), time) for each, (time, length) in zip(octets, rows)]


def put_in(packets: Sequence[Packet]) -> list[tuple[bytes, int, str]]:
    walls = [packet.time_ns + OFFSET_NS for packet in packets]
    return [
        (packet.octets, packet.length, f"{wall // SECOND}.{wall % SECOND:09}") for packet, wall in zip(packets, walls)
    ]


@pytest.mark.parametrize("name", ["pcap", "pcapng"])
def test_ethernet_is_read_by_all_three(name: str, tmp_path: Path) -> None:
    packets = mixed(1000)
    path = stream_file(tmp_path / name, stream_of(name, LINK_ETHERNET, 262_144, "tcp,80"), packets)
    assert seen_by_tshark(path) == put_in(packets)

    said = read_by("tcpdump", "-v", "-n", "-tt", "--time-stamp-precision=nano", "-r", path).splitlines()
    times = [line.split()[0] for line in said if re.match(r"\d+\.\d{9} ", line)]
    assert times == [time for _, _, time in put_in(packets)]
    again = tmp_path / "again.pcap"
    read_by("tcpdump", "-n", "-r", path, "--time-stamp-precision=nano", "-w", again)
    assert seen_by_tshark(again) == put_in(packets)

    summary = read_by("capinfos", path)
    assert re.search(r"Number of packets: +1000$", summary, re.M)
    assert re.search(r"File timestamp precision: +nanoseconds \(9\)$", summary, re.M)
    assert re.search(r"Strict time order: +True$", summary, re.M)
    assert (
        f"File type:           Wireshark/{'tcpdump/... - nanosecond pcap' if name == 'pcap' else '... - pcapng'}"
        in (summary)
    )


def test_raw_ip_in_pcap(tmp_path: Path) -> None:
    packets = mixed(300, links=(LINK_IP,))
    path = stream_file(tmp_path / "pcap", stream_of("pcap", LINK_IP, 262_144, ""), packets)
    assert seen_by_tshark(path) == put_in(packets)
    assert len(read_by("tcpdump", "-v", "-n", "-r", path).splitlines()) >= 300
    assert re.search(r"File encapsulation: +Raw IP$", read_by("capinfos", path), re.M)


def test_mixed_links_names_and_directions_in_pcapng(tmp_path: Path) -> None:
    packets = mixed(1000, links=BOTH)
    path = stream_file(tmp_path / "pcapng", stream_of("pcapng", LINK_ETHERNET, 262_144, "udp"), packets)
    assert seen_by_tshark(path) == put_in(packets)
    names = ("frame.interface_name", "frame.interface_description", "frame.packet_flags_direction")
    lines = read_by("tshark", "-n", "-r", path, "-T", "fields", *(word for name in names for word in ("-e", name)))
    expected = [
        (INTERFACES[packet.ifindex].name, INTERFACES[packet.ifindex].alias, 2 if packet.direction == EGRESS else 1)
        for packet in packets
    ]
    assert [tuple(line.split("\t")) for line in lines.splitlines()] == [
        (name, alias, f"0x{flags:08x}") for name, alias, flags in expected
    ]
    # frames are understood as what they are
    protocols = read_by("tshark", "-n", "-r", path, "-T", "fields", "-e", "frame.protocols").splitlines()
    assert [each.startswith("eth:ethertype:ip:udp") for each in protocols] == [
        packet.link == LINK_ETHERNET for packet in packets
    ]
    assert [each.startswith("raw:ip:udp") for each in protocols] == [packet.link == LINK_IP for packet in packets]
    summary = read_by("capinfos", path)
    assert re.search(r"Capture application: +netobs ", summary)
    assert re.search(r"Number of interfaces in file: +3$", summary, re.M)
    assert sorted(re.findall(r"Name = (\w+)$", summary, re.M)) == ["eth0", "eth1", "wg0"]
    assert re.findall(r"Filter string = (\w+)$", summary, re.M) == ["udp"] * 3


def test_drop_counters_of_pcapng(tmp_path: Path) -> None:
    packets = [replace(packet, ifindex=ETH0.index) for packet in mixed(200)]
    path = stream_file(tmp_path / "pcapng", stream_of("pcapng", LINK_ETHERNET, 262_144, "udp"), packets, 3, 40)
    assert re.findall(r"Number of stat entries = (\d+)$", read_by("capinfos", path), re.M) == ["2"]
    # tshark's dissector of the file itself; capinfos counts the statistics and does not print them
    said = read_by("tshark", "-X", "read_format:MIME Files Format", "-r", path, "-V")
    last = said.rpartition("Block: Interface Statistics Block")[2]
    assert re.findall(r"Option: Number of (.*)", last) == [
        "Received Packets = 240",
        "Dropped Packets = 43",
        "Accepted Packets = 240",
        "Packets Dropped by OS = 40",
        "Packets Delivered to the User = 197",
    ]
    assert "Malformed" not in said


@pytest.mark.parametrize("name", ["pcap", "pcapng"])
def test_snaplen_is_seen_as_such(name: str, tmp_path: Path) -> None:
    packets = mixed(200)
    path = stream_file(tmp_path / name, stream_of(name, LINK_ETHERNET, 64, "udp"), packets)
    assert seen_by_tshark(path) == [(octets[:64], length, time) for octets, length, time in put_in(packets)]
    assert re.search(r"(Packet size limit: +file hdr: 64 bytes|Capture length = 64)$", read_by("capinfos", path), re.M)


def test_editcap_makes_a_pcap_of_a_pcapng(tmp_path: Path) -> None:
    packets = mixed(200)
    path = stream_file(tmp_path / "pcapng", stream_of("pcapng", LINK_ETHERNET, 262_144, "udp"), packets)
    read_by("editcap", "-F", "nsecpcap", path, tmp_path / "pcap")
    assert seen_by_tshark(tmp_path / "pcap") == put_in(packets)
