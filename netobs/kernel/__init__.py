"""Access to the kernel: libbpf, attaching, interfaces, privileges and requirements."""
