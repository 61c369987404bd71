"""The kernel: libbpf, attaching, interfaces, what it must offer."""
