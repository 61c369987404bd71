"""The structures of ``bpf/packets.h`` as numpy dtypes. Checked against BTF by a test."""

from __future__ import annotations

import numpy as np

FILTER_SLOTS, COPY_SLOTS = (0, 1, 2, 3), (4, 5, 6, 7)
"""enum packet_slot: ingress, egress, l3_ingress, l3_egress."""

META = np.dtype(
    [
        ("filters", "<u4"),
        ("ifindex", "<u4"),
        ("vlan_tci", "<u2"),
        ("vlan_proto", "<u2"),
        ("direction", "u1"),
        ("link", "u1"),
        ("reserved", "<u2"),
        ("time_ns", "<u8"),
        ("caplen", "<u4"),
        ("length", "<u4"),
    ]
)
"""struct packet_meta: 32 bytes, no padding."""

SNAPLEN, LEAST_SNAPLEN, TAG_OCTETS = 262_144, 16, 4
"""enum packet_size: the largest snaplen and the least, and the octets of a VLAN tag."""

LEAST_RING_BYTES = 131_072
"""enum packet_size: the smallest ring buffer."""

COUNTERS = np.dtype(
    [("copied", "<u8"), ("lost", "<u8"), ("own", "<u8"), ("unannounced", "<u8"), ("reserved", "<u8", (4,))]
)
"""struct packet_counters: one for each possible CPU."""

LOSS = np.dtype([("filters", "<u4"), ("ifindex", "<u4")])
"""struct packet_loss: key of the map that counts packets that were lost."""

PEER = np.dtype([("address", "u1", (16,)), ("port", "<u2"), ("reserved", "<u2")])
"""struct packet_peer: the far end of one of the agent's own streams."""

STATE = np.dtype([("snaplen", "<u4"), ("wakeup_bytes", "<u4"), ("own_port", "<u2"), ("reserved", "<u2")])
"""struct packet_state."""
