"""Links to collectors: UDP, TCP, TLS and the addresses they lead to."""
