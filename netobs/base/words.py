"""Words of the command line that are words of the configuration, too: light enough for a command that reads none."""

from __future__ import annotations

PROTOCOLS = {"ipfix": "IPFIX", "netflow9": "NetFlow v9", "netflow5": "NetFlow v5"}
"""Export protocols, and what people call them."""
PACKET_FORMATS = ("pcap", "pcapng")
