"""The packet capture agent: selected packets, whole, as a pcap stream. Beside flow metering, and apart from it.

Nothing here is imported unless packets are captured: a daemon without it pays nothing.
"""
