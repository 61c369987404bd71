"""What a stream of packets is made of: classic pcap, and pcapng."""
