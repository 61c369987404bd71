"""The packet capture agent's programs and their maps: loads, sets, and reads them. Attaching is done elsewhere."""

from __future__ import annotations

import contextlib
import ctypes
import errno
import ipaddress
import os
from collections.abc import Mapping
from ctypes import byref, c_uint32, c_uint64
from dataclasses import dataclass

import numpy as np

from netobs.base.errors import CaptureError
from netobs.kernel import host, libbpf, requirements
from netobs.kernel.object import OBJECT, BpfObject
from netobs.pcap.tap.layout import COPY_SLOTS, COUNTERS, FILTER_SLOTS, LEAST_SNAPLEN, LOSS, PEER, SNAPLEN, STATE

INTERRUPTING = (6, 18)  # a filter hands its result to the copier in memory of the CPU (see bpf/netobs.bpf.c)
WAYS = ("ingress", "egress", "l3_ingress", "l3_egress")
"""Parts of the programs' names, in the order of their slots."""


@dataclass(frozen=True)
class PacketCount:
    """Packets since the programs were loaded. The sum of the three is the number that the filters selected."""

    copied: int
    """In the rings, read or not."""
    lost: int
    """Did not fit there."""
    own: int
    """Of the agent's own streams: left out."""


class PacketPrograms:
    """``load`` -> programs to attach (``program_fd``), filters to set, counters to read -> ``close``."""

    def __init__(self) -> None:
        self._cpus = libbpf.possible_cpus()
        self._held = contextlib.ExitStack()

    def load(self, wakeup_bytes: int) -> None:
        """Loads and verifies the programs; no filter is set. They wake the reader of the rings whenever a CPU has
        written ``wakeup_bytes``; to wake it for each packet would cost each about 3 microseconds.

        :raises CaptureError: the kernel refused them, or lets them interrupt each other.
        """
        if host.is_realtime() and requirements.kernel_version(os.uname().release) >= INTERRUPTING:
            raise CaptureError(
                f"kernel {os.uname().release} has PREEMPT_RT: from Linux 6.18 on, packets interrupt each other there, "
                "and packet capture could give one to the wrong stream",
                "boot a kernel without PREEMPT_RT to capture packets; flows are measured in this one too",
            )
        obj = BpfObject(OBJECT.with_name("packets.bpf.o"), "the kernel has too little memory for its maps")
        self._held.callback(obj.close)
        self._object = obj
        obj.set_max_entries("packet_counters", self._cpus)
        obj.set_max_entries("packet_rings", self._cpus)
        obj.load()
        self._state = self._held.enter_context(obj.shared(".bss", STATE.itemsize, writable=True))
        self._counters = self._held.enter_context(obj.shared("packet_counters", self._cpus * COUNTERS.itemsize))
        self.set_snaplen(SNAPLEN)
        self._set_state("wakeup_bytes", wakeup_bytes)
        for slot, way in zip(COPY_SLOTS, WAYS):
            libbpf.update_u32(self.map_fd("packet_programs"), slot, obj.program_fd(f"packets_copy_{way}"))

    def program_fd(self, name: str) -> int:
        """File descriptor of a program; it belongs to the object."""
        return self._object.program_fd(name)

    def map_fd(self, name: str) -> int:
        """File descriptor of a map; it belongs to the object."""
        return self._object.map_fd(name)

    def set_filters(self, programs: Mapping[int, int]) -> None:
        """Puts programs (slot: file descriptor) into their slots, where each takes effect at once."""
        for slot, fd in programs.items():
            libbpf.update_u32(self.map_fd("packet_programs"), slot, fd)

    def clear_filters(self) -> None:
        """Empties all slots: no packet is selected any more."""
        self.set_filters(dict.fromkeys(FILTER_SLOTS, self.program_fd("packets_none")))

    def _set_state(self, field: str, value: int) -> None:
        np.frombuffer(self._state, dtype=STATE, count=1)[field] = value

    def set_snaplen(self, octets: int) -> None:
        """Most octets of a packet to copy, from 16 to 262,144; other values are clamped."""
        self._set_state("snaplen", min(max(octets, LEAST_SNAPLEN), SNAPLEN))

    def set_own_port(self, port: int) -> None:
        """The local TCP port of the agent's own streams; 0 = it has none."""
        self._set_state("own_port", port)

    def add_own_stream(self, address: str, port: int) -> None:
        """Packets of the stream with ``address`` (IPv4 or IPv6) and ``port`` at its far end are not copied.

        :raises OSError: there are too many.
        """
        key, one = _peer(address, port), c_uint32(1)
        result = libbpf.library().bpf_map_update_elem(self.map_fd("own_streams"), key, byref(one), 0)
        libbpf.checked(result, "own stream")

    def remove_own_stream(self, address: str, port: int) -> None:
        """No error if it is unknown."""
        result = libbpf.library().bpf_map_delete_elem(self.map_fd("own_streams"), _peer(address, port))
        libbpf.checked(0 if result == -errno.ENOENT else result, "own stream")

    def count(self) -> PacketCount:
        """The counters now, summed over the CPUs."""
        rows = np.frombuffer(self._counters, dtype=COUNTERS, count=self._cpus)
        return PacketCount(*(int(rows[name].sum()) for name in ("copied", "lost", "own")))

    def losses(self) -> dict[tuple[int, int], int]:
        """Lost packets by (filters that selected them, interface index)."""
        fd, lib = self.map_fd("packet_losses"), libbpf.library()
        found: dict[tuple[int, int], int] = {}
        key, following, packets = None, np.zeros(1, dtype=LOSS), c_uint64()
        while lib.bpf_map_get_next_key(fd, key, following.ctypes.data) == 0:
            key = following.ctypes.data
            if lib.bpf_map_lookup_elem(fd, key, byref(packets)) == 0:
                found[int(following["filters"][0]), int(following["ifindex"][0])] = packets.value
        return found

    def clear_losses(self) -> None:
        """Resets ``losses``. No filter may be set, and no program may run."""
        fd, lib = self.map_fd("packet_losses"), libbpf.library()
        key = np.zeros(1, dtype=LOSS)
        while lib.bpf_map_get_next_key(fd, None, key.ctypes.data) == 0:
            libbpf.checked(lib.bpf_map_delete_elem(fd, key.ctypes.data), "map packet_losses")

    def close(self) -> None:
        """Frees the maps, and the programs that are not attached."""
        self._held.close()


def _peer(address: str, port: int) -> ctypes.Array[ctypes.c_char]:
    """The key of map ``own_streams``. A zone (fe80::1%eth0) is no part of what a packet carries."""
    ip = ipaddress.ip_address(address.partition("%")[0])
    packed = ip.packed if ip.version == 6 else bytes(10) + b"\xff\xff" + ip.packed
    key = np.zeros(1, dtype=PEER)
    key["address"], key["port"] = np.frombuffer(packed, dtype="u1"), port
    return ctypes.create_string_buffer(key.tobytes(), PEER.itemsize)
