"""The structures of ``bpf/netobs.h`` that only capture sees, as numpy dtypes. Checked against BTF by a test."""

from __future__ import annotations

from collections.abc import Collection
from typing import NamedTuple

import numpy as np

from netobs.base import words
from netobs.flow.metrics import INSIGHT_GROUPS
from netobs.flow.records import (
    EXTRA,
    EXTRA_RECORD,
    FULL_RECORD,
    INSIGHT,
    INSIGHT_RECORD,
    KEY,
    METRICS,
    PROGRESS,
    RECORD,
    joined,
)

FLOW_TABLES = words.FLOW_TABLES
"""enum flow_table, in its order; the words of the key capture.flow_table."""

HASH_KEYS = 5
"""enum slot_hash_sizes."""

SETTINGS = np.dtype(
    [
        ("sampling", "<u4"),
        ("flow_table", "<u4"),
        ("slots", "<u4"),
        ("slot_cpus", "<u4"),
        ("precise_time", "<u4"),
        ("extra_groups", "<u4"),
        ("preemptible", "<u4"),
        ("netns", "<u4"),
        ("slot_netns", "<u4"),
        ("turn", "<u4"),
        ("interface_rows", "<u4"),
        ("interface_mask", "<u4"),
        ("pair_mask", "<u4"),
        ("reserved", "<u4"),
        ("row_key", "<u8"),
        ("tick_ns", "<u8"),
        ("hash_keys", "<u8", (HASH_KEYS,)),
    ]
)
"""struct netobs_settings."""

STATE = np.dtype(
    [
        ("active_half", "<u4"),
        ("turn", "<u4"),
        ("tick_offset_ns", "<u8"),
        ("clock_jiffies", "<u8"),
        ("clock_ns", "<u8"),
    ]
)
"""struct netobs_state."""

FLOW_SLOT = np.dtype(
    [
        ("src_addr", "u1", (16,)),
        ("dst_addr", "u1", (16,)),
        ("src_port", "<u2"),
        ("dst_port", "<u2"),
        ("ifindex", "<u4"),
        ("place", "<u2"),
        ("protocol", "u1"),
        ("used", "u1"),
        ("last", "<u4"),
        ("counters", "<u8"),
        ("tcp_flags", "<u2"),
        ("min_ip_length", "<u2"),
        ("max_ip_length", "<u2"),
        ("min_ttl", "u1"),
        ("max_ttl", "u1"),
    ]
)
"""struct flow_slot."""

FLOW_START = np.dtype(
    [
        ("first", "<u4"),
        ("end", "<u4"),
        ("syn", "<u4"),
        ("tos", "u1"),
        ("dot1q_priority", "u1"),
        ("src_mac", "u1", (6,)),
        ("dst_mac", "u1", (6,)),
        ("reserved", "u1", (6,)),
    ]
)
"""struct flow_start."""

# enum slot_encoding
SLOT_EGRESS_BIT = 12
SLOT_IPV6_BIT = 13
SLOT_USED_SHIFT = 24
SLOT_NETNS_BIT = 14
SLOT_NETNS_LOW_BITS = 2
SLOT_NETNS_HIGH_BIT = 1
SLOT_NETNS_BITS = 9
SLOT_TIME_SHIFT = 10
SLOT_OCTETS_BITS = 36
SLOT_PROBES = 4

OVERFLOW_KEY = np.dtype([("flow", KEY), ("cpu", "<u4"), ("reserved", "<u4")])
"""struct overflow_key."""

COUNTING_ENDED = 2
"""enum netobs_counting."""

TURN_SETTLED = 4
"""enum netobs_turn; netobs.kernel.moving has the others."""

LEDGER_REASONS = ("not_ip", "malformed", "ext_headers", "not_sampled", "ring_full")
"""enum ledger_reason: each way in which the kernel does not put a packet into a flow, in its order."""

LEDGER_COUNT = np.dtype([("packets", "<u8"), ("octets", "<u8")])
"""struct ledger_count."""

LEDGER = np.dtype(
    [
        ("seen", LEDGER_COUNT),
        ("reasons", LEDGER_COUNT, (len(LEDGER_REASONS),)),
        ("inside", "<u8"),
        ("turn", "<u8"),
        ("reserved", "<u8", (2,)),
    ]
)
"""struct ledger: one for each possible CPU."""

INTERFACE_PROBES = 4
INTERFACE_NETNS_SHIFT = 33
"""enum interface_counting."""

INTERFACE_COUNT = np.dtype(
    [
        ("key", "<u8"),
        ("seen", LEDGER_COUNT),
        ("merged", "<u8"),
        ("link_octets", "<u8"),
        ("tagged_skbs", "<u8"),
        ("repeated_octets", "<u8"),
        ("reserved", "<u8"),
    ]
)
"""struct interface_count: of one interface and direction on one CPU."""

NOT_IP_ETHERTYPES = 16
"""enum not_ip_sizes."""

ETHERTYPE_COUNT = np.dtype([("count", LEDGER_COUNT), ("ethertype", "<u4"), ("reserved", "<u4")])
"""struct ethertype_count."""

NOT_IP = np.dtype(
    [("ethertypes", ETHERTYPE_COUNT, (NOT_IP_ETHERTYPES,)), ("others", LEDGER_COUNT), ("reserved", "<u8", (6,))]
)
"""struct not_ip: one for each possible CPU."""


class RecordLayout(NamedTuple):
    """The structures in the maps of an ``object``: those of ``bpf/netobs.h`` as they are now, or as another version had
    them, whose maps are read once more. ``metrics``, ``record``: the values of the hash maps, and the records of the
    ring buffer. ``interface``: None of versions without a map ``interface_counts``."""

    metrics: np.dtype[np.void]
    record: np.dtype[np.void]
    object: str
    key: np.dtype[np.void] = KEY
    extra: np.dtype[np.void] = EXTRA
    slot: np.dtype[np.void] = FLOW_SLOT
    start: np.dtype[np.void] = FLOW_START
    overflow_key: np.dtype[np.void] = OVERFLOW_KEY
    ledger: np.dtype[np.void] = LEDGER
    not_ip: np.dtype[np.void] = NOT_IP
    state: np.dtype[np.void] = STATE
    reasons: tuple[str, ...] = LEDGER_REASONS
    interface: np.dtype[np.void] | None = None
    insight: np.dtype[np.void] = INSIGHT

    @property
    def has_extra(self) -> bool:
        """Whether there are maps of ``extra``."""
        return "_extra" in self.object

    @property
    def has_insight(self) -> bool:
        """Whether there are maps of ``insight``, and of TCP connections."""
        return "_insight" in self.object


PLAIN = RecordLayout(METRICS, RECORD, "netobs.bpf.o", interface=INTERFACE_COUNT)
WITH_EXTRA = RecordLayout(joined(METRICS, EXTRA), EXTRA_RECORD, "netobs_extra.bpf.o", interface=INTERFACE_COUNT)
WITH_INSIGHT = RecordLayout(
    joined(METRICS, PROGRESS, INSIGHT), INSIGHT_RECORD, "netobs_insight.bpf.o", interface=INTERFACE_COUNT
)
FULL = RecordLayout(
    joined(METRICS, PROGRESS, EXTRA, INSIGHT), FULL_RECORD, "netobs_extra_insight.bpf.o", interface=INTERFACE_COUNT
)
LAYOUTS = {layout.object: layout for layout in (PLAIN, WITH_EXTRA, WITH_INSIGHT, FULL)}
"""By the name of the object."""


def layout_for(groups: Collection[str]) -> RecordLayout:
    """The least one in which ``groups`` (of ``metrics.GROUPS``) are measured."""
    has_insight = not {*INSIGHT_GROUPS}.isdisjoint(groups)
    has_extra = not {*groups} <= {*INSIGHT_GROUPS}
    return next(each for each in LAYOUTS.values() if (each.has_extra, each.has_insight) == (has_extra, has_insight))


MAX_NAMESPACES = (1 << SLOT_NETNS_BITS) - 1
"""Numbers of network namespaces begin at 1."""


def slot_netns(number: int) -> int:
    """netobs_settings.slot_netns: ``used`` and the bits of a namespace's number, in the word with ``place``."""
    low, high = number & (1 << SLOT_NETNS_LOW_BITS) - 1, number >> SLOT_NETNS_LOW_BITS
    return low << SLOT_NETNS_BIT | (1 | high << SLOT_NETNS_HIGH_BIT) << SLOT_USED_SHIFT
