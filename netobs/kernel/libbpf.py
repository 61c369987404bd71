"""libbpf by ctypes: every function that netobs uses is declared here, and every failure becomes an OSError.

libbpf 1.x: functions that return a pointer set errno, the others return ``-errno``.
"""

from __future__ import annotations

import ctypes
import ctypes.util
import errno
import functools
import logging
import os
from ctypes import POINTER, byref, c_char, c_char_p, c_int, c_size_t, c_uint32, c_void_p
from pathlib import Path
from typing import Any

from netobs.kernel import host
from netobs.kernel.libbpf_file import lacks, open_library

log = logging.getLogger("netobs.libbpf")

MAP_TYPE_ARRAY, MAP_TYPE_ARRAY_OF_MAPS, MAP_TYPE_RINGBUF = 2, 12, 27  # enum bpf_map_type
PROG_TYPE_SCHED_CLS = 3  # enum bpf_prog_type
BPF_F_NUMA_NODE, BPF_F_MMAPABLE = 1 << 2, 1 << 10
INSTRUCTION_BYTES, VERIFIER_LOG = 8, 1
ENOTSUPP = 524  # kernel-internal, yet bpf() returns it
LOG_TAIL_BYTES = 1 << 16  # of what libbpf says in one call
LEVELS = (logging.INFO, logging.DEBUG, logging.DEBUG)  # of libbpf's warn, info, debug: one quieter in ours

KERNEL_MESSAGE = "libbpf: Kernel error message: "
"""Prefix of rtnetlink's messages, before its own text."""

PrintCallback = ctypes.CFUNCTYPE(c_int, c_int, c_char_p, c_void_p)


class MapBatchOpts(ctypes.Structure):
    """struct bpf_map_batch_opts."""

    _fields_ = [("sz", c_size_t), ("elem_flags", ctypes.c_uint64), ("flags", ctypes.c_uint64)]


class TcHook(ctypes.Structure):
    """struct bpf_tc_hook."""

    _fields_ = [("sz", c_size_t), ("ifindex", c_int), ("attach_point", c_int), ("parent", c_uint32)]


class TcOpts(ctypes.Structure):
    """struct bpf_tc_opts."""

    _fields_ = [
        ("sz", c_size_t),
        ("prog_fd", c_int),
        ("flags", c_uint32),
        ("prog_id", c_uint32),
        ("handle", c_uint32),
        ("priority", c_uint32),
    ]


class MapCreateOpts(ctypes.Structure):
    """struct bpf_map_create_opts."""

    _fields_ = [
        ("sz", c_size_t),
        ("btf_fd", c_uint32),
        ("btf_key_type_id", c_uint32),
        ("btf_value_type_id", c_uint32),
        ("btf_vmlinux_value_type_id", c_uint32),
        ("inner_map_fd", c_uint32),
        ("map_flags", c_uint32),
        ("map_extra", ctypes.c_uint64),
        ("numa_node", c_uint32),
        ("map_ifindex", c_uint32),
    ]


class TestRunOpts(ctypes.Structure):
    """struct bpf_test_run_opts."""

    __test__ = False  # not a test class, whatever pytest thinks of its name

    _fields_ = [
        ("sz", c_size_t),
        ("data_in", c_void_p),
        ("data_out", c_void_p),
        ("data_size_in", c_uint32),
        ("data_size_out", c_uint32),
        ("ctx_in", c_void_p),
        ("ctx_out", c_void_p),
        ("ctx_size_in", c_uint32),
        ("ctx_size_out", c_uint32),
        ("retval", c_uint32),
        ("repeat", c_int),
        ("duration", c_uint32),
        ("flags", c_uint32),
        ("cpu", c_uint32),
        ("batch_size", c_uint32),
    ]


class ProgLoadOpts(ctypes.Structure):
    """struct bpf_prog_load_opts."""

    _fields_ = [
        ("sz", c_size_t),
        ("attempts", c_int),
        ("expected_attach_type", c_int),
        ("prog_btf_fd", c_uint32),
        ("prog_flags", c_uint32),
        ("prog_ifindex", c_uint32),
        ("kern_version", c_uint32),
        ("attach_btf_id", c_uint32),
        ("attach_prog_fd", c_uint32),
        ("attach_btf_obj_fd", c_uint32),
        ("fd_array", c_void_p),
        ("func_info", c_void_p),
        ("func_info_cnt", c_uint32),
        ("func_info_rec_size", c_uint32),
        ("line_info", c_void_p),
        ("line_info_cnt", c_uint32),
        ("line_info_rec_size", c_uint32),
        ("log_level", c_uint32),
        ("log_size", c_uint32),
        ("log_buf", c_void_p),
    ]


class LinkCreateOpts(ctypes.Structure):
    """struct bpf_link_create_opts, up to the part that differs by attach type (zero here)."""

    _fields_ = [
        ("sz", c_size_t),
        ("flags", c_uint32),
        ("iter_info", c_void_p),
        ("iter_info_len", c_uint32),
        ("target_btf_id", c_uint32),
        ("_union", ctypes.c_uint64 * 4),
    ]


class TcxLinkInfo(ctypes.Structure):
    """struct bpf_link_info of a TCX link, as far as it is wanted."""

    _fields_ = [
        ("type", c_uint32),
        ("id", c_uint32),
        ("prog_id", c_uint32),
        ("_padding", c_uint32),
        ("ifindex", c_uint32),
        ("attach_type", c_uint32),
    ]


# name -> (result, arguments). c_void_p stands for the opaque structs.
_PROTOTYPES: dict[str, tuple[Any, list[Any]]] = {
    "libbpf_set_print": (c_void_p, [PrintCallback]),
    "libbpf_version_string": (c_char_p, []),
    "libbpf_num_possible_cpus": (c_int, []),
    "libbpf_probe_bpf_map_type": (c_int, [c_int, c_void_p]),
    "libbpf_probe_bpf_prog_type": (c_int, [c_int, c_void_p]),
    "bpf_object__open_file": (c_void_p, [c_char_p, c_void_p]),
    "bpf_object__load": (c_int, [c_void_p]),
    "bpf_object__close": (None, [c_void_p]),
    "bpf_object__find_map_by_name": (c_void_p, [c_void_p, c_char_p]),
    "bpf_object__find_program_by_name": (c_void_p, [c_void_p, c_char_p]),
    "bpf_map__fd": (c_int, [c_void_p]),
    "bpf_map__set_max_entries": (c_int, [c_void_p, c_uint32]),
    "bpf_map__set_autocreate": (c_int, [c_void_p, ctypes.c_bool]),
    "bpf_map__initial_value": (c_void_p, [c_void_p, POINTER(c_size_t)]),
    "bpf_program__fd": (c_int, [c_void_p]),
    "bpf_program__set_autoload": (c_int, [c_void_p, ctypes.c_bool]),
    "bpf_map_lookup_and_delete_batch": (
        c_int,
        [c_int, c_void_p, c_void_p, c_void_p, c_void_p, POINTER(c_uint32), POINTER(MapBatchOpts)],
    ),
    "bpf_map_create": (c_int, [c_int, c_char_p, c_uint32, c_uint32, c_uint32, POINTER(MapCreateOpts)]),
    "bpf_prog_load": (c_int, [c_int, c_char_p, c_char_p, c_void_p, c_size_t, POINTER(ProgLoadOpts)]),
    "bpf_map_lookup_elem": (c_int, [c_int, c_void_p, c_void_p]),
    "bpf_map_update_elem": (c_int, [c_int, c_void_p, c_void_p, ctypes.c_uint64]),
    "bpf_map_delete_elem": (c_int, [c_int, c_void_p]),
    "bpf_map_get_next_key": (c_int, [c_int, c_void_p, c_void_p]),
    "bpf_prog_test_run_opts": (c_int, [c_int, POINTER(TestRunOpts)]),
    "bpf_link_create": (c_int, [c_int, c_int, c_int, POINTER(LinkCreateOpts)]),
    "bpf_obj_get_info_by_fd": (c_int, [c_int, c_void_p, POINTER(c_uint32)]),
    "bpf_tc_hook_create": (c_int, [POINTER(TcHook)]),
    "bpf_tc_hook_destroy": (c_int, [POINTER(TcHook)]),
    "bpf_tc_attach": (c_int, [POINTER(TcHook), POINTER(TcOpts)]),
    "bpf_tc_detach": (c_int, [POINTER(TcHook), POINTER(TcOpts)]),
    "bpf_tc_query": (c_int, [POINTER(TcHook), POINTER(TcOpts)]),
}


class _Log:
    """Takes libbpf's output. Keeps its warnings, the verifier's log among them, for the call that caused them."""

    def __init__(self) -> None:
        self.warnings: list[str] = []
        self.callback = PrintCallback(self._print)
        self._libc = ctypes.CDLL(None)
        self._libc.vasprintf.argtypes, self._libc.vasprintf.restype = [POINTER(c_void_p), c_char_p, c_void_p], c_int
        self._libc.free.argtypes, self._libc.free.restype = [c_void_p], None

    def _print(self, level: int, text: bytes, arguments: int) -> int:
        lines = self._tail(text, arguments).decode(errors="replace").rstrip().split("\n")
        if level == 0:
            self.warnings += lines
        if lines[:1] and lines[0].startswith(KERNEL_MESSAGE):
            level = 2  # of an answer that was expected, or that its caller explains: a qdisc is there already
        # Many lines are the verifier's log, whose end is logged by who asked for the load.
        said_at = LEVELS[min(level, 2)] if len(lines) == 1 else logging.DEBUG
        for line in lines:
            log.log(said_at, "%s", line)
        return 0

    def _tail(self, text: bytes, arguments: int) -> bytes:
        """The end of a message. libbpf passes the whole of the verifier's log in one call, up to 16 MiB, and the reason
        for a refusal is in its last lines."""
        whole = c_void_p()
        size: int = self._libc.vasprintf(byref(whole), text, arguments)
        if size < 0:  # no memory
            return text
        try:
            kept = min(size, LOG_TAIL_BYTES)
            return ctypes.string_at((whole.value or 0) + size - kept, kept)
        finally:
            self._libc.free(whole)


_log = _Log()


@functools.cache
def library() -> ctypes.CDLL:
    """libbpf, loaded once, with all prototypes declared.

    :raises CaptureError: there is no libbpf 1.x, or it lacks a function.
    """
    lib = open_library()
    for name, (result, arguments) in _PROTOTYPES.items():
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


def lookup_and_delete_batch(
    fd: int, cursor_in: Any, cursor_out: Any, keys: int, values: int, count: int
) -> tuple[int, int]:
    """One BPF_MAP_LOOKUP_AND_DELETE_BATCH of at most ``count`` entries into the buffers at ``keys`` and ``values``.

    ``cursor_in`` is None at the start, else what the last call filled as ``cursor_out``; the two must differ.
    Returns (entries, errno): 0 = go on; ENOENT = that was the end, the entries count; ENOSPC = a bucket holds more
    than ``count``, nothing was taken, call again with the same cursor and more room (kernel/bpf/hashtab.c:
    __htab_map_lookup_and_delete_batch).

    :raises OSError: any other error.
    """
    number = c_uint32(count)
    options = MapBatchOpts(ctypes.sizeof(MapBatchOpts), 0, 0)
    result = library().bpf_map_lookup_and_delete_batch(
        fd, cursor_in, cursor_out, keys, values, byref(number), byref(options)
    )
    if result in (0, -errno.ENOENT):
        return number.value, -result
    if result == -errno.ENOSPC:
        return 0, errno.ENOSPC
    raise OSError(-result, f"batch lookup and delete: {error_text(-result)}")


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


def run_program(fd: int, frame: bytes) -> bytes:
    """Runs a TC program once on ``frame`` (BPF_PROG_TEST_RUN); the frame as the program has left it.

    :raises OSError: the kernel refused.
    """
    left = ctypes.create_string_buffer(len(frame))
    options = TestRunOpts(
        sz=ctypes.sizeof(TestRunOpts), data_in=ctypes.cast(c_char_p(frame), c_void_p), data_size_in=len(frame)
    )
    options.data_out, options.data_size_out, options.repeat = ctypes.addressof(left), len(frame), 1
    checked(library().bpf_prog_test_run_opts(fd, byref(options)), "test run")
    return left.raw
