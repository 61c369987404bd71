"""libbpf by ctypes: every function that netobs uses is declared here, and every failure becomes an OSError.

libbpf 1.x: functions that return a pointer set errno, the others return ``-errno``.
"""

from __future__ import annotations

import ctypes
import errno
import functools
import os
from ctypes import byref, c_char, c_char_p, c_uint32, c_void_p
from pathlib import Path
from typing import Any

from netobs.kernel import host
from netobs.kernel.libbpf_file import lacks, open_library
from netobs.kernel.libbpf_log import LibbpfLog
from netobs.kernel.libbpf_types import (
    PROTOTYPES,
    MapBatchOpts,
    MapCreateOpts,
    ProgLoadOpts,
    ProgramInfo,
    TcxLinkInfo,
    TestRunOpts,
)

MAP_TYPE_ARRAY, MAP_TYPE_ARRAY_OF_MAPS, MAP_TYPE_RINGBUF = 2, 12, 27  # enum bpf_map_type
PROG_TYPE_SCHED_CLS = 3  # enum bpf_prog_type
BPF_F_NUMA_NODE, BPF_F_MMAPABLE = 1 << 2, 1 << 10
INSTRUCTION_BYTES, VERIFIER_LOG = 8, 1
ENOTSUPP = 524  # kernel-internal, yet bpf() returns it

_log = LibbpfLog()


@functools.cache
def library() -> ctypes.CDLL:
    """libbpf, loaded once, with all prototypes declared.

    :raises CaptureError: there is no libbpf 1.x, or it lacks a function.
    """
    lib = open_library()
    for name, (result, arguments) in PROTOTYPES.items():
        try:
            function = getattr(lib, name)
        except AttributeError:
            raise lacks(name) from None
        function.restype, function.argtypes = result, arguments
    lib.libbpf_set_print(_log.callback)
    return lib


def take_warnings() -> list[str]:
    """The lines that libbpf warned with since the last call."""
    lines, _log.warnings = _log.warnings, []
    return lines


def version() -> str:
    """The version of libbpf, as it says itself: ``v1.1``."""
    text: bytes = library().libbpf_version_string()
    return text.decode()


def checked(result: int, what: str) -> int:
    """``result`` unless it is an error.

    :raises OSError: ``result`` is ``-errno``; ``what`` precedes its text.
    """
    if result < 0:
        raise OSError(-result, f"{what}: {error_text(-result)}")
    return result


def error_text(number: int) -> str:
    """The text of errno ``number``."""
    return "operation not supported" if number == ENOTSUPP else os.strerror(number)


def possible_cpus() -> int:
    """How many CPUs the kernel is prepared for: the rows of a per-CPU value.

    :raises CaptureError: there is no /sys.
    """
    host.read("/sys/devices/system/cpu/possible")  # which libbpf reads too, and says less
    return checked(library().libbpf_num_possible_cpus(), "possible CPUs")


def online_cpus(path: Path = Path("/sys/devices/system/cpu/online")) -> int:
    """The highest CPU that is online, plus one. A host may have many more possible CPUs, and may take them online
    later.

    :raises CaptureError: there is no /sys.
    """
    return int(host.read(str(path)).strip().replace(",", "-").split("-")[-1]) + 1


def lookup_batch(
    fd: int, cursor_in: Any, cursor_out: Any, keys: int, values: int, count: int, delete: bool
) -> tuple[int, int]:
    """One BPF_MAP_LOOKUP_BATCH of at most ``count`` entries into the buffers at ``keys`` and ``values``, or with
    ``delete`` one BPF_MAP_LOOKUP_AND_DELETE_BATCH.

    ``cursor_in`` is None at the start, else what the last call filled as ``cursor_out``; the two must differ.
    Returns (entries, errno): 0 = go on; ENOENT = that was the end, the entries count; ENOSPC = a bucket holds more
    than ``count``, nothing was taken, call again with the same cursor and more room (kernel/bpf/hashtab.c:
    __htab_map_lookup_and_delete_batch).

    :raises OSError: any other error.
    """
    number = c_uint32(count)
    options = MapBatchOpts(ctypes.sizeof(MapBatchOpts), 0, 0)
    lib = library()
    function = lib.bpf_map_lookup_and_delete_batch if delete else lib.bpf_map_lookup_batch
    result = function(fd, cursor_in, cursor_out, keys, values, byref(number), byref(options))
    if result in (0, -errno.ENOENT):
        return number.value, -result
    if result == -errno.ENOSPC:
        return 0, errno.ENOSPC
    what = "batch lookup and delete" if delete else "batch lookup"
    raise OSError(-result, f"{what}: {error_text(-result)}")


def delete_batch(fd: int, keys: int, count: int) -> bool:
    """One BPF_MAP_DELETE_BATCH of ``count`` entries, by the ``keys`` at that address. False if not all are gone: the
    kernel stops at the first that is not there (kernel/bpf/syscall.c: generic_map_delete_batch)."""
    number, options = c_uint32(count), MapBatchOpts(ctypes.sizeof(MapBatchOpts), 0, 0)
    result: int = library().bpf_map_delete_batch(fd, keys, byref(number), byref(options))
    return result == 0


def cursor(key_bytes: int) -> ctypes.Array[c_char]:
    """A buffer for a batch cursor: the kernel writes a bucket number (4 bytes) or a key, whichever is larger."""
    return ctypes.create_string_buffer(max(key_bytes, 4))


def create_map(kind: int, name: str, inner_fd: int = 0, flags: int = 0) -> int:
    """A map of ``kind`` with one entry, key and value of 4 bytes; for a map of maps, of maps like ``inner_fd``.

    ``flags``: BPF_F_* for the map.

    :raises OSError: the kernel refused.
    """
    options = MapCreateOpts(sz=ctypes.sizeof(MapCreateOpts), inner_map_fd=inner_fd, map_flags=flags)
    return checked(library().bpf_map_create(kind, name.encode(), 4, 4, 1, byref(options)), f"map {name}")


def create_ring(name: str, size_bytes: int, node: int) -> int:
    """A ring buffer of ``size_bytes``, a power of two of pages at least, in the memory of NUMA node ``node``.

    :raises OSError: the kernel refused.
    """
    options = MapCreateOpts(sz=ctypes.sizeof(MapCreateOpts), map_flags=BPF_F_NUMA_NODE, numa_node=node)
    fd = library().bpf_map_create(MAP_TYPE_RINGBUF, name.encode(), 0, 0, size_bytes, byref(options))
    return checked(fd, f"map {name}")


def update_u32(fd: int, key: int, value: int) -> None:
    """Sets entry ``key`` of a map whose keys and values have 4 bytes.

    :raises OSError: the kernel refused.
    """
    result = library().bpf_map_update_elem(fd, byref(c_uint32(key)), byref(c_uint32(value)), 0)
    checked(result, "map update")


def delete_u32(fd: int, key: int) -> None:
    """Removes entry ``key`` of a map whose keys have 4 bytes; no error if it is not there.

    :raises OSError: the kernel refused.
    """
    result = library().bpf_map_delete_elem(fd, byref(c_uint32(key)))
    checked(0 if result == -errno.ENOENT else result, "map delete")


def load_program(kind: int, name: str, code: bytes, verifier_log: ctypes.Array[c_char] | None = None) -> int:
    """Loads eBPF instructions as a program of ``kind``, under a licence that may call every helper; its descriptor.

    ``verifier_log``: where the kernel writes what it verified. That takes time; too small a buffer is ENOSPC.

    :raises OSError: the kernel refused.
    """
    options = ProgLoadOpts(sz=ctypes.sizeof(ProgLoadOpts))
    if verifier_log is not None:
        options.log_buf, options.log_size = ctypes.addressof(verifier_log), len(verifier_log)
        options.log_level = VERIFIER_LOG
    count = len(code) // INSTRUCTION_BYTES
    load = library().bpf_prog_load
    return checked(load(kind, name.encode(), b"Dual BSD/GPL", code, count, byref(options)), f"program {name}")


def tcx_link(fd: int) -> tuple[int, int]:
    """(program's number, interface's index) of a TCX link. The index is 0 where it is detached: by somebody, or because
    the interface is gone (kernel/bpf/tcx.c: tcx_link_fill_info).

    :raises OSError: ``fd`` is no link.
    """
    info, size = TcxLinkInfo(), c_uint32(ctypes.sizeof(TcxLinkInfo))
    checked(library().bpf_obj_get_info_by_fd(fd, byref(info), byref(size)), "link")
    return info.prog_id, info.ifindex


def tcx_place(fd: int) -> tuple[int, int]:
    """(interface's index, enum bpf_attach_type) of a TCX link. The index is 0 as in ``tcx_link``.

    :raises OSError: ``fd`` is no link.
    """
    info, size = TcxLinkInfo(), c_uint32(ctypes.sizeof(TcxLinkInfo))
    checked(library().bpf_obj_get_info_by_fd(fd, byref(info), byref(size)), "link")
    return info.ifindex, info.attach_type


def detach_link(fd: int) -> None:
    """Detaches a link from its interface, and leaves it as it is otherwise.

    :raises OSError: it is detached.
    """
    checked(library().bpf_link_detach(fd), "link")


def pin(fd: int, path: Path) -> None:
    """Gives a map, program or link a name in a BPF file system.

    :raises OSError: the kernel refused; EINVAL where ``fd`` is something else.
    """
    checked(library().bpf_obj_pin(fd, os.fsencode(path)), f"pin {path}")


def pinned(path: Path) -> int:
    """A descriptor of what ``pin`` has given a name.

    :raises OSError: the kernel refused.
    """
    return checked(library().bpf_obj_get(os.fsencode(path)), f"pin {path}")


def update_link(link_fd: int, program_fd: int) -> None:
    """Puts another program into a link, in one step: a packet passes the former or the new one.

    :raises OSError: the kernel refused; ENOLINK where the link is detached.
    """
    checked(library().bpf_link_update(link_fd, program_fd, None), "link update")


def reaches_kernel() -> bool:
    """Whether bpf system calls reach the kernel: it returns EBADF for descriptor -1, which no map has."""
    nothing = byref(c_uint32())
    return bool(library().bpf_map_lookup_elem(-1, nothing, nothing) == -errno.EBADF)


def program_info(fd: int) -> tuple[int, str]:
    """(type, name) of a program: enum bpf_prog_type, and up to 15 characters.

    :raises OSError: ``fd`` is not of BPF.
    """
    info, size = ProgramInfo(), c_uint32(ctypes.sizeof(ProgramInfo))
    checked(library().bpf_obj_get_info_by_fd(fd, byref(info), byref(size)), "program")
    return info.type, info.name.decode("ascii", "replace")


def number_of(fd: int) -> int:
    """The number of a map or a program, which no other one gets until the kernel ends (``struct bpf_map_info``,
    ``struct bpf_prog_info``: type, id).

    :raises OSError: ``fd`` is neither.
    """
    info = (c_uint32 * 2)()
    checked(library().bpf_obj_get_info_by_fd(fd, info, byref(c_uint32(ctypes.sizeof(info)))), "number")
    return info[1]


def run_program(fd: int, frame: bytes) -> bytes:
    """Runs a TC program once on ``frame`` (BPF_PROG_TEST_RUN); the frame as the program has left it.

    :raises OSError: the kernel refused.
    """
    left = ctypes.create_string_buffer(len(frame))
    _test_run(fd, frame, left, 1)
    return left.raw


def time_program(fd: int, frame: bytes, repeat: int) -> int:
    """How long a TC program takes for ``frame``, in ns: the mean of so many runs one after the other.

    :raises OSError: the kernel refused; EINTR: a signal came.
    """
    return int(_test_run(fd, frame, ctypes.create_string_buffer(len(frame)), repeat).duration)


def _test_run(fd: int, frame: bytes, left: ctypes.Array[c_char], repeat: int) -> TestRunOpts:
    options = TestRunOpts(
        sz=ctypes.sizeof(TestRunOpts), data_in=ctypes.cast(c_char_p(frame), c_void_p), data_size_in=len(frame)
    )
    options.data_out, options.data_size_out, options.repeat = ctypes.addressof(left), len(frame), repeat
    checked(library().bpf_prog_test_run_opts(fd, byref(options)), "test run")
    return options
