"""What is measured of a flow: one row for each metric. Records, merging, slots and columns of templates follow from it.

A new metric is a row here, a field in ``bpf/netobs.h``, and a line in the manual. One with a ``group`` is measured only
where a template asks for it: ``struct flow_extra``.
"""

from __future__ import annotations

from enum import Enum
from typing import NamedTuple

IPV4, IPV6 = "ipv4", "ipv6"
"""Address families."""


class Merge(Enum):
    """How the values of two parts of one flow become one."""

    SUM = "sum"
    MIN = "least"
    MAX = "greatest"
    OR = "all bits"
    FIRST = "of the part with the earlier first_ns, or with the SYN that starts the flow anew"
    CONNECTION = "times of the first FIN or RST and of the last SYN"
    NONE = "not merged"


class Place(Enum):
    """Which struct of percpu_array has the field, under the same name."""

    SLOT = "flow_slot"
    START = "flow_start"
    COMPUTED = "none: datapath/percpu_array.py computes it"
    EXTRA = "flow_extra"


class Element(NamedTuple):
    """An Information Element that says a metric as it is: ``values >> shift & mask``, or one ``part`` of an array.

    ``least_octets``, ``family``: as in ``netobs.encode.columns.Column``. ``octets``: its one length, where the registry
    has none.
    """

    name: str
    least_octets: int = 0
    family: str = ""
    octets: int = 0
    shift: int = 0
    mask: int = 0
    part: int | None = None


class Metric(NamedTuple):
    """A field of a Flow Record. ``dtype``, ``shape``: as for numpy. ``group``: one of ``GROUPS``, "" = always there."""

    name: str
    dtype: str
    merge: Merge
    place: Place
    elements: tuple[Element, ...] = ()
    shape: tuple[int, ...] = ()
    group: str = ""
    unknown: int = 0
    """Its value where it was not measured."""


GROUPS = ("tcp_options", "tcp_window", "ip", "link", "layer2_octets", "tcp")
"""enum extra_group, in its order: what is switched on together."""
INSIGHT_GROUPS = ("tcp",)
"""Those that are measured where [insight] asks for them."""
NO_SAMPLE = 0xFFFF_FFFF
"""Instead of a time that was not measured."""


def _extra(
    name: str, dtype: str, merge: Merge, group: str, *elements: Element, shape: tuple[int, ...] = (), unknown: int = 0
) -> Metric:
    return Metric(name, dtype, merge, Place.EXTRA, elements, shape, group, unknown)


def _tcp(name: str, dtype: str, merge: Merge, unknown: int = 0) -> Metric:
    return _extra(name, dtype, merge, "tcp", unknown=unknown)


METRICS = (
    # Wire packets: a GSO super-packet counts its segments.
    Metric("packets", "<u8", Merge.SUM, Place.COMPUTED, (Element("packetDeltaCount", least_octets=4),)),
    Metric("octets", "<u8", Merge.SUM, Place.COMPUTED, (Element("octetDeltaCount", least_octets=4),)),
    Metric("first_ns", "<u8", Merge.MIN, Place.COMPUTED),  # CLOCK_MONOTONIC, as last_ns
    Metric("last_ns", "<u8", Merge.MAX, Place.COMPUTED),
    # The low 12 bits of bytes 12 and 13 of the TCP header. One octet is allowed: it leaves out bits that meters need
    # not observe (registry, RFC 9565).
    Metric("tcp_flags", "<u2", Merge.OR, Place.SLOT, (Element("tcpControlBits", least_octets=1, mask=0x0FFF),)),
    # Octets, of one wire packet.
    Metric("min_ip_length", "<u2", Merge.MIN, Place.SLOT, (Element("minimumIpTotalLength", least_octets=2),)),
    Metric("max_ip_length", "<u2", Merge.MAX, Place.SLOT, (Element("maximumIpTotalLength", least_octets=2),)),
    Metric(
        "tos",
        "u1",
        Merge.FIRST,
        Place.START,
        (Element("ipClassOfService"), Element("ipDiffServCodePoint", shift=2), Element("ipPrecedence", shift=5)),
    ),
    Metric("min_ttl", "u1", Merge.MIN, Place.SLOT, (Element("minimumTTL"),)),
    Metric("max_ttl", "u1", Merge.MAX, Place.SLOT, (Element("maximumTTL"),)),
    Metric("dot1q_priority", "u1", Merge.FIRST, Place.START, (Element("dot1qPriority"),)),
    # Why a ring buffer record did not fit the table; 0 = it comes from the table.
    Metric("errno", "u1", Merge.NONE, Place.COMPUTED),
    # IE 136; 0 in the kernel, set at expiry.
    Metric("flow_end_reason", "u1", Merge.NONE, Place.COMPUTED, (Element("flowEndReason"),)),
    Metric("src_mac", "u1", Merge.FIRST, Place.START, (Element("sourceMacAddress"),), (6,)),
    Metric("dst_mac", "u1", Merge.FIRST, Place.START, (Element("destinationMacAddress"),), (6,)),
    # Units of 1,024 ns, modulo 2**32; for merging only.
    Metric("end", "<u4", Merge.CONNECTION, Place.START),
    Metric("syn", "<u4", Merge.CONNECTION, Place.START),
    # RFC 9740: kind 0 is the lowest bit of the first word.
    _extra("tcp_options", "<u8", Merge.OR, "tcp_options", Element("tcpOptionsFull"), shape=(4,)),
    # Whole frames on the wire, without preamble and check sequence.
    _extra("layer2_octets", "<u8", Merge.SUM, "layer2_octets", Element("layer2OctetDeltaCount")),
    # RFC 9740, registry "ipv6ExtensionHeaders Bits": 20 bits.
    _extra("ipv6_headers", "<u4", Merge.OR, "ip", Element("ipv6ExtensionHeadersFull", least_octets=4, family=IPV6)),
    _extra("flow_label", "<u4", Merge.FIRST, "ip", Element("flowLabelIPv6", family=IPV6)),
    # As in the header, without window scaling; 65535 where no packet said one.
    _extra("min_tcp_window", "<u2", Merge.MIN, "tcp_window", Element("tcpWindowSize"), unknown=0xFFFF),
    _extra("customer_vlan_id", "<u2", Merge.FIRST, "link", Element("dot1qCustomerVlanId")),
    _extra("customer_priority", "u1", Merge.FIRST, "link", Element("dot1qCustomerPriority")),
    _extra("fragment_flags", "u1", Merge.FIRST, "ip", Element("fragmentFlags")),
    # Entries of the label stack, and what the first of them say but for the TTL: 3 octets (registry, description).
    _extra("mpls_depth", "u1", Merge.FIRST, "link", Element("mplsLabelStackDepth", least_octets=1)),
    _extra(
        "mpls_labels",
        "u1",
        Merge.FIRST,
        "link",
        Element("mplsTopLabelStackSection", octets=3, part=0),
        Element("mplsLabelStackSection2", octets=3, part=1),
        Element("mplsLabelStackSection3", octets=3, part=2),
        shape=(3, 3),
    ),
    # Of the way from here to the destination and back, in microseconds.
    _tcp("rtt_sum", "<u8", Merge.SUM),
    _tcp("retransmitted_octets", "<u8", Merge.SUM),
    _tcp("rtt_min", "<u4", Merge.MIN, NO_SAMPLE),
    _tcp("rtt_max", "<u4", Merge.MAX),
    _tcp("rtt_samples", "<u4", Merge.SUM),
    _tcp("handshake_rtt", "<u4", Merge.MIN, NO_SAMPLE),
    _tcp("retransmitted_packets", "<u4", Merge.SUM),
    _tcp("out_of_order_packets", "<u4", Merge.SUM),
    _tcp("zero_window_packets", "<u4", Merge.SUM),
    _tcp("syn_packets", "<u4", Merge.SUM),
    _tcp("rst_packets", "<u4", Merge.SUM),
    _tcp("fin_packets", "<u2", Merge.SUM),
    # For the kernel only.
    _tcp("hole_octets", "<u2", Merge.NONE),
    _tcp("hole", "<u4", Merge.NONE),
    _tcp("hole_since", "<u4", Merge.NONE),
)
"""In the order of ``struct flow_metrics``, of ``struct flow_extra`` and of ``struct flow_insight`` behind it."""


def named(merge: Merge) -> tuple[str, ...]:
    """The names of the metrics that merge this way."""
    return tuple(metric.name for metric in METRICS if metric.merge is merge)


def in_place(place: Place) -> tuple[str, ...]:
    """The names of the metrics that percpu_array keeps there."""
    return tuple(metric.name for metric in METRICS if metric.place is place)
