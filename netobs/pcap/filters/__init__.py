"""Packet filters: from what an operator writes to programs that the kernel runs."""
