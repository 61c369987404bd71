"""Capture, the first half of the Metering Process: packets of the chosen interfaces become Flow Records."""

from __future__ import annotations

import errno
import logging
from dataclasses import dataclass

from netobs.capture import libbpf
from netobs.capture.attach import Attachment, attach, has_tcx, method_for
from netobs.capture.interfaces import Interface, LinkMonitor
from netobs.capture.layout import SETTINGS
from netobs.capture.ledger import Ledger, LedgerReading
from netobs.capture.memory import MIB, check_memory
from netobs.capture.object import BpfObject
from netobs.capture.percpu_hash import PercpuHash
from netobs.capture.ring import RingBuffer
from netobs.config import CaptureConfig
from netobs.errors import CaptureError
from netobs.records import Records

log = logging.getLogger("netobs.capture")

RING_BYTES = 4 << 20  # 37,000 records: what a full table sheds in the time that an eviction takes
DIRECTIONS = {"ingress": ("ingress",), "egress": ("egress",), "both": ("ingress", "egress")}


@dataclass(frozen=True)
class RingReading:
    """Records of packets that the flow table did not take. ``table_full``: an eviction would make room."""

    records: Records
    table_full: bool


class Capture:
    """Loads the programs; attaches them to interfaces; takes flows out. ``ring.fd`` and ``links`` are for the loop."""

    def __init__(self, config: CaptureConfig) -> None:
        self._config = config
        self._selector = config.selector
        self._cpus = libbpf.possible_cpus()
        self._attachments: dict[int, list[Attachment]] = {}
        self._object: BpfObject | None = None
        self.method = ""
        self.names: dict[int, Interface] = {}
        self.ledger = Ledger(self._cpus)
        self.ring = RingBuffer(RING_BYTES)
        self.table = PercpuHash(config.max_flows, self._cpus)
        self.links = LinkMonitor()

    def kernel_bytes(self) -> int:
        """Memory that the maps take."""
        return self.table.kernel_bytes() + self.ring.kernel_bytes() + self.ledger.kernel_bytes(self._cpus)

    def load(self) -> None:
        """Loads and verifies the programs.

        :raises CaptureError: the host has too little memory, or the kernel refused them.
        """
        check_memory(self._config.max_flows, self.kernel_bytes())
        log.info("flow table %s: %.1f MiB of kernel memory", self._config.flow_table, self.kernel_bytes() / MIB)
        self._object = obj = BpfObject()
        for part in (self.ledger, self.ring, self.table):
            part.prepare(obj)
        settings = obj.initial(".rodata", SETTINGS)
        settings["sampling"] = self._config.sampling
        settings["precise_time"] = self._config.precise_time
        obj.load()
        for part in (self.ledger, self.ring, self.table):
            part.open(obj)
        probe = obj.program_fd("netobs_ingress")
        self.method = method_for(self._config.attach, lambda: has_tcx(probe))

    def wanted(self) -> list[Interface]:
        """The interfaces that the configuration selects, of those that the host has now."""
        return [interface for interface in self.links.interfaces() if self._selects(interface)]

    def _selects(self, interface: Interface) -> bool:
        if not self._selector.matches(interface.name):
            return False
        if not interface.is_measurable:
            log.debug("%s: left out, link type %d is not measured", interface.name, interface.arphrd)
            return False
        return True

    def attach(self) -> int:
        """Attaches to all wanted interfaces; returns how many are attached."""
        for interface in self.wanted():
            self.attach_to(interface)
        return len(self._attachments)

    def attach_to(self, interface: Interface) -> None:
        """Attaches to one interface, unless it is attached. A failure is logged and harms no other interface."""
        self.names[interface.index] = interface
        if interface.index in self._attachments:
            return
        assert self._object is not None
        layer = "" if interface.has_ethernet else "l3_"
        done: list[Attachment] = []
        try:
            for direction in DIRECTIONS[self._config.direction]:
                program = self._object.program_fd(f"netobs_{layer}{direction}")
                done.append(attach(interface, direction, program, self.method))
        except OSError as error:
            for attachment in done:
                attachment.detach()
            if error.errno != errno.ENODEV:
                log.error("%s: not measured: %s", interface.name, error.strerror)
            return
        self._attachments[interface.index] = done
        log.info("%s: attached by %s, %s", interface.name, self.method, self._config.direction)

    def follow_links(self) -> None:
        """Attaches to interfaces that came, forgets those that went: call when ``links`` is readable."""
        events = self.links.read()
        if events is None:
            log.warning("rtnetlink lost events: listing the interfaces anew")
            self._resynchronise()
            return
        for event in events:
            if event.gone:
                self._forget(event.interface)
            else:
                self._changed(event.interface)

    def _resynchronise(self) -> None:
        present = {interface.index: interface for interface in self.links.interfaces()}
        for index in set(self._attachments) - set(present):
            self._forget(self.names[index])
        for interface in present.values():
            self._changed(interface)

    def _changed(self, interface: Interface) -> None:
        attached = interface.index in self._attachments
        selected = self._selects(interface)
        if selected:
            self.attach_to(interface)
        elif attached:  # renamed to a name that is not selected
            self._detach(interface.index)
            log.info("%s: detached, no longer selected", interface.name)

    def _forget(self, interface: Interface) -> None:
        if interface.index in self._attachments:
            self._detach(interface.index)
            log.info("%s: gone", interface.name)
        self.names.pop(interface.index, None)

    def _detach(self, index: int) -> None:
        for attachment in self._attachments.pop(index):
            attachment.detach()

    def evict(self, now_ns: int) -> Records:
        """Takes all flows out of the table: rows as ``FlowTable.evict`` gives them."""
        return self.table.evict(now_ns)

    def read_ring(self) -> RingReading:
        """Takes what the ring buffer holds."""
        records = self.ring.consume()
        return RingReading(records, bool((records["errno"] == errno.E2BIG).any()))

    def read_ledger(self) -> LedgerReading:
        """What the programs saw and what is in no flow."""
        return self.ledger.read()

    @property
    def attached(self) -> list[Interface]:
        """The interfaces that are measured now."""
        return [self.names[index] for index in self._attachments]

    def detach(self) -> None:
        """Takes the programs off all interfaces. What they have counted can still be taken out."""
        for index in list(self._attachments):
            self._detach(index)

    def close(self) -> None:
        """Detaches, and frees the maps and programs."""
        self.detach()
        for part in (self.ledger, self.ring, self.table):
            part.close()
        self.links.close()
        if self._object is not None:
            self._object.close()
            self._object = None


def check_interfaces(config: CaptureConfig, present: list[Interface]) -> str:
    """A warning if nothing matches yet but may later, or an empty string.

    :raises CaptureError: nothing matches, and the configuration has names only: a mistake rather than a plan.
    """
    selector = config.selector
    if any(selector.matches(interface.name) and interface.is_measurable for interface in present):
        return ""
    what = f"capture.interfaces: nothing matches {', '.join(config.interfaces)}"
    if selector.has_patterns:
        return f"{what} now: waiting for such an interface to appear"
    raise CaptureError(what, f"the host has {', '.join(interface.name for interface in present)}")
