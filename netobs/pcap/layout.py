"""The structures of ``bpf/packets.h`` as numpy dtypes. Checked against BTF by a test."""

from __future__ import annotations

import numpy as np

LINK_ETHERNET, LINK_IP = 0, 1
"""enum packet_link: what packets of an interface begin with."""

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
        ("part", "<u2"),
        ("time_ns", "<u8"),
        ("caplen", "<u4"),
        ("length", "<u4"),
    ]
)
"""struct packet_meta: 32 bytes, no padding."""
