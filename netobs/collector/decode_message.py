"""One Message during its decoding: its Sets, their readable records, and the account of the rest."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple

from netobs.base.ipfix import FIRST_DATA_SET_ID, IPFIX_VERSION
from netobs.collector.decode_domain import Domain
from netobs.collector.decode_times import add_times, init_time
from netobs.collector.received import Layout, Record, sets
from netobs.collector.received_element import TYPE_OF_ELEMENT, learn_type
from netobs.collector.received_templates import Kind, learn
from netobs.collector.work import SET_STEPS, Exhausted, Malformed, Notes, Work
from netobs.encode.layout_netflow import NETFLOW9_VERSION

_MS_PER_S = 1_000
_LESS_PADDING_OCTETS = 4
_MAX_UNKNOWN = 4
"""The most unknown elements of one Template that are noted."""
_WHY = {
    "late": "the Message came late",
    "repeated": "the same Message again",
    "back": "the exporter began anew, or the Message came very late",
}


class Decoded(NamedTuple):
    """The content of one Message. ``flows``: Data Records of Templates; ``options``: those of Options Templates.

    ``options_template_ids``: for each of ``options`` the ID of its Options Template. ``notes``: everything odd.
    """

    export_time_s: int
    sequence: int
    observation_domain: int
    flows: list[Record]
    options: list[Record]
    options_template_ids: list[int]
    notes: Notes
    version: int = IPFIX_VERSION


@dataclass
class DecodeStats:
    """The decoder's counters. ``messages``: undamaged Messages; ``malformed``: the others.

    ``lost_records``: the sum of the gaps in Sequence Numbers; ``lost_messages``: the same for NetFlow v9, which
    numbers Messages. ``surplus_octets``: octets after the end of a Message in its datagram; ``unread_octets``: octets
    that were too much work.
    """

    messages: int = 0
    malformed: int = 0
    flows: int = 0
    options: int = 0
    sets_without_template: int = 0
    skipped_sets: int = 0
    sequence_errors: int = 0
    lost_records: int = 0
    lost_messages: int = 0
    surplus_octets: int = 0
    unread_octets: int = 0


class Message:
    """A Message that is being read; ``init_ms``: when sysUpTime was 0, in ms since 1970, if its header says so.

    ``data_records``: their number, None if unknown; ``templates``: the number of its Template Records. ``problem``: the
    first mistake in it.
    """

    def __init__(self, raw: bytes, domain: Domain, decoded: Decoded, stats: DecodeStats, max_steps: int) -> None:
        self.raw, self.domain, self.decoded, self.stats = raw, domain, decoded, stats
        self.work, self.notes = Work(max_steps), decoded.notes
        self.init_ms: int | None = None
        self.data_records: int | None = None
        self.templates = 0
        self.problem: Malformed | None = None
        self._verdict = ""
        self._described: list[Record] = []

    def check_sequence(self) -> None:
        """Check the Sequence Number, before the Sets are read."""
        expected, number = self.domain.sequence.next, self.decoded.sequence
        self._verdict, lost = self.domain.sequence.check(number)
        if self._verdict:
            self.stats.sequence_errors += 1
            self._lose(lost)
            unit = "Messages" if self.decoded.version == NETFLOW9_VERSION else "records"
            why = _WHY.get(self._verdict, f"{lost} {unit} lost")
            text = f"Sequence Number {number}, expected {expected}: {why}"
            self.notes.add(f"sequence-{self._verdict}", text)

    def advance_sequence(self, count: int | None) -> None:
        """After the Sets are read. ``count``: the numbered items of the Message; None if unknown."""
        self.domain.sequence.advance(self.decoded.sequence, count, self._verdict)
        if self._verdict == "late":
            self._lose(-(count or 0))

    def _lose(self, count: int) -> None:
        if self.decoded.version == NETFLOW9_VERSION:
            self.stats.lost_messages = max(0, self.stats.lost_messages + count)
        else:
            self.stats.lost_records = max(0, self.stats.lost_records + count)

    def fail(self, problem: Malformed) -> None:
        """Keep the first ``problem``. The number of Data Records is then unknown."""
        self.problem = self.problem or problem
        self.data_records = None

    def surplus(self, octets: int, text: str, kind: str = "surplus") -> None:
        """Count the octets after the end of the Message."""
        if octets > 0:
            self.stats.surplus_octets += octets
            self.notes.add(kind, f"{octets} octets {text}")

    def unread(self, begin: int) -> None:
        """Count the octets from ``begin`` on, which are too much work."""
        self.data_records = None
        self.stats.unread_octets += len(self.raw) - begin
        self.notes.add("unread", f"{len(self.raw) - begin} octets are not read: the Message is too much work")

    def read_sets(self, header_bytes: int, kinds: Mapping[int, Kind]) -> None:
        """Read the Sets. A Set with damage inside does not hide the Sets after it."""
        self.data_records, end = 0, header_bytes
        try:
            for set_id, start, body in sets(self.raw, header_bytes, self.decoded.version == NETFLOW9_VERSION):
                end = start + len(body)
                self.work.spend(SET_STEPS, start)
                try:
                    self._read_set(set_id, start, body, kinds.get(set_id))
                except Malformed as error:
                    self.fail(error)
            is_zero = not any(memoryview(self.raw)[end:])
            what = "of zeros after the last Set" if is_zero else "after the last Set"
            self.surplus(len(self.raw) - end, what, "fill" if is_zero else "surplus")
        except Malformed as error:
            self.fail(error)
        except Exhausted as error:
            self.unread(error.offset)
        if self.data_records is not None:
            self.data_records = len(self.decoded.flows) + len(self.decoded.options)
        for record in self._described:
            self.domain.version += learn_type(self.domain.types, record)

    def _read_set(self, set_id: int, start: int, body: bytes, kind: Kind | None) -> None:
        if kind is not None:
            self.templates += learn(self.domain, kind, body, start, self.work, self.notes)
        elif set_id < FIRST_DATA_SET_ID:  # reserved for future versions (RFC 7011, 3.3.2)
            self.stats.skipped_sets += 1
            self.notes.add("reserved-set", f"Set ID {set_id}, which no Set has")
        else:
            layout = self.domain.layout(set_id)
            if layout is None:
                self.stats.sets_without_template += 1
                self.data_records = None
                self.notes.add("no-template", f"data of Template {set_id}, which was not sent")
            else:
                self._read_data(layout, set_id, start, body)

    def _read_data(self, layout: Layout, set_id: int, start: int, body: bytes) -> None:
        self._compare(layout, set_id, len(body))
        if layout.prepare(self.domain.types, self.domain.version, self.work):
            for enterprise, number in layout.unknown[:_MAX_UNKNOWN]:
                self.notes.add("unknown-element", f"element {number} of enterprise {enterprise} is not known")
        into = self.decoded.options if layout.is_options else self.decoded.flows
        before = len(into)
        try:
            layout.read(body, start, self.work, into, self.notes)
        finally:
            if layout.is_options:
                self._read_options(set_id, before)
            if layout.has_times:
                init_ms = self.domain.init_ms if self.init_ms is None else self.init_ms
                add_times(into[before:], self.decoded.export_time_s * _MS_PER_S, init_ms, self.notes)

    def _compare(self, layout: Layout, set_id: int, octets: int) -> None:
        """A Set that has no record, or that fits the layout that its Template had before."""
        if octets < layout.least_octets:
            self.notes.add("no-record", f"a Set of Template {set_id} without a record")
        former = layout.former_octets
        if former and not layout.is_variable and octets % former < _LESS_PADDING_OCTETS <= octets % layout.least_octets:
            now = layout.least_octets
            self.notes.add("old-layout", f"data of Template {set_id} fit its {former} octets before, not its {now} now")

    def _read_options(self, set_id: int, before: int) -> None:
        """Use facts from options records. Descriptions of elements take effect with the next Message."""
        for record in self.decoded.options[before:]:
            self.decoded.options_template_ids.append(set_id)
            if TYPE_OF_ELEMENT in record:
                self._described.append(record)
            init_ms = init_time(record)
            if init_ms is not None:
                self.domain.init_ms = init_ms
