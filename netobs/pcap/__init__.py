"""The packet capture agent: selected packets, whole, as a pcap stream. It is independent of flow metering.

Nothing here is imported unless packet capture is enabled: a daemon without it pays nothing.
"""
