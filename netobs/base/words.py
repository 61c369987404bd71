"""Words that the command line shares with the configuration, for commands that do not read the configuration."""

from __future__ import annotations

PROTOCOLS = {"ipfix": "IPFIX", "netflow9": "NetFlow v9", "netflow5": "NetFlow v5"}
"""Export protocols, and their names in messages."""
PACKET_FORMATS = ("pcap", "pcapng")
FLOW_TABLES = ("percpu_array", "percpu_hash", "ringbuf")
"""In the order of enum flow_table (bpf/netobs.h)."""
ATTACH_METHODS = ("auto", "tcx", "tc")
