"""Who is on the hooks of an interface, in the order in which a packet meets them: XDP, TCX, filters of clsact
(net/core/dev.c: __netif_receive_skb_core, sch_handle_ingress, sch_handle_egress)."""

from __future__ import annotations

import contextlib
import errno
import socket
import struct
import sys
from collections.abc import Iterator
from typing import Any, NamedTuple

from netobs.base.errors import CaptureError
from netobs.doctor.links import Link
from netobs.kernel import hook_order, inventory, netlink
from netobs.kernel.attach import BPF_TCX, PACKETS_TC_HANDLE, TC_HANDLE
from netobs.kernel.object import PROGRAMS

FLOWS, PACKETS = "flows", "packets"
_NAME_LENGTH = 15  # of a program, in the kernel
_OURS = {
    **{name[:_NAME_LENGTH]: FLOWS for name in PROGRAMS},
    **{name.replace("netobs_", "packets_")[:_NAME_LENGTH]: PACKETS for name in PROGRAMS},
}
_HANDLES = {TC_HANDLE: FLOWS, PACKETS_TC_HANDLE: PACKETS}
_TCA_CHAIN, _TCA_OPTIONS, _TCA_BPF_NAME, _TCA_BPF_TAG, _TCA_BPF_ID = 11, 2, 7, 10, 11  # linux/rtnetlink.h, pkt_cls.h
_FLAGS = {"bpf": 9, "u32": 11, "flower": 22, "matchall": 3}
"""By kind of filter, the attribute with its flags."""
_IN_HARDWARE = 1 << 2  # TCA_CLS_FLAGS_IN_HW
_U32_IN_TABLE = 0xFFFFF  # of a handle: 0 is a table of such filters (TC_U32_HASH, TC_U32_NODE)


class Entry(NamedTuple):
    """A program or filter on a hook. ``hook``: xdp, tcx, clsact or ingress (the classic qdisc). ``kind``: bpf, or that
    of another filter; ``owner``: what keeps it there; ``number`` of the program, 0 if it is none; ``ours``: what for,
    "" if it is somebody else's; ``holder``: a process that has it open."""

    hook: str
    kind: str
    owner: str
    name: str
    number: int
    tag: str
    detail: str = ""
    ours: str = ""
    in_hardware: bool = False
    holder: str = ""

    def as_json(self) -> dict[str, Any]:
        """For ``--json``: null where it is not known."""
        return {name: value if value != "" else None for name, value in self._asdict().items()}

    def __str__(self) -> str:
        name = f'"{self.name}"' if self.name else self.kind
        number = f" ({self.number})" if self.number else ""
        detail = f" {self.detail}" if self.detail else ""
        return f"{self.hook}{detail} {name}{number}{', ours' if self.ours else ''}"


class Hooks:
    """Reads hooks. ``knows_programs``: whether this process may see names of programs and links (CAP_SYS_ADMIN);
    ``knows_tcx``: whether it may ask for the programs of a TCX hook (CAP_NET_ADMIN); ``has_tcx``: the kernel's, None if
    that is not known."""

    def __init__(self) -> None:
        self._programs: dict[int, inventory.Program | None] = {}
        self._links: set[tuple[int, int, int]] = set()
        self._qdiscs = _ingress_qdiscs()
        self.knows_programs = self.knows_tcx = True
        self.has_tcx: bool | None = None
        try:
            self._links = set(inventory.tcx_links())
        except OSError:
            self.knows_programs = False
        except CaptureError:  # there is no libbpf
            self.knows_programs = self.knows_tcx = False

    def qdisc(self, link: Link) -> str:
        """The kind of qdisc at the ingress of the interface: clsact, ingress, or "" if there is none."""
        return self._qdiscs.get(link.interface.index, "")

    def entries(self, link: Link, direction: str) -> list[Entry]:
        """What a packet of this direction meets, in this order."""
        index, found = link.interface.index, []
        if direction == "ingress":
            found += [self._entry("xdp", number, "link or netlink", mode) for mode, number in link.xdp.items()]
        for number in self._tcx(index, direction):
            owner = "link" if (number, index, BPF_TCX[direction]) in self._links else "program"
            found.append(self._entry("tcx", number, owner if self.knows_programs else ""))
        qdisc = self.qdisc(link)
        if qdisc == "clsact" or (qdisc and direction == "ingress"):
            found += [self._filter(qdisc, *each) for each in _filters(index, netlink.TC_H_CLSACT[direction])]
        return found

    def _tcx(self, index: int, direction: str) -> list[int]:
        if self.has_tcx is False or not self.knows_tcx:
            return []
        try:
            numbers = hook_order.tcx_programs(index, direction)
        except OSError as error:
            if error.errno == errno.EINVAL:
                self.has_tcx = False
            self.knows_tcx &= error.errno not in (errno.EPERM, errno.EACCES)
            return []
        self.has_tcx = True
        return numbers

    def _entry(self, hook: str, number: int, owner: str, detail: str = "") -> Entry:
        found = self._program(number)
        name, tag = (found.name, found.tag) if found is not None else ("", "")
        return Entry(hook, "bpf", owner, name, number, tag, detail, _OURS.get(name, "") if hook == "tcx" else "")

    def _program(self, number: int) -> inventory.Program | None:
        if self.knows_programs and number not in self._programs:
            with contextlib.suppress(OSError):
                self._programs[number] = inventory.program(number)
        return self._programs.get(number)

    def _filter(self, hook: str, kind: str, handle: int, priority: int, options: dict[int, bytes]) -> Entry:
        number = _program_of(kind, options)
        return filter_entry(hook, kind, handle, priority, options, self._program(number) if number else None)


def filter_entry(
    hook: str, kind: str, handle: int, priority: int, options: dict[int, bytes], program: inventory.Program | None
) -> Entry:
    """A filter. ``options``: the attributes in TCA_OPTIONS; ``program``: what it runs, as far as that is known."""
    number = _program_of(kind, options)
    name = program.name if program is not None else netlink.text(options.get(_TCA_BPF_NAME, b"")) if number else ""
    flags = int.from_bytes(options.get(_FLAGS.get(kind, 0), b""), sys.byteorder)
    return Entry(
        hook, kind, "filter", name, number, options.get(_TCA_BPF_TAG, b"").hex() if number else "",
        f"priority {priority} handle {handle:#x}", _HANDLES.get(handle, "") if kind == "bpf" else "",
        bool(flags & _IN_HARDWARE),
    )  # fmt: skip


def _program_of(kind: str, options: dict[int, bytes]) -> int:
    return int.from_bytes(options.get(_TCA_BPF_ID, b""), sys.byteorder) if kind == "bpf" else 0


def _ingress_qdiscs() -> dict[int, str]:
    """The kind of qdisc at the ingress of each interface that has one."""
    found = {}
    for kind, message in netlink.dump(netlink.RTM_GETQDISC, netlink.TCMSG.pack(socket.AF_UNSPEC, 0, 0, 0, 0)):
        _, index, _, parent, _ = netlink.TCMSG.unpack_from(message, netlink.HEADER.size)
        if (kind, parent) == (netlink.RTM_NEWQDISC, netlink.TC_H_INGRESS):
            attributes = netlink.attributes_of(message, netlink.HEADER.size + netlink.TCMSG.size)
            found[index] = netlink.text(attributes.get(netlink.TCA_KIND, b""))
    return found


def _filters(index: int, parent: int) -> Iterator[tuple[str, int, int, dict[int, bytes]]]:
    """(kind, handle, priority, options) of the filters of chain 0, in their order; a jump alone leads to others."""
    body = netlink.TCMSG.pack(socket.AF_UNSPEC, index, 0, parent, 0)
    with contextlib.suppress(OSError):  # the interface has gone
        for kind, message in netlink.dump(netlink.RTM_GETTFILTER, body):
            _, _, handle, _, info = netlink.TCMSG.unpack_from(message, netlink.HEADER.size)
            attributes = netlink.attributes_of(message, netlink.HEADER.size + netlink.TCMSG.size)
            chain = struct.unpack("=I", attributes[_TCA_CHAIN])[0] if _TCA_CHAIN in attributes else 0
            name = netlink.text(attributes.get(netlink.TCA_KIND, b""))
            is_table = name == "u32" and not handle & _U32_IN_TABLE
            if kind == netlink.RTM_NEWTFILTER and handle and not chain and not is_table:
                yield name, handle, info >> 16, netlink.attributes_of(attributes.get(_TCA_OPTIONS, b""))
