"""``netobs selftest``: known traffic in two network namespaces, and what became of each packet."""
