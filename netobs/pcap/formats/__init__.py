"""What a stream of packets is made of: classic pcap, and pcapng."""

MAGIC_NUMBERS = {"pcap": b"\x4d\x3c\xb2\xa1", "pcapng": b"\x0a\x0d\x0d\x0a"}
"""What the header of each begins with: pcap with times in nanoseconds, little endian; the block type of a section."""

REFUSAL = b"netobs: "
"""What stands in place of a stream that there is not begins with; a line of text follows."""
