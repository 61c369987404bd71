"""Capture files of every kind through the daemon: each flow is what an independent reckoning of the file says."""

from __future__ import annotations

import random
import re
from collections.abc import Iterable
from pathlib import Path

import pytest

from lab import frames as f
from lab.namespaces import Lab, command
from lab.programs import Capture
from lab.replay.__main__ import main
from lab.replay.link_types import Sendable
from lab.replay.run import replay
from lab.replay.site import Site
from lab.traffic import Traffic
from tests.unit.lab import test_reckoning as known

pytestmark = pytest.mark.e2e(tools=("make", "tcpdump", "text2pcap", "mergecap", "editcap"))

FRAMES = [case[0] for case in known.PACKETS.values()] + [case[0] for case in known.TAGS.values()]
FRAMES += [*known.NOT_IP.values(), known.v6(*[f.extension(f.DEST)] * 65)]
FRAMES += [frame for name, frame in known.MALFORMED.items() if name != "tag cut"]
IP4, IP6 = f.ipv4(f.TCP, f.tcp(f.SYN)), f.ipv6(f.ICMPV6, f.icmp(128))
COOKED = [bytes(14) + b"\x08\0" + IP4, bytes(14) + b"\x08\x06" + bytes(28)]
ETHERNET, RAW, SLL = 1, 101, 113
MUTATED = 3000

PLANS = [
    Traffic(flows=12, packets=600, protocol="tcp", tcp_flags=0xFFF, size=(60, 1514), order="random"),
    Traffic(flows=50, packets=200, protocol="tcp", ipv6=True, vlan=100, qinq=4000, priority=5, size=(82, 9000)),
    Traffic(flows=300, packets=900, size=(60, 200), tos=0xB8, ttl=1, flow_base=1000),
    Traffic(flows=9, packets=100, protocol="icmp", vlan=7),
    Traffic(flows=9, packets=100, protocol="icmp", ipv6=True),
]


def write(path: Path, link: int, frames: Iterable[bytes], kind: str = "pcap") -> Path:
    """A file with these packets, by text2pcap."""
    dump = path.with_suffix(".txt")
    dump.write_text("".join(f"0000 {frame.hex(' ')}\n" for frame in frames), encoding="ascii")
    command(["text2pcap", "-q", "-F", kind, "-l", str(link), str(dump), str(path)])
    dump.unlink()
    return path


def mutated(count: int, seed: int) -> Iterable[bytes]:
    """Frames of all kinds with bytes changed, cut off and repeated: the same ones for a seed."""
    draw = random.Random(seed)
    for _ in range(count):
        frame = bytearray(draw.choice(FRAMES))
        for _ in range(draw.randrange(4)):
            frame[draw.randrange(12, len(frame)) if len(frame) > 12 else 0] = draw.choice(
                (0, 1, 255, draw.randrange(256))
            )
        if not draw.randrange(4):
            del frame[draw.randrange(20, max(21, len(frame))) :]
        yield bytes(frame) + bytes(draw.randrange(30) if not draw.randrange(3) else 0)


def flows_and_notes(output: str) -> dict[str, tuple[int, str]]:
    """By name of the file: how many flows were compared, and what was not sent."""
    rows = re.findall(r"^/\S*/(\S+): \d+ frames sent(.*), (\d+) flows compared, 0 differences$", output, re.MULTILINE)
    return {name: (int(flows), rest.strip(", ")) for name, rest, flows in rows}


def make_files(lab: Lab, tmp_path: Path) -> Path:
    """A folder with eight capture files, and one that is none."""
    folder = tmp_path / "files"
    (folder / "deeper").mkdir(parents=True)
    near, far = lab.pair(mtu=9000)
    with Capture(lab, far.ns, tmp_path, far.name) as capture:
        for plan in PLANS:
            plan.send(lab, near)
        capture.stop()
    traffic = capture.pcap.rename(folder / "traffic.pcap")
    hand_made = write(folder / "hand-made.pcap", ETHERNET, FRAMES)
    raw = write(folder / "raw.pcapng", RAW, [IP4, IP6, IP4], "pcapng")
    cooked = write(folder / "cooked.pcap", SLL, COOKED)
    command(["mergecap", "-a", "-w", str(folder / "three-links.pcapng"), str(hand_made), str(raw), str(cooked)])
    command(["editcap", "-F", "nsecpcap", str(traffic), str(folder / "deeper" / "nanoseconds.pcap")])
    command(["editcap", "-s", "60", str(traffic), str(folder / "deeper" / "cut.pcapng")])
    write(folder / "mutated.pcap", ETHERNET, mutated(MUTATED, seed=1))
    (folder / "README").write_text("not a capture file\n", encoding="ascii")
    return folder


@pytest.mark.parametrize("options", [[], ["--egress"]], ids=["ingress", "egress"])
def test_files_that_tools_make(
    lab: Lab, tmp_path: Path, capsys: pytest.CaptureFixture[str], options: list[str]
) -> None:
    folder = make_files(lab, tmp_path)
    status = main([*options, str(folder)])
    output = capsys.readouterr().out
    assert status == 0, output
    assert re.search(r"^8 files: \d+ frames sent, .* 0 differences; 1 other files$", output, re.MULTILINE)
    found = flows_and_notes(output)
    total = sum(len(plan.expected()) for plan in PLANS)
    assert (found["traffic.pcap"], found["nanoseconds.pcap"]) == ((total, ""), (total, ""))
    assert found["cut.pcapng"][0] == total
    assert re.fullmatch(r"\d{4} of them filled up with zeros", found["cut.pcapng"][1])
    assert found["hand-made.pcap"][0] >= 20
    assert found["mutated.pcap"][0] >= 400
    if options:
        assert found["raw.pcapng"] == (0, "3 not sendable (3 without Ethernet)")
    else:
        assert (found["raw.pcapng"], found["cooked.pcap"]) == ((2, ""), (1, ""))
        assert found["three-links.pcapng"][0] == found["hand-made.pcap"][0] + 2


def test_what_was_not_in_the_file_is_a_difference(tmp_path: Path) -> None:
    file = write(tmp_path / "file.pcap", ETHERNET, [f.ethernet(f.IPV4, IP4), f.ethernet(f.ARP, bytes(28))])
    with Site(tmp_path, 1) as site:
        (good,) = replay(site, [file], most=10)
        site.lanes[0].send(Sendable(-1, f.ethernet(f.IPV4, IP4), 0))
        site.lanes[0].send(Sendable(-1, f.ethernet(f.LLDP, bytes(28)), 0))
        site.lanes[0].send(Sendable(f.IPV6, IP6, 0))
        (bad,) = replay(site, [file], most=10)
        (cut_off,) = replay(site, [file], most=1)
    assert str(good) == f"{file}: 2 frames sent, 1 flows compared, 0 differences"
    assert [line.partition("): ")[2] or line for line in bad.differences] == [
        "packets: expected 1, got 2",
        "octets: expected 40, got 80",
        "protocol 58 2001:db8::1:0 > 2001:db8:ffff::2:0, type 128 code 0: "
        "exported with 1 packets, 48 octets, not expected",
        "ledger, not_ip: expected 1 (frame 2), got 2",
        "2 frames were sent, 5 seen",
    ]
    assert str(cut_off) == f"{file}: 1 frames sent, 1 flows compared, 0 differences; only the first 1 packets"


def test_nothing_to_replay(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "text").write_text("text", encoding="ascii")
    assert main([str(tmp_path)]) == 2
    assert main([str(tmp_path / "absent")]) == 2
    assert capsys.readouterr().err.splitlines() == [
        f"replay: no pcap or pcapng file in {tmp_path}",
        f"replay: {tmp_path / 'absent'}: no such file or folder",
    ]
