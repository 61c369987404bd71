"""The memory barrier that a reader needs who shares a ring with the kernel and takes no system call to read it."""

from __future__ import annotations

import threading

_lock = threading.Lock()


def fence() -> None:
    """All memory accesses before are done when those after begin.

    The kernel writes a record before it moves its position or clears the record's busy bit. The reader must read them
    in the opposite order, and must finish its copy before it gives the space back (include/uapi/linux/perf_event.h:
    data_head; kernel/bpf/ringbuf.c: bpf_ringbuf_commit). x86 keeps loads in order, and stores behind loads; arm64
    does not. Python has no barrier, but its locks act as one: no access moves past a release followed by an acquire.
    """
    with _lock:
        pass
    with _lock:
        pass
