"""The decoder of IPFIX, NetFlow v9 and v5: Messages to dicts keyed by Information Element names.

For ``netobs listen`` and for tests.
It accepts whatever a peer sends: it decodes the Message, or raises an error that names the wrong octet and holds the
readable part. A Message may cost at most ``MAX_STEPS`` of work; the unread rest is counted.
"""

from __future__ import annotations

from collections.abc import Hashable

from netobs.base.errors import DecodeError
from netobs.base.ipfix import IPFIX_VERSION, MESSAGE_HEADER
from netobs.base.words import PROTOCOLS
from netobs.collector.decode_domain import Domains
from netobs.collector.decode_message import Decoded, DecodeStats, Message
from netobs.collector.decode_netflow import NetflowHeader, netflow5_header, netflow9_header, read_netflow5
from netobs.collector.decode_times import add_times
from netobs.collector.received_templates import IPFIX_KINDS, NETFLOW9_KINDS
from netobs.collector.work import MAX_STEPS, MESSAGE_STEPS, Damaged, Exhausted, Malformed, Notes
from netobs.encode.layout import big_endian
from netobs.encode.layout_netflow import NETFLOW5_VERSION, NETFLOW9_HEADER, NETFLOW9_VERSION

__all__ = ["Damaged", "DecodeStats", "Decoded", "Decoder", "message_length"]

_PROTOCOLS = {NETFLOW9_VERSION: PROTOCOLS["netflow9"], NETFLOW5_VERSION: PROTOCOLS["netflow5"]}
_HEADER = big_endian(MESSAGE_HEADER)
_MS_PER_S = 1_000
_MAX_BOOT_STEP_MS = 60 * _MS_PER_S
_UPTIME_WRAP_MS = 1 << 32


class Decoder:
    """Decodes the Messages of any number of exporters; keeps Templates and Sequence Numbers for each.

    ``steps``: the work so far. ``max_steps``: the most work for one Message.
    """

    def __init__(self, max_steps: int = MAX_STEPS) -> None:
        self._max_steps = max_steps
        self.stats = DecodeStats()
        self.domains = Domains()
        self.steps = 0

    def forget(self, exporter: Hashable) -> None:
        """End the Transport Sessions of ``exporter``: its Templates are no longer valid."""
        self.domains.forget(exporter)

    def decode(self, message: bytes, exporter: Hashable = None) -> Decoded:
        """The records of one Message. Octets after its end in ``message`` are not read.

        Raises Damaged, a DecodeError that names the wrong octet and holds the readable part.
        """
        version = int.from_bytes(message[:2], "big")
        read = {NETFLOW9_VERSION: self._netflow9, NETFLOW5_VERSION: self._netflow5}.get(version, self._ipfix)
        try:
            done = read(message, exporter)
        except Malformed as error:
            self.stats.malformed += 1
            self.steps += MESSAGE_STEPS
            raise _damaged(version, error, None) from error
        self.steps += MESSAGE_STEPS + self._max_steps - done.work.left
        self.stats.flows += len(done.decoded.flows)
        self.stats.options += len(done.decoded.options)
        if done.problem is not None:
            self.stats.malformed += 1
            raise _damaged(version, done.problem, done.decoded) from done.problem
        self.stats.messages += 1
        return done.decoded

    def length(self, data: bytes) -> int:
        """As ``message_length``; counts data that are not a Message."""
        try:
            return message_length(data)
        except DecodeError:
            self.stats.malformed += 1
            raise

    def _ipfix(self, raw: bytes, exporter: Hashable) -> Message:
        length, export_time_s, sequence, observation_domain = _header(raw)
        domain = self.domains.get((exporter, IPFIX_VERSION, observation_domain))
        decoded = Decoded(export_time_s, sequence, observation_domain, [], [], [], Notes())
        message, room = Message(raw[:length], domain, decoded, self.stats, self._max_steps), domain.room
        message.check_sequence()
        message.read_sets(MESSAGE_HEADER.itemsize, IPFIX_KINDS)
        self.domains.account(domain, room)
        if length > len(raw):
            message.fail(Malformed(2, f"length {length}, but {len(raw)} bytes came"))
        message.surplus(len(raw) - length, "after the end of the Message that its length says")
        message.advance_sequence(message.data_records)
        return message

    def _netflow9(self, raw: bytes, exporter: Hashable) -> Message:
        header = netflow9_header(raw)
        message = self._netflow(raw, exporter, header, NETFLOW9_VERSION)
        room = message.domain.room
        message.read_sets(NETFLOW9_HEADER.itemsize, NETFLOW9_KINDS)
        self.domains.account(message.domain, room)
        message.advance_sequence(1)
        if message.data_records is not None and header.records != message.data_records + message.templates:
            records = message.data_records + message.templates
            message.notes.add("count", f"count {header.records}, but there are {records} records and templates")
        return message

    def _netflow5(self, raw: bytes, exporter: Hashable) -> Message:
        header = netflow5_header(raw)
        message = self._netflow(raw, exporter, header, NETFLOW5_VERSION)
        try:
            message.surplus(read_netflow5(raw, header, message), "after the records that the count says")
        except Malformed as error:
            message.fail(error)
        except Exhausted as error:
            message.unread(error.offset)
        add_times(message.decoded.flows, header.time_ms, header.boot_ms, message.notes)
        message.advance_sequence(header.records)
        return message

    def _netflow(self, raw: bytes, exporter: Hashable, header: NetflowHeader, version: int) -> Message:
        """The common checks of v9 and v5: the exporter, the Message's number, and a sysUptime that must not jump."""
        domain = self.domains.get((exporter, version, header.observation_domain))
        parts: tuple[list[dict[str, object]], list[dict[str, object]], list[int]] = ([], [], [])
        decoded = Decoded(
            header.time_ms // _MS_PER_S, header.sequence, header.observation_domain, *parts, Notes(), version
        )
        step_ms = (header.boot_ms - (header.boot_ms if domain.boot_ms is None else domain.boot_ms)) % _UPTIME_WRAP_MS
        step_ms = min(step_ms, _UPTIME_WRAP_MS - step_ms)
        if step_ms > _MAX_BOOT_STEP_MS:
            text = f"sysUptime and the time of day moved {step_ms // _MS_PER_S} s apart: a restart, or a clock was set"
            decoded.notes.add("uptime", text)
        domain.boot_ms = header.boot_ms
        message = Message(raw, domain, decoded, self.stats, self._max_steps)
        message.init_ms = header.boot_ms
        message.check_sequence()
        return message


def _damaged(version: int, error: Malformed, decoded: Decoded | None) -> Damaged:
    protocol = _PROTOCOLS.get(version, PROTOCOLS["ipfix"])
    return Damaged(f"malformed {protocol} Message: octet {error.offset}: {error}", decoded)


def message_length(data: bytes) -> int:
    """The length of the Message that starts with ``data`` (at least its header), for framing on TCP.

    Raises DecodeError if it is not an IPFIX Message.
    """
    try:
        return _header(data)[0]
    except Malformed as error:
        raise DecodeError(f"not an IPFIX Message: octet {error.offset}: {error}") from error


def _header(data: bytes) -> tuple[int, int, int, int]:
    """Length, Export Time, Sequence Number and Observation Domain of the Message Header at the start of ``data``."""
    if len(data) < _HEADER.size:
        raise Malformed(len(data), f"a Message Header has {_HEADER.size} bytes")
    version, length, export_time_s, sequence, observation_domain = _HEADER.unpack_from(data)
    if version != IPFIX_VERSION:
        raise Malformed(0, f"version {version}, expected {IPFIX_VERSION} (IPFIX)")
    if length < _HEADER.size:
        raise Malformed(2, f"length {length} is less than that of the Message Header")
    return length, export_time_s, sequence, observation_domain
