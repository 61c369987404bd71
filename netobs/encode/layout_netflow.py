"""The fixed parts of NetFlow v9 (RFC 3954) and NetFlow v5 (Cisco) as numpy dtypes, and the v5 record as fields."""

from __future__ import annotations

from functools import lru_cache

import numpy as np

from netobs.base.ipfix import SET_HEADER
from netobs.encode.registry import by_name
from netobs.encode.template.field import Field
from netobs.encode.template.template import Template

NETFLOW9_VERSION, NETFLOW5_VERSION = 9, 5
TEMPLATE_FLOWSET_ID, OPTIONS_TEMPLATE_FLOWSET_ID = 0, 1
MAX_ELEMENT_ID = 127
"""The elements that NetFlow v9 and IPFIX share (RFC 7012, section 4, and the IANA registry)."""
MAX_NETFLOW5_RECORDS = 30

NETFLOW9_HEADER = np.dtype(
    [
        ("version", ">u2"),
        ("count", ">u2"),  # records of all kinds
        ("uptime_ms", ">u4"),
        ("export_time", ">u4"),
        ("sequence", ">u4"),  # Messages sent before
        ("observation_domain", ">u4"),  # "Source ID"
    ]
)
"""Packet Header, 20 bytes (RFC 3954, section 5.1)."""

NETFLOW9_DATA_HEADER = np.dtype(NETFLOW9_HEADER.descr + SET_HEADER.descr)
"""The headers before the Data Records of a Message with one Data FlowSet, 24 bytes."""

NETFLOW5_HEADER = np.dtype(
    [
        ("version", ">u2"),
        ("count", ">u2"),
        ("uptime_ms", ">u4"),
        ("export_time", ">u4"),
        ("export_time_ns", ">u4"),
        ("sequence", ">u4"),  # flows sent before
        ("engine", ">u2"),  # type and id
        ("sampling", ">u2"),  # 2 bits of mode, 14 of interval
    ]
)
"""Header, 24 bytes (Cisco, "NetFlow Export Datagram Format", table B-3)."""

_NETFLOW5_FIELDS = (
    ("sourceIPv4Address", 4),
    ("destinationIPv4Address", 4),
    ("ipNextHopIPv4Address", 4),
    ("ingressInterface", 2),
    ("egressInterface", 2),
    ("packetDeltaCount", 4),
    ("octetDeltaCount", 4),
    ("flowStartSysUpTime", 4),
    ("flowEndSysUpTime", 4),
    ("sourceTransportPort", 2),
    ("destinationTransportPort", 2),
    ("tcpControlBits", 2),  # pad1 and tcp_flags: the high octet is 0
    ("protocolIdentifier", 1),
    ("ipClassOfService", 1),
    ("bgpSourceAsNumber", 2),
    ("bgpDestinationAsNumber", 2),
    ("sourceIPv4PrefixLength", 1),
    ("destinationIPv4PrefixLength", 1),
    ("paddingOctets", 2),
)


@lru_cache(maxsize=1)
def netflow5_template() -> Template:
    """The record of NetFlow v5, 48 bytes (the same source, table B-4), as Information Elements."""
    fields = []
    for name, octets in _NETFLOW5_FIELDS:
        element = by_name(name)
        assert element is not None, name
        fields.append(Field(element, octets))
    return Template("ipv4", tuple(fields), "NetFlow v5")
