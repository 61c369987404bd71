"""From a Flow Record to Information Elements: each a column over many records.

The IANA registry defines the elements. If netobs has a choice, the function documents it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Callable, NamedTuple

import numpy as np

from netobs.base.ipfix import NTP_EPOCH_S
from netobs.encode import text
from netobs.encode.registry import InformationElement
from netobs.encode.template.template import Template
from netobs.flow.interface_names import Texts
from netobs.flow.metrics import IPV4, IPV6, METRICS, NO_SAMPLE, Element, Metric
from netobs.flow.records import FlowBatch, Records

if TYPE_CHECKING:
    import numpy.typing as npt

    Values = npt.NDArray[Any]
else:
    Values = np.ndarray

Fill = Callable[[FlowBatch], Values]

ETHERTYPES = {IPV4: 0x0800, IPV6: 0x86DD}

_ICMP, _TCP, _ICMPV6 = 1, 6, 58
_INGRESS, _EGRESS = 0, 1
_NS_PER_S, _NS_PER_MS, _NS_PER_US = 1_000_000_000, 1_000_000, 1_000
_MAX_U32 = 0xFFFFFFFF
_CHUNK_RECORDS = 2048
"""Records and rows of one chunk stay in a CPU's second-level cache while their fields are written one by one."""


class Column(NamedTuple):
    """How to fill an element.

    ``values(batch)`` has the shape ``(n,)`` for numbers and ``(n, octets)``, uint8, for addresses. For strings it has
    each record's index into ``texts(batch)``; ``most_octets``: longer strings are cut.
    ``least_octets``: the shortest reduced-size encoding that holds every value, 0 = only the canonical length.
    ``family``: the one address family in which the element has a meaning, "" = both. ``octets``: its one length, where
    the registry has none. ``group``: of what is measured only where a template or [insight] asks for it
    (``metrics.GROUPS``). ``needs``: one of ``LEVELS``, of which records have the value at all.
    """

    values: Fill
    least_octets: int = 0
    family: str = ""
    texts: Callable[[FlowBatch], Texts] | None = None
    most_octets: int = 0
    octets: int = 0
    group: str = ""
    needs: int = 0


ANY, TCP, RTT, HANDSHAKE = LEVELS = range(4)
"""Which records have a value: any; those of TCP; those with a sample of the round-trip time; those that have one of a
handshake, too. Each level has the values of those before it."""


def levels(records: Records) -> npt.NDArray[np.int8]:
    """The greatest of ``LEVELS`` of each record."""
    found: npt.NDArray[np.int8] = (records["protocol"] == _TCP).astype(np.int8)
    if "rtt_samples" in (records.dtype.names or ()):
        found += records["rtt_samples"] != 0
        found += records["handshake_rtt"] != NO_SAMPLE
    return found


def _measured(metric: Metric, element: Element) -> Column:
    """``element``, which says ``metric`` as it is."""

    def values(batch: FlowBatch) -> Values:
        found = batch.records[metric.name]
        if element.part is not None:
            found = found[:, element.part]
        if element.shift:
            found = found >> element.shift
        return found & element.mask if element.mask else found

    return Column(values, element.least_octets, element.family, octets=element.octets, group=metric.group)


def _field(name: str) -> Fill:
    return lambda batch: batch.records[name]


def _ipv4(name: str) -> Fill:
    return lambda batch: batch.records[name][:, 12:]


def _where_direction(name: str, direction: int) -> Fill:
    """The field ``name`` of the records of one direction, 0 (unknown, or no VLAN) in the others."""
    return lambda batch: batch.records[name] * (batch.records["direction"] == direction)


def _is_icmp(records: Records) -> Values:
    """The mask of the records that are ICMP or ICMPv6.

    Either IP version may carry either of them. The kernel ignores the other version's ICMP, but a flow shows it.
    """
    found: Values = (records["protocol"] == _ICMP) | (records["protocol"] == _ICMPV6)
    return found


def _source_port(batch: FlowBatch) -> Values:
    return batch.records["src_port"] * ~_is_icmp(batch.records)


def _icmp_type_code(batch: FlowBatch) -> Values:
    """type * 256 + code (uint16); 0 in the records of other protocols."""
    return batch.records["dst_port"] * _is_icmp(batch.records)


def _icmp_type(batch: FlowBatch) -> Values:
    return _icmp_type_code(batch) >> 8


def _icmp_code(batch: FlowBatch) -> Values:
    return _icmp_type_code(batch) & 0xFF


def _ip_version(batch: FlowBatch) -> Values:
    return np.where(batch.records["ethertype"] == ETHERTYPES[IPV6], np.uint8(6), np.uint8(4))


def _observation_point(batch: FlowBatch) -> Values:
    """Namespace, interface and direction as one number: netns * 2**33 + ifindex * 2 + direction."""
    netns, ifindex = (batch.records[name].astype(np.uint64) for name in ("netns", "ifindex"))
    points: Values = netns << np.uint64(33) | ifindex << np.uint64(1) | batch.records["direction"]
    return points


def _start_ns(batch: FlowBatch) -> Values:
    """Wall-clock start, ns (int64); never after the end, whatever the record says."""
    return batch.clock.to_realtime_ns(np.minimum(batch.records["first_ns"], batch.records["last_ns"]))


def _end_ns(batch: FlowBatch) -> Values:
    return batch.clock.to_realtime_ns(batch.records["last_ns"])


def _ntp_ns(wall_ns: Values) -> Values:
    """NTP timestamps (64 bits, 2**-32 s) of dateTimeNanoseconds, rounded up: truncating decoders get the ns back."""
    seconds, ns = np.divmod(wall_ns.astype(np.uint64), np.uint64(_NS_PER_S))
    return _ntp(seconds, ((ns << np.uint64(32)) + np.uint64(_NS_PER_S - 1)) // np.uint64(_NS_PER_S))


def _ntp_us(wall_ns: Values) -> Values:
    """The same for dateTimeMicroseconds, whose low 11 bits of fraction are zero (RFC 7011, 6.1.9)."""
    us_per_s = _NS_PER_S // _NS_PER_US
    seconds, us = np.divmod(wall_ns.astype(np.uint64) // np.uint64(_NS_PER_US), np.uint64(us_per_s))
    steps = ((us << np.uint64(21)) + np.uint64(us_per_s - 1)) // np.uint64(us_per_s)
    return _ntp(seconds, steps << np.uint64(11))


def _ntp(seconds: Values, fraction: Values) -> Values:
    return ((seconds + np.uint64(NTP_EPOCH_S)) << np.uint64(32)) | fraction


def _duration_ms(batch: FlowBatch) -> Values:
    """The difference of the exported milliseconds, at most what 32 bits hold (49 days)."""
    duration: Values = _end_ns(batch) // _NS_PER_MS - _start_ns(batch) // _NS_PER_MS
    return np.minimum(duration, _MAX_U32)


def _scaled(time_ns: Fill, unit_ns: int) -> Fill:
    return lambda batch: time_ns(batch) // unit_ns


def _interface(batch: FlowBatch) -> Values:
    """The interface where the flow was seen, whatever the direction."""
    return batch.interfaces.positions(batch.records["netns"], batch.records["ifindex"])


def _namespace(batch: FlowBatch) -> Values:
    return batch.interfaces.namespace_positions(batch.records["netns"])


_DERIVED: dict[str, Column] = {
    "protocolIdentifier": Column(_field("protocol")),
    "sourceTransportPort": Column(_source_port),
    "sourceIPv4Address": Column(_ipv4("src_addr"), family=IPV4),
    "ingressInterface": Column(_where_direction("ifindex", _INGRESS)),
    # ICMP: type * 256 + code, the convention of NetFlow that collectors without IE 32 and 139 rely on.
    "destinationTransportPort": Column(_field("dst_port")),
    "destinationIPv4Address": Column(_ipv4("dst_addr"), family=IPV4),
    "egressInterface": Column(_where_direction("ifindex", _EGRESS)),
    "sourceIPv6Address": Column(_field("src_addr"), family=IPV6),
    "destinationIPv6Address": Column(_field("dst_addr"), family=IPV6),
    "icmpTypeCodeIPv4": Column(_icmp_type_code, family=IPV4),
    "samplingInterval": Column(lambda batch: np.ones(len(batch), dtype=np.uint32)),  # see ``sampled``
    "vlanId": Column(_where_direction("vlan_id", _INGRESS)),
    "postVlanId": Column(_where_direction("vlan_id", _EGRESS)),
    "ipVersion": Column(_ip_version),
    "flowDirection": Column(_field("direction")),
    # The kernel's limits: IFNAMSIZ and IFALIASZ, less the NUL at the end.
    "interfaceName": Column(_interface, texts=lambda batch: batch.interfaces.names, most_octets=15),
    "interfaceDescription": Column(_interface, texts=lambda batch: batch.interfaces.aliases, most_octets=255),
    "observationPointId": Column(_observation_point, least_octets=8),
    "icmpTypeCodeIPv6": Column(_icmp_type_code, family=IPV6),
    "flowStartSeconds": Column(_scaled(_start_ns, _NS_PER_S)),
    "flowEndSeconds": Column(_scaled(_end_ns, _NS_PER_S)),
    "flowStartMilliseconds": Column(_scaled(_start_ns, _NS_PER_MS)),
    "flowEndMilliseconds": Column(_scaled(_end_ns, _NS_PER_MS)),
    "flowStartMicroseconds": Column(lambda batch: _ntp_us(_start_ns(batch))),
    "flowEndMicroseconds": Column(lambda batch: _ntp_us(_end_ns(batch))),
    "flowStartNanoseconds": Column(lambda batch: _ntp_ns(_start_ns(batch))),
    "flowEndNanoseconds": Column(lambda batch: _ntp_ns(_end_ns(batch))),
    "flowDurationMilliseconds": Column(_duration_ms),
    "icmpTypeIPv4": Column(_icmp_type, family=IPV4),
    "icmpCodeIPv4": Column(_icmp_code, family=IPV4),
    "icmpTypeIPv6": Column(_icmp_type, family=IPV6),
    "icmpCodeIPv6": Column(_icmp_code, family=IPV6),
    # The number of the network namespace, which has its own routes as a VRF has; 0 = the first one.
    "ingressVRFID": Column(_where_direction("netns", _INGRESS), least_octets=2),
    "egressVRFID": Column(_where_direction("netns", _EGRESS), least_octets=2),
    "VRFname": Column(_namespace, texts=lambda batch: batch.interfaces.namespaces, most_octets=255),
    "dot1qVlanId": Column(_field("vlan_id")),
    "ethernetType": Column(_field("ethertype")),
}
"""Elements of the Flow Key, and those for which more than one field is needed."""

COLUMNS: dict[str, Column] = {
    **_DERIVED,
    **{element.name: _measured(metric, element) for metric in METRICS for element in metric.elements},
}
"""Every element that netobs can fill, by name."""


def _rtt_mean(batch: FlowBatch) -> Values:
    records = batch.records
    mean: Values = np.minimum(records["rtt_sum"] // np.maximum(records["rtt_samples"], 1), _MAX_U32)
    return mean


def _insight(name: str, values: Fill, needs: int, units: str, octets: int = 4) -> tuple[InformationElement, Column]:
    semantics = "quantity" if units == "microseconds" else "deltaCounter"
    element = InformationElement(name, 0, f"unsigned{8 * octets}", octets, semantics, units)
    return element, Column(values, group="tcp", needs=needs)


_INSIGHT = (
    _insight("tcpRttMinMicroseconds", _field("rtt_min"), RTT, "microseconds"),
    _insight("tcpRttMeanMicroseconds", _rtt_mean, RTT, "microseconds"),
    _insight("tcpRttMaxMicroseconds", _field("rtt_max"), RTT, "microseconds"),
    _insight("tcpRttSampleCount", _field("rtt_samples"), TCP, ""),
    _insight("tcpHandshakeRttMicroseconds", _field("handshake_rtt"), HANDSHAKE, "microseconds"),
    _insight("tcpRetransmittedPackets", _field("retransmitted_packets"), TCP, "packets"),
    _insight("tcpRetransmittedOctets", _field("retransmitted_octets"), TCP, "octets", 8),
    _insight("tcpOutOfOrderPackets", _field("out_of_order_packets"), TCP, "packets"),
    _insight("tcpZeroWindowPackets", _field("zero_window_packets"), TCP, "packets"),
    _insight("tcpSynPackets", _field("syn_packets"), TCP, "packets"),
    _insight("tcpFinPackets", _field("fin_packets"), TCP, "packets"),
    _insight("tcpRstPackets", _field("rst_packets"), TCP, "packets"),
)

OWN_VALUES: dict[str, tuple[InformationElement, Column]] = {
    element.name: (element, column)
    for element, column in (
        (InformationElement("interfaceIndex", 0, "unsigned32", 4, "identifier", ""), Column(_field("ifindex"))),
        (InformationElement("icmpType", 0, "unsigned8", 1, "identifier", ""), Column(_icmp_type)),
        (InformationElement("icmpCode", 0, "unsigned8", 1, "identifier", ""), Column(_icmp_code)),
        *_INSIGHT,
    )
}
"""Values for which IANA has no element: for enterprise-specific ones (the number 0 is never sent)."""

ALL_COLUMNS = {**COLUMNS, **{name: column for name, (_, column) in OWN_VALUES.items()}}


def sampled(columns: Mapping[str, Column], sampling: int) -> Mapping[str, Column]:
    """``columns`` of an exporter that measures one packet in ``sampling``."""
    return {**columns, "samplingInterval": Column(lambda batch: np.full(len(batch), sampling, dtype=np.uint32))}


def fill(
    template: Template,
    batch: FlowBatch,
    rows: npt.NDArray[Any] | None = None,
    columns: Mapping[str, Column] = ALL_COLUMNS,
) -> npt.NDArray[np.void]:
    """Data Records of ``template`` for the Flow Records ``rows`` (indices or mask; None = all) of ``batch``.

    Returns an array of shape ``(n,)`` and dtype ``template.dtype``. Reduced-size counters must fit:
    ``netobs.encode.data_set.RecordEncoder`` splits records whose counters do not.
    """
    index = np.flatnonzero(rows) if rows is not None and rows.dtype == np.bool_ else rows
    total = len(batch.records) if index is None else len(index)
    out = np.empty(total, dtype=template.dtype)
    sources = [(field, columns[field.filled_with]) for field in template.fields]
    encoded = {
        field.element.name: text.encode(column.texts(batch), field)
        for field, column in sources
        if column.texts is not None
    }
    for start in range(0, total, _CHUNK_RECORDS):
        chunk = slice(start, start + _CHUNK_RECORDS)
        records = batch.records[chunk] if index is None else batch.records.take(index[chunk])  # 30 times [index]
        part, target = replace(batch, records=records), out[chunk]
        for field, column in sources:
            name, values = field.element.name, column.values(part)
            if name in encoded:
                values = encoded[name].take(values, axis=0)
            elif field.is_wide:
                values = _big_endian(values, field.octets)
            target[name] = values
    return out


def _big_endian(words: Values, octets: int) -> Values:
    """Numbers in native words, the lowest first (shape ``(n,)`` or ``(n, words)``), as ``octets`` bytes each."""
    words = words.reshape(len(words), -1)[:, ::-1]
    number = np.ascontiguousarray(words, dtype=words.dtype.newbyteorder(">")).view(np.uint8)
    out = np.zeros((len(words), octets), np.uint8)
    out[:, octets - number.shape[1] :] = number
    return out
