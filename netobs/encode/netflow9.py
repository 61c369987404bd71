"""NetFlow v9 Messages (RFC 3954) from Flow Records: the templates of IPFIX, as far as v9 has the elements."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple, TypeVar

import numpy as np

from netobs.base.errors import TemplateError
from netobs.base.ipfix import MAX_MESSAGE_BYTES, SET_HEADER
from netobs.encode.announce import AnnouncingEncoder, SetBody
from netobs.encode.columns import COLUMNS, ETHERTYPES, Column, Values, sampled
from netobs.encode.data_set import DataSet, check_size, message_block
from netobs.encode.layout import VARIABLE_LENGTH, big_endian
from netobs.encode.layout_netflow import (
    MAX_ELEMENT_ID,
    NETFLOW9_DATA_HEADER,
    NETFLOW9_HEADER,
    NETFLOW9_VERSION,
    OPTIONS_TEMPLATE_FLOWSET_ID,
    TEMPLATE_FLOWSET_ID,
)
from netobs.encode.options.choice import NO_OPTIONS, OptionsChoice
from netobs.encode.options.table import options_templates
from netobs.encode.options.wire import OptionsTemplate
from netobs.encode.registry import by_name
from netobs.encode.template.field import Field
from netobs.encode.template.template import Template
from netobs.encode.uptime import MAX_U32, Uptime
from netobs.flow.metrics import IPV6
from netobs.flow.records import FlowBatch, MessageBlock

if TYPE_CHECKING:
    import numpy.typing as npt

_Size = TypeVar("_Size", int, "npt.NDArray[np.int64]")

_ALIGN_BYTES = 4
_MESSAGE, _SET = big_endian(NETFLOW9_HEADER), big_endian(SET_HEADER)
_TIMES = {"flowStart": "flowStartSysUpTime", "flowEnd": "flowEndSysUpTime"}
_ICMP = {f"icmp{what}IPv{version}": "icmpTypeCodeIPv4" for what in ("TypeCode", "Type", "Code") for version in (4, 6)}
"""NetFlow v9 has one ICMP_TYPE (32, RFC 3954, section 8) for both, which collectors look for in IPv6 flows too."""
_OCTETS = {"tcpControlBits": 1, "minimumIpTotalLength": 2, "maximumIpTotalLength": 2}
"""The lengths that RFC 3954 and collectors expect, if IPFIX has a longer canonical length."""


class Header(NamedTuple):
    """A session's fields of the header. ``sequence``: Messages of any kind sent before this one.

    ``clock_offset_ns``: CLOCK_REALTIME minus CLOCK_MONOTONIC.
    """

    export_time_s: int
    sequence: int
    observation_domain: int
    clock_offset_ns: int = 0

    def advance(self, records: int, messages: int = 0) -> Header:
        """The header after ``messages`` more Messages (the sequence is modulo 2**32)."""
        return self._replace(sequence=(self.sequence + messages) & MAX_U32)


def netflow9_template(template: Template) -> Template:
    """``template`` as NetFlow v9 has it: times as sysUptime, without the elements that only IPFIX has.

    It leaves out enterprise elements, elements above 127 and those of variable length. Raises TemplateError if no
    useful element is left.
    """
    fields: dict[str, Field] = {}
    for field in template.fields:
        name = netflow9_name(field)
        element = by_name(name) if name != field.element.name else field.element
        if element is None or element.enterprise or element.id > MAX_ELEMENT_ID or field.octets == VARIABLE_LENGTH:
            continue
        octets = element.octets if element is not field.element else field.octets
        fields[name] = Field(element, _OCTETS.get(name, octets))
    found = Template(template.family, tuple(fields.values()), template.source)
    if found.dtype.itemsize < _ALIGN_BYTES:  # shorter ones could not be told from the padding
        raise TemplateError(
            f"{template.source or 'template'}: the template has almost no element of NetFlow v9",
            f"use elements with an id of at most {MAX_ELEMENT_ID}, at least {_ALIGN_BYTES} octets of them",
        )
    return found


def netflow9_name(field: Field) -> str:
    """The element that replaces ``field``: flowEndSysUpTime for flowEndMilliseconds, but flowEndReason unchanged."""
    name = _ICMP.get(field.element.name, field.element.name)
    if not field.element.type.startswith("dateTime"):
        return name
    return next((uptime for prefix, uptime in _TIMES.items() if name.startswith(prefix)), name)


class Encoder(AnnouncingEncoder):
    """Builds Messages with one set of Templates, which ``netflow9_template`` adapts. Without state.

    ``boot_ns``: start of the exporter, CLOCK_MONOTONIC. ``sampling``: one packet in N is measured. Raises
    TemplateError if a Template is unusable.
    """

    template_set_id = TEMPLATE_FLOWSET_ID
    options_template_set_id = OPTIONS_TEMPLATE_FLOWSET_ID
    header_bytes = NETFLOW9_HEADER.itemsize
    align_bytes = _ALIGN_BYTES

    def __init__(
        self, templates: Sequence[Template], boot_ns: int, options: OptionsChoice = NO_OPTIONS, sampling: int = 1
    ) -> None:
        self._uptime = Uptime(boot_ns)
        adapted = [netflow9_template(template) for template in templates]
        columns = sampled({**self._uptime.columns(), **_COLUMNS}, sampling)
        super().__init__(adapted, columns, options_templates(options, netflow9=True))
        self.check(MAX_MESSAGE_BYTES)

    def check(self, max_message_size: int) -> None:
        """Raise TemplateError if a Template or one of its Data Records is too large for ``max_message_size`` bytes."""
        most = min(max_message_size, MAX_MESSAGE_BYTES)
        for template in self.templates:
            for part in (_padded(template.dtype.itemsize), len(template.record)):
                check_size(template, NETFLOW9_DATA_HEADER.itemsize + part, most)

    def message(self, header: Header, sets: Sequence[SetBody]) -> bytes:
        """A Message with ``sets``, each padded to 32 bits."""
        parts = []
        for each in sets:
            padded = each.body.ljust(_padded(len(each.body)), b"\0")
            parts += [_SET.pack(each.set_id, _SET.size + len(padded)), padded]
        records = sum(each.records + each.templates for each in sets)
        export_time_s, uptime_ms = self._uptime.header(header.export_time_s, header.clock_offset_ns)
        head = (NETFLOW9_VERSION, records, uptime_ms, export_time_s, header.sequence, header.observation_domain)
        return _MESSAGE.pack(*head) + b"".join(parts)

    def options_record(self, template: OptionsTemplate) -> bytes:
        """The Options Template Record of ``template`` (RFC 3954, 6.1)."""
        return template.record_netflow9

    def data_messages(self, data_set: DataSet, header: Header, max_message_size: int) -> MessageBlock:
        """``data_set`` as Messages of at most ``max_message_size`` bytes, each with one Data FlowSet of whole records.

        The next header is ``header.advance(len(data_set), len(block))``. Raises TemplateError if not even one record
        fits.
        """
        template = data_set.template
        record_bytes, most = template.dtype.itemsize, min(max_message_size, MAX_MESSAGE_BYTES)
        check_size(template, NETFLOW9_DATA_HEADER.itemsize + _padded(record_bytes), most)
        room = (most - NETFLOW9_DATA_HEADER.itemsize) // _ALIGN_BYTES * _ALIGN_BYTES
        return message_block(
            data_set,
            room // record_bytes,
            lambda counts: self._heads(counts, _padded(counts * record_bytes), header, template.id),
            _ALIGN_BYTES,
        )

    def _heads(
        self, counts: npt.NDArray[np.int64], body_bytes: npt.NDArray[np.int64], header: Header, set_id: int
    ) -> npt.NDArray[np.void]:
        """The headers of Messages with ``counts`` records and ``body_bytes`` bytes each, shape ``(messages,)``."""
        heads = np.empty(len(counts), dtype=NETFLOW9_DATA_HEADER)
        heads["version"] = NETFLOW9_VERSION
        heads["count"] = counts
        heads["export_time"], heads["uptime_ms"] = self._uptime.header(header.export_time_s, header.clock_offset_ns)
        heads["sequence"] = (np.arange(len(counts), dtype=np.int64) + header.sequence) & MAX_U32
        heads["observation_domain"] = header.observation_domain
        heads["set_id"] = set_id
        heads["set_length"] = SET_HEADER.itemsize + body_bytes
        return heads


def _icmp_type_code(batch: FlowBatch) -> Values:
    ipv4, ipv6 = (COLUMNS[name].values(batch) for name in ("icmpTypeCodeIPv4", "icmpTypeCodeIPv6"))
    return np.where(batch.records["ethertype"] == ETHERTYPES[IPV6], ipv6, ipv4)


_COLUMNS = {"icmpTypeCodeIPv4": Column(_icmp_type_code)}


def _padded(body_bytes: _Size) -> _Size:
    """A multiple of 32 bits; the padding is part of the length of a FlowSet (RFC 3954, section 5.3)."""
    return body_bytes + -body_bytes % _ALIGN_BYTES
