"""The short way through the headers (bpf/common.bpf.h) gives what the general way (bpf/parse.bpf.h) gives.

A priority tag in the frame (802.1Q, VLAN id 0, priority 0) is in no field of a record, but it takes the frame off the
short way. So each frame is sent as it is and with the tag. With flow_table = "ringbuf" a record for each packet comes
back, in the order of the packets.
"""

from __future__ import annotations

import random
from collections.abc import Iterator

import numpy as np
import pytest

from lab import frames as f
from lab.prog_run import Observed, Programs
from netobs.flow.records import RECORD, Records
from tests.kernel import test_gso, test_parse_ipv4, test_parse_ipv6, test_parse_link
from tests.kernel.flows import TIMES, readable
from tests.kernel.test_fuzz import frame_of

pytestmark = pytest.mark.kernel

VLAN_TYPES = {tpid.to_bytes(2, "big") for tpid in (f.Q, f.AD, f.QINQ_OLD)}
TAG_BYTES = 4
ROUND = 20_000  # packets between two readings of the ring, which holds 149,000
RANDOM_FRAMES = 20_000


@pytest.fixture(scope="module")
def ring_only() -> Iterator[Programs]:
    with Programs(flow_table="ringbuf") as loaded:
        yield loaded


def tagged(frame: bytes) -> bytes:
    return frame[:12] + b"\x81\x00\x00\x00" + frame[12:]


def is_comparable(frame: bytes) -> bool:
    """Of frames with a tag, neither goes the short way, and one more tag may be one too many. Shorter frames than
    these a test run refuses."""
    least = {b"\x08\x00": 34, b"\x86\xdd": 54}.get(frame[12:14], 14)
    return frame[12:14] not in VLAN_TYPES and len(frame) >= least


def outcome(programs: Programs, frames: list[bytes]) -> Observed:
    run = programs.run()
    with programs.accounting() as observed:
        for frame in frames:
            run(frame)
    return observed[0]


def compare(programs: Programs, frames: list[bytes]) -> Records:
    """Checks that both ways agree on ``frames``; returns the records."""
    parts = []
    for begin in range(0, len(frames), ROUND):
        chunk = frames[begin : begin + ROUND]
        short, general = outcome(programs, chunk), outcome(programs, [tagged(frame) for frame in chunk])
        _check(chunk, short.records, general.records)
        for reason, (packets, octets) in general.reasons.items():
            assert short.reasons[reason] == (packets, octets - TAG_BYTES * packets), reason
        assert short.reasons.keys() == general.reasons.keys()
        parts.append(short.records)
    return np.concatenate(parts)


def _check(frames: list[bytes], short: Records, general: Records) -> None:
    assert len(short) == len(general), [f.hex() for f in frames[:3]]
    different = np.zeros(len(short), bool)
    for name in set(RECORD.names or ()) - set(TIMES):
        fields = (short[name] != general[name]).reshape(len(short), -1)
        different |= fields.any(axis=1)
    if different.any():  # for a message that people can read
        assert readable(short[different][:1]) == readable(general[different][:1])


def test_frames_of_the_other_tests(programs: Programs) -> None:
    """With each of the tables: one frame at a time, merged."""
    frames = [frame for frame in _known_frames() if is_comparable(frame)]
    assert len(frames) > 100
    for frame in frames:
        short, general = programs.observe(frame), programs.observe(tagged(frame))
        assert readable(short.records) == readable(general.records)
        assert short.reasons.keys() == general.reasons.keys()


def _known_frames() -> list[bytes]:
    frames = [frame for table in (test_parse_ipv4.FLOWS, test_parse_ipv6.FLOWS) for frame, _ in table.values()]
    for table in (test_parse_ipv4.MALFORMED, test_parse_ipv6.MALFORMED, test_parse_link.NOT_IP):
        frames += table.values()
    return [*frames, *(case.frame for case in test_gso.CASES.values())]


def random_plain(rng: random.Random) -> bytes:
    """TCP or UDP in IPv4 or IPv6, whatever it says besides; sometimes padded."""
    sport, dport, data = rng.randrange(65536), rng.randrange(65536), rng.randbytes(rng.randrange(64))
    protocol = rng.choice((f.TCP, f.UDP))
    payload = f.udp(data, sport=sport, dport=dport)
    if protocol == f.TCP:
        payload = f.tcp(rng.randrange(4096), data, sport=sport, dport=dport)
    if rng.random() < 0.5:
        packet = bytearray(f.ipv4(protocol, payload, tos=rng.randrange(256), ttl=rng.randrange(256)))
        packet[12:20] = rng.randbytes(8)
        return f.ethernet(f.IPV4, bytes(packet) + bytes(rng.choice((0, 18))))
    packet = bytearray(f.ipv6(protocol, payload, traffic_class=rng.randrange(256), hop_limit=rng.randrange(256)))
    packet[8:40] = rng.randbytes(32)
    return f.ethernet(f.IPV6, bytes(packet) + bytes(rng.choice((0, 3))))


def test_random_frames(ring_only: Programs) -> None:
    rng = random.Random(1912)
    frames: list[bytes] = []
    while len(frames) < RANDOM_FRAMES:
        frame = rng.choice((frame_of, random_plain))(rng)
        if is_comparable(frame):
            frames.append(frame)
    records = compare(ring_only, frames)
    plain = np.isin(records["protocol"], (f.TCP, f.UDP)) & (records["dst_port"] != 0)
    assert plain.sum() > RANDOM_FRAMES // 10  # enough went the short way
    assert (~plain).sum() > RANDOM_FRAMES // 10


PLAIN = {
    "udp": f.ethernet(f.IPV4, f.ipv4(f.UDP, f.udp(b"\xa5" * 14))),
    "tcp": f.ethernet(f.IPV4, f.ipv4(f.TCP, f.tcp(f.PSH, b"\x5a" * 3))),
    "udp over ipv6": f.ethernet(f.IPV6, f.ipv6(f.UDP, f.udp(b"\xa5" * 14))),
    "tcp over ipv6": f.ethernet(f.IPV6, f.ipv6(f.TCP, f.tcp(f.PSH, b"\x5a" * 3))),
}


@pytest.mark.parametrize("name", PLAIN)
def test_each_value_of_each_header_byte(ring_only: Programs, name: str) -> None:
    """Whatever one byte of a plain packet is: version, lengths, fragments, protocol, flags, addresses, payload."""
    frame = PLAIN[name]
    frames = [frame[:at] + bytes([value]) + frame[at + 1 :] for at in range(12, len(frame)) for value in range(256)]
    frames = [frame for frame in frames if is_comparable(frame)]
    records = compare(ring_only, frames)
    assert len(frames) > len(records) > len(frames) // 2


@pytest.mark.parametrize("name", PLAIN)
def test_each_length_of_frame_and_packet(ring_only: Programs, name: str) -> None:
    """Cut short, padded, and with each length field around the truth."""
    frame, at = (PLAIN[name], 18 if PLAIN[name][12] == 0x86 else 16)
    frames = []
    for size in range(len(frame) + 8):
        padded = (frame + bytes(8))[:size]
        frames += [padded[:at] + length.to_bytes(2, "big") + padded[at + 2 :] for length in range(90) if size > at + 1]
    frames = [frame for frame in frames if is_comparable(frame)]
    records = compare(ring_only, frames)
    assert len(frames) > len(records) > 100


@pytest.mark.parametrize("name", PLAIN)
def test_pairs_of_header_bytes(ring_only: Programs, name: str) -> None:
    """Two or three bytes at once, mostly of those that decide where the next header is."""
    frame, rng = PLAIN[name], random.Random(name)
    deciding = [12, 13, 14, 16, 17, 18, 19, 20, 21, 23]
    frames = []
    for _ in range(10_000):
        changed = bytearray(frame[: rng.choice((len(frame), rng.randrange(34, len(frame))))])
        for _ in range(rng.choice((2, 3))):
            place = rng.choice(deciding) if rng.random() < 0.8 else rng.randrange(12, len(changed))
            changed[place] = rng.choice((0, 1, 5, 6, 17, 0x20, 0x40, 0x45, 0x46, 0x60, 0xFF, rng.randrange(256)))
        if is_comparable(bytes(changed)):
            frames.append(bytes(changed))
    assert len(compare(ring_only, frames)) > 100
