"""The tap: takes selected packets from the interfaces while there are users of them."""

from __future__ import annotations

import contextlib
import logging
import os
from collections import Counter
from collections.abc import Iterator, Mapping

from netobs.base import clock
from netobs.base.errors import CaptureError
from netobs.config.selector import InterfaceSelector
from netobs.kernel import kernel_clock
from netobs.kernel.attach import PACKETS_PLACE, FilterPlace
from netobs.kernel.grace import GracePeriod
from netobs.kernel.interfaces import Interface, LinkMonitor
from netobs.kernel.observation_points import DIRECTIONS, SLICE_NS, ObservationPoints
from netobs.kernel.placing import Purpose
from netobs.pcap.batch import PacketBatch
from netobs.pcap.filters.program import FilterProgram, check_together
from netobs.pcap.selection import LINK_ETHERNET, LINK_IP, Selection
from netobs.pcap.tap.filter_bits import MAX_SELECTIONS, FilterBits
from netobs.pcap.tap.layout import COPY_SLOTS, FILTER_SLOTS
from netobs.pcap.tap.programs import WAYS, PacketCount, PacketPrograms
from netobs.pcap.tap.rings import PacketRings

log = logging.getLogger("netobs.pcap")

PACKETS = Purpose(
    "packets_",
    say_refused=lambda name, why: log.error("packet capture: %s: not captured: %s", name, why),
    say_missed=lambda where, what: log.warning(
        "packet capture: %s was not captured for a while: somebody removed the %s", where, what
    ),
    label="packet capture: ",
    level=logging.DEBUG,  # at each first client
)


class Tap:
    """``load`` -> ``select`` and ``release``, ``read``, ``attach_some`` -> ``close``. Times are CLOCK_MONOTONIC.
    While nothing is selected, nothing is attached, and there are no rings."""

    def __init__(
        self,
        selector: InterfaceSelector,
        direction: str,
        bytes_per_cpu: int,
        attach: str = "auto",
        place: FilterPlace = PACKETS_PLACE,
    ) -> None:
        """``selector``, ``direction``, ``attach``: as in [capture]; ``bytes_per_cpu``: of a ring; ``place``: of clsact
        filters, which no other process may use."""
        self._directions = DIRECTIONS[direction]
        self._programs = PacketPrograms()
        self._rings = PacketRings(bytes_per_cpu)
        purpose = PACKETS._replace(place=place)
        self._points = ObservationPoints(selector, direction, attach, purpose, self._programs.program_fd)
        self._bits = FilterBits()
        self._selected: dict[int, Selection] = {}
        self._grace = GracePeriod()

    def load(self) -> None:
        """Loads the programs, and checks that everything needed later is available.

        :raises CaptureError: the kernel refused something.
        """
        self._programs.load(self._rings.wakeup_bytes)
        kernel_clock.follow()
        self._points.find_method()
        self._rings.open(self._programs.map_fd("packet_rings"))
        self._rings.release()

    @property
    def links(self) -> LinkMonitor:
        """For the loop, at any time: ``follow_links`` when it is readable."""
        return self._points.links

    def fileno(self) -> int:
        """For the loop, at any time: see ``PacketRings.fileno``."""
        return self._rings.fileno()

    @property
    def is_active(self) -> bool:
        """Whether anything is selected."""
        return bool(self._selected)

    @property
    def method(self) -> str:
        """How programs are attached: tcx or tc."""
        return self._points.method

    @property
    def backlog_bytes(self) -> int:
        """Bytes that the last ``read`` left in the rings because of its limit."""
        return self._rings.backlog_bytes

    def select(self, selection: Selection, now_ns: int) -> int:
        """From now on packets that ``selection`` selects come: the bit that they have in ``filters``. The first makes
        the rings and attaches to the first interfaces; see ``attach_some``.

        :raises CaptureError: there are 32 others already, they are too large together, or the kernel refused something.
            Nothing has changed then.
        """
        first = not self.is_active
        bit = self._bits.choose(selection)
        if bit is None:
            raise CaptureError(
                f"packet capture: {MAX_SELECTIONS} different filters are in use, which is the limit",
                "end one, or use an existing one",
            )
        chosen = {**self._selected, bit: selection}
        try:
            if first:
                self._rings.open(self._programs.map_fd("packet_rings"))
            check_together([*chosen.values()])
            self._put_filters(chosen, now_ns)
        except CaptureError:
            if first:
                self._stop()
            raise
        self._selected = chosen
        if first:
            self._start()
        return bit

    def _start(self) -> None:
        self._points.links.drop()  # what happened meanwhile is in the list that follows
        self._points.want_all()
        self.attach_some()

    def _put_filters(self, selections: Mapping[int, Selection], now_ns: int) -> None:
        """Makes programs for ``selections``, by bit, and replaces the present programs.

        :raises CaptureError: the kernel refused one; the former programs stay.
        """
        maps = self._programs.map_fd("packet_programs"), self._programs.map_fd("packet_matches")
        with contextlib.ExitStack() as loaded:
            programs = {}
            for filter_slot, copy_slot, link in self._slots():
                programs[filter_slot] = FilterProgram([*selections.items()], link, copy_slot, *maps).load()
                loaded.callback(os.close, programs[filter_slot])  # the slot keeps the program
            try:
                self._programs.set_filters(programs)
            except OSError as error:
                raise CaptureError(f"packet capture: the filters cannot be set: {error.strerror}") from None
        self._bits.put_in_force(dict(selections), now_ns)

    def _slots(self) -> Iterator[tuple[int, int, int]]:
        """(slot of the filter, slot of the copier, link) of each kind of packet that may come."""
        for filter_slot, copy_slot, way in zip(FILTER_SLOTS, COPY_SLOTS, WAYS):
            if way.endswith(self._directions):
                yield filter_slot, copy_slot, LINK_IP if way.startswith("l3_") else LINK_ETHERNET

    def release(self, bit: int, now_ns: int) -> None:
        """Ends this selection. Its bit may be reused when none of its packets can come any more. With the last
        selection, all unread packets are gone."""
        del self._selected[bit]
        if not self.is_active:
            self._stop()
            return
        try:
            self._put_filters(self._selected, now_ns)
        except CaptureError as error:  # the present programs select too much, and nobody gets it
            log.error("packet capture: an unused filter stays in force: %s", error)

    def _stop(self) -> None:
        self._programs.clear_filters()
        self._grace.wait()  # a program that had begun may still write
        self._rings.release()
        self._programs.clear_losses()
        self._bits.clear()
        self._points.want_none()
        self.attach_some()

    def attach_some(self) -> bool:
        """Attaches to, or detaches from, some of the interfaces that are due after the first ``select``, the last
        ``release``, ``follow_links`` and ``restore``. Whether more are due: then it is to be called again soon."""
        return self._points.work(clock.is_over_in(SLICE_NS))

    def read(self, max_bytes: int, now_ns: int) -> PacketBatch:
        """Takes packets out of the rings: see ``PacketRings.read``."""
        batch = self._rings.read(max_bytes)
        if not self.backlog_bytes:
            self._bits.all_read(now_ns)
        return batch

    def set_snaplen(self, octets: int) -> None:
        """Octets of a packet that are copied: the most that anybody wants, from 16 to 262,144."""
        self._programs.set_snaplen(octets)

    def set_own_port(self, port: int) -> None:
        """The port at which the agent listens: packets of its ``own_stream`` connections are never captured."""
        self._programs.set_own_port(port)

    def own_stream(self, address: str, port: int) -> None:
        """Packets to and from this address and port of a client are never captured: over a captured interface, each
        would cause another.

        :raises CaptureError: there are too many.
        """
        try:
            self._programs.add_own_stream(address, port)
        except OSError as error:
            raise CaptureError(f"packet capture: {address}, port {port}: {error.strerror}") from None

    def forget_stream(self, address: str, port: int) -> None:
        """The connection has ended."""
        self._programs.remove_own_stream(address, port)

    def losses(self, bit: int) -> Counter[int]:
        """Packets with this bit that the rings had no room for, by interface index; those of earlier selections that
        had the bit count, too. If more than 4,096 sets of filters and interfaces lose packets, only ``count`` has
        all."""
        lost: Counter[int] = Counter()
        for (filters, ifindex), packets in self._programs.losses().items():
            if filters >> bit & 1:
                lost[ifindex] += packets
        return lost

    def count(self) -> PacketCount:
        """Packets of all selections since ``load``."""
        return self._programs.count()

    def interfaces(self) -> list[Interface]:
        """The interfaces that are captured now."""
        return self._points.attached

    def known_interfaces(self) -> Mapping[int, Interface]:
        """By index: present and former captured interfaces, whose packets may still come. Not changed later."""
        return self._points.interface_names.by_index()

    def capturable(self) -> list[Interface]:
        """The interfaces that are, or would be, captured while anything is selected."""
        return self._points.wanted()

    def follow_links(self) -> None:
        """Notes interfaces that came, for ``attach_some``, and forgets those that went: call it when ``links`` is
        readable. While nothing is selected, what happens is of no interest."""
        if self.is_active:
            self._points.follow_links()
        else:
            self._points.links.drop()

    def restore(self) -> None:
        """Has ``attach_some`` attach again where somebody has removed a filter of ours."""
        if self.is_active:
            self._points.restore()

    def detach(self) -> None:
        """Takes the programs off all interfaces. What was copied can still be read."""
        self._points.detach()

    def close(self) -> None:
        """Detaches, and frees everything."""
        self.detach()
        self._points.close()
        self._rings.close()
        self._programs.close()
        self._grace.close()
