"""Exactly known traffic: runs lab/generator/netobs-traffic and says, by itself, which Flow Records must come of it."""

from __future__ import annotations

import functools
import json
import os
import shutil
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from lab.namespaces import Lab, LabError, Link, command, stop
from netobs.flow import records

REPOSITORY = Path(__file__).parents[1]
OTHER_HOST = "02:00:00:00:00:fe"  # nobody's address: the receiving kernel drops these frames early and answers nothing
RUN_TIMEOUT_S = 300.0

ETHERTYPES = {False: 0x0800, True: 0x86DD}
PROTOCOLS = {("tcp", False): 6, ("tcp", True): 6, ("udp", False): 17, ("udp", True): 17}
PROTOCOLS.update({("icmp", False): 1, ("icmp", True): 58})
L4_HEADER_OCTETS = {"tcp": 20, "udp": 8, "icmp": 8}
ETHERNET_HEADER_BYTES = 14
VLAN_TAG_BYTES = 4

if TYPE_CHECKING:  # numpy 1.20 has no NDArray yet
    Column = npt.NDArray[np.uint64]


@functools.cache
def generator() -> Path:
    """The generator's program, built when it is older than its source. ``LabError`` with the compiler's words."""
    compiler = next((name for name in ("gcc", "clang", "cc") if shutil.which(name)), "gcc")
    build = REPOSITORY / "build"
    command(["make", "-s", "-C", str(REPOSITORY / "lab" / "generator"), f"BUILD={build}", f"CC={compiler}"])
    return build / "netobs-traffic"


@dataclass(frozen=True)
class Sent:
    """What the kernel accepted. ``packets`` are frames; the other counts are of the wire, after segmentation.

    The egress hook of the sending interface has seen ``packets + retries`` frames.
    """

    packets: int
    wire_packets: int
    flows: int
    ip_octets: int
    frame_octets: int
    retries: int
    seconds: float
    packets_per_second: float


def _mix64(x: Column) -> Column:
    x = x + np.uint64(0x9E3779B97F4A7C15)
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))


@dataclass(frozen=True)
class Traffic:
    """A plan of traffic. The fields are the generator's options of the same name; lab/generator/plan.h defines them.

    ``size`` is one frame size in bytes or (least, greatest); None is 64, or what the headers need if that is more.
    ``gso`` above 0 sends TCP super-packets with that many octets of payload in a segment.
    """

    flows: int = 1
    packets: int = 0  # 0: one for each flow
    order: str = "round-robin"
    burst: int = 32
    size: int | tuple[int, int] | None = None
    protocol: str = "udp"
    ipv6: bool = False
    vlan: int | None = None
    qinq: int | None = None
    priority: int = 0
    tos: int = 0
    ttl: int = 64
    dst_port: int = 9
    tcp_flags: int = 0x10
    gso: int = 0
    flow_base: int = 0
    seed: int = 0
    src_mac: str | None = None
    dst_mac: str = OTHER_HOST

    def argv(self, interface: str, *, rate: float = 0, threads: int = 0, cpus: Sequence[int] = ()) -> list[str]:
        """The command line; ``rate`` in packets per second of all threads, 0 = full speed."""
        low, high = self._size_range()
        values: dict[str, object] = {"interface": interface, "flows": self.flows, "packets": self._packets()}
        values.update(order=self.order, burst=self.burst, size=f"{low}-{high}", protocol=self.protocol)
        values.update(priority=self.priority, tos=self.tos, ttl=self.ttl, dst_port=self.dst_port)
        values.update(tcp_flags=self.tcp_flags, flow_base=self.flow_base, seed=self.seed, dst_mac=self.dst_mac)
        optional: dict[str, object] = {
            "vlan": self.vlan,
            "qinq": self.qinq,
            "gso": self.gso or None,
            "src_mac": self.src_mac,
        }
        optional.update(rate=rate or None, threads=threads or None, cpu=",".join(map(str, cpus)) or None)
        values.update({key: value for key, value in optional.items() if value is not None})
        argv = [str(generator())]
        for key, value in values.items():
            argv += [f"--{key.replace('_', '-')}", str(value)]
        return argv + ["--ipv6"] * self.ipv6

    def send(self, lab: Lab, link: Link, **options: Any) -> Sent:
        """Send all of it out of ``link``, so that it arrives at the other end; ``options`` are those of ``argv``."""
        done = lab.run(link.ns, self.argv(link.name, **options), timeout=RUN_TIMEOUT_S)
        return Sent(**json.loads(done.stdout))

    def start(self, lab: Lab, link: Link, **options: Any) -> Running:
        """Start sending in the background."""
        process = lab.popen(
            link.ns, self.argv(link.name, **options), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        return Running(process)

    def expected(self, *, ifindex: int = 0, direction: int = 0, src_mac: str | None = None) -> records.Records:
        """The Flow Records that this traffic must give, one per flow, in order of flow number.

        Shape ``(flows that get a packet,)``, dtype ``records.RECORD``; the times are 0. ``src_mac`` is the sending
        interface's address, needed when the plan has none. Counts are of the wire: segments, not super-packets.
        """
        flow, size = self._flow_and_size()
        wire_packets, octets, least, greatest = self._wire(size)
        numbers, index = np.unique(flow, return_inverse=True)
        rows = records.empty(len(numbers))
        self._fill_key(rows, numbers + np.uint64(self.flow_base), ifindex, direction)
        rows["packets"] = np.bincount(index, weights=wire_packets).astype(np.uint64)
        rows["octets"] = np.bincount(index, weights=octets).astype(np.uint64)
        rows["min_ip_length"] = 0xFFFF
        np.minimum.at(rows["min_ip_length"], index, least.astype(np.uint16))
        np.maximum.at(rows["max_ip_length"], index, greatest.astype(np.uint16))
        rows["tcp_flags"] = self.tcp_flags if self.protocol == "tcp" else 0
        rows["tos"] = self.tos
        rows["min_ttl"] = rows["max_ttl"] = self.ttl
        rows["dot1q_priority"] = self.priority if self.vlan is not None else 0
        rows["src_mac"] = _mac(self.src_mac or src_mac or "00:00:00:00:00:00")
        rows["dst_mac"] = _mac(self.dst_mac)
        return rows

    def _packets(self) -> int:
        return self.packets or self.flows

    def _ip_offset(self) -> int:
        return ETHERNET_HEADER_BYTES + VLAN_TAG_BYTES * ((self.vlan is not None) + (self.qinq is not None))

    def _header_octets(self) -> int:
        return (40 if self.ipv6 else 20) + L4_HEADER_OCTETS[self.protocol]

    def _size_range(self) -> tuple[int, int]:
        if self.size is None:
            least = max(64, self._ip_offset() + self._header_octets())
            return least, least
        return self.size if isinstance(self.size, tuple) else (self.size, self.size)

    def _draw(self, stream: int, packet: Column) -> Column:
        offset = _mix64(np.array([self.seed * 2 + stream], dtype=np.uint64))
        return _mix64(packet + offset)

    def _flow_and_size(self) -> tuple[Column, Column]:
        packet = np.arange(self._packets(), dtype=np.uint64)
        flows = np.uint64(self.flows)
        if self.order == "random":
            flow = self._draw(0, packet) % flows
        elif self.order == "burst":
            flow = packet // np.uint64(self.burst) % flows
        else:
            flow = packet % flows
        low, high = self._size_range()
        return flow, np.uint64(low) + self._draw(1, packet) % np.uint64(high - low + 1)

    def _wire(self, size: Column) -> tuple[Column, Column, Column, Column]:
        """Of each frame: packets and IP octets on the wire, the least and the greatest IP length among them."""
        headers = np.uint64(self._header_octets())
        payload = size - np.uint64(self._ip_offset()) - headers
        segment = np.uint64(self.gso or 0xFFFF)
        packets = np.maximum((payload + segment - np.uint64(1)) // segment, np.uint64(1))
        last = payload - (packets - np.uint64(1)) * segment
        return packets, packets * headers + payload, headers + last, headers + np.minimum(payload, segment)

    def _fill_key(self, rows: records.Records, flow: Column, ifindex: int, direction: int) -> None:
        server = ((flow >> np.uint64(16)) + np.uint64(1)) & np.uint64(0xFFFF)
        if self.ipv6:
            rows["src_addr"] = _address("20010db8000100000000000000000000", flow)
            rows["dst_addr"] = _address("20010db8000200000000000000000000", server)
        else:
            rows["src_addr"] = _address("00000000000000000000ffffc6120000", flow & np.uint64(0xFFFF))
            rows["dst_addr"] = _address("00000000000000000000ffffc6130000", server)
        if self.protocol == "icmp":
            rows["dst_port"] = (128 if self.ipv6 else 8) << 8
        else:
            rows["src_port"] = np.uint64(1024) + flow % np.uint64(64512)
            rows["dst_port"] = self.dst_port
        rows["protocol"] = PROTOCOLS[self.protocol, self.ipv6]
        rows["ethertype"] = ETHERTYPES[self.ipv6]
        rows["vlan_id"] = self.vlan or 0
        rows["ifindex"] = ifindex
        rows["direction"] = direction


class Running:
    """A generator in the background."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self.process = process

    def wait(self, timeout: float = RUN_TIMEOUT_S) -> Sent:
        """Let it finish; what it sent."""
        output, error = self.process.communicate(timeout=timeout)
        if self.process.returncode:
            raise LabError(f"netobs-traffic: exit {self.process.returncode}: {error.strip()}")
        return Sent(**json.loads(output))

    def stop(self) -> Sent:
        """End it at once (it finishes the batch that it sends); what it sent."""
        stop(self.process)
        return self.wait()


def cpus() -> list[int]:
    """The CPUs that this process may use."""
    return sorted(os.sched_getaffinity(0))


def _mac(text: str) -> npt.NDArray[np.uint8]:
    return np.frombuffer(bytes.fromhex(text.replace(":", "")), dtype=np.uint8)


def _address(base: str, number: Column) -> npt.NDArray[np.uint8]:
    """Addresses (shape ``(n, 16)``): the 16 bytes ``base`` with ``number`` added to the last four."""
    prefix = bytes.fromhex(base)
    addresses = np.empty((len(number), 16), dtype=np.uint8)
    addresses[:, :12] = np.frombuffer(prefix[:12], dtype=np.uint8)
    low = (number + np.uint64(int.from_bytes(prefix[12:], "big"))).astype(">u4")
    addresses[:, 12:] = low.view(np.uint8).reshape(-1, 4)
    return addresses
