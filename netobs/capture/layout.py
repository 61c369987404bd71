"""The structures of ``bpf/netobs.h`` that only capture sees, as numpy dtypes. Checked against BTF by a test."""

from __future__ import annotations

import numpy as np

SETTINGS = np.dtype([("sampling", "<u4"), ("precise_time", "<u4")])
"""struct netobs_settings."""

LEDGER_REASONS = ("not_ip", "malformed", "not_sampled", "ring_full")
"""enum ledger_reason: each way in which the kernel does not put a packet into a flow, in its order."""

LEDGER_COUNT = np.dtype([("packets", "<u8"), ("octets", "<u8")])
"""struct ledger_count."""

LEDGER = np.dtype(
    [("seen", LEDGER_COUNT), ("reasons", LEDGER_COUNT, (len(LEDGER_REASONS),)), ("reserved", "<u8", (6,))]
)
"""struct ledger: one for each possible CPU."""
