"""The real programs in the real kernel, run on frames that a test makes (BPF_PROG_TEST_RUN)."""

from __future__ import annotations

import contextlib
import ctypes
import errno
import functools
import os
import threading
import time
from collections.abc import Collection, Iterator
from ctypes import POINTER, byref, c_char_p, c_int, c_uint32, c_void_p
from dataclasses import dataclass
from typing import Any, Callable

import numpy as np

from netobs.base.keeper import NOTHING, Keeper
from netobs.config import CaptureConfig
from netobs.datapath.capture import Capture
from netobs.datapath.datapath import Datapath
from netobs.datapath.ledger import LedgerReading
from netobs.datapath.percpu_array import PercpuArray
from netobs.flow.records import Records
from netobs.kernel import libbpf, libbpf_types
from netobs.metering.merge import merge

DEADLINE_S = 10
NEXT = 0xFFFFFFFF  # what a TC program returns for "the next one may look": -1


class Skb(ctypes.Structure):
    """struct __sk_buff. A test run lets only few fields be set, gso_size, gso_segs and ifindex among them."""

    _fields_ = [
        ("len", c_uint32),
        ("pkt_type", c_uint32),
        ("mark", c_uint32),
        ("queue_mapping", c_uint32),
        ("protocol", c_uint32),
        ("vlan_present", c_uint32),
        ("vlan_tci", c_uint32),
        ("vlan_proto", c_uint32),
        ("priority", c_uint32),
        ("ingress_ifindex", c_uint32),
        ("ifindex", c_uint32),
        ("tc_index", c_uint32),
        ("cb", c_uint32 * 5),
        ("hash", c_uint32),
        ("tc_classid", c_uint32),
        ("data", c_uint32),
        ("data_end", c_uint32),
        ("napi_id", c_uint32),
        ("family", c_uint32),
        ("remote_ip4", c_uint32),
        ("local_ip4", c_uint32),
        ("remote_ip6", c_uint32 * 4),
        ("local_ip6", c_uint32 * 4),
        ("remote_port", c_uint32),
        ("local_port", c_uint32),
        ("data_meta", c_uint32),
        ("flow_keys", ctypes.c_uint64),
        ("tstamp", ctypes.c_uint64),
        ("wire_len", c_uint32),
        ("gso_segs", c_uint32),
        ("sk", ctypes.c_uint64),
        ("gso_size", c_uint32),
        ("tstamp_type", ctypes.c_uint8),
        ("_padding", ctypes.c_uint8 * 3),
        ("hwtstamp", ctypes.c_uint64),
    ]


@functools.cache
def declared(name: str, *arguments: Any) -> Any:
    function = getattr(libbpf.library(), name)
    function.restype, function.argtypes = c_int, list(arguments)
    return function


class Run:
    """A program and a context, to run on one frame after another without setting everything up each time."""

    def __init__(self, program_fd: int, **context: int) -> None:
        """``context``: fields of ``Skb`` that are not 0."""
        self._fd = program_fd
        self.skb = Skb(**context)
        self._options = libbpf_types.TestRunOpts(sz=ctypes.sizeof(libbpf_types.TestRunOpts))
        self._options.ctx_in, self._options.ctx_size_in = ctypes.addressof(self.skb), ctypes.sizeof(self.skb)
        self._function = libbpf.library().bpf_prog_test_run_opts

    def __call__(self, frame: bytes, repeat: int = 1) -> None:
        """Runs the program on ``frame``. Whatever it is, the program may not stop the next one on the hook.

        :raises OSError: the kernel refused the frame: too long, or shorter than the header that its EtherType says.
        """
        assert self.result(frame, repeat) == NEXT

    def result(self, frame: bytes, repeat: int = 1) -> int:
        """As a call, but whatever the program returns is right."""
        options = self._options
        options.data_in = ctypes.cast(c_char_p(frame), c_void_p)
        options.data_size_in, options.repeat = len(frame), repeat
        options.data_size_out = options.ctx_size_out = 0  # what the last run filled in would limit the next
        libbpf.checked(self._function(self._fd, byref(options)), "test run")
        return int(options.retval)


@dataclass(frozen=True)
class Observed:
    """What became of the packets of one ``observe``: rows, and (packets, octets) for each reason of the ledger."""

    records: Records
    reasons: dict[str, tuple[int, int]]

    @property
    def flows(self) -> Records:
        """The records, merged: a row for each flow, whatever table it was in."""
        return merged(self.records)


def merged(records: Records) -> Records:
    """A row for each flow of ``records``, which stay as they are."""
    return merge(records.copy(), seed=1)[0]


class Programs:
    """The programs, loaded and attached to nothing; ``config`` as in [capture]. ``batch`` as in BatchReader."""

    def __init__(
        self,
        batch: int = 0,
        slots_for: int = 0,
        preemptible: bool = False,
        extra_groups: Collection[str] = (),
        keeper: Keeper = NOTHING,
        **config: Any,
    ) -> None:
        """``slots_for``: for percpu_array, how many CPUs get slots; 0 = all that are online. ``preemptible``: as in a
        PREEMPT_RT kernel, whatever this one is. ``extra_groups``, ``keeper``: as in ``Datapath``."""
        settings = CaptureConfig(**config)
        self.capture = Capture(settings, batch, extra_groups, keeper)
        self.datapath.preemptible |= preemptible
        if slots_for:
            self.datapath.table = PercpuArray(settings.max_flows, slots_for, batch, self.datapath._layout)
        try:
            self.capture.load()
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> Programs:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def close(self, keep: bool = False) -> None:
        self.capture.close(keep)

    def run(self, program: str = "netobs_ingress", **context: int) -> Run:
        """For many frames through one program."""
        return Run(self.program_fd(program), **context)

    def send(self, frame: bytes, program: str = "netobs_ingress", repeat: int = 1, **context: int) -> None:
        """One frame through a program, ``repeat`` times."""
        self.run(program, **context)(frame, repeat)

    def evict(self) -> Records:
        """All rows of the table, then all of the ring."""
        return np.concatenate([self.datapath.evict(time.monotonic_ns()), self.datapath.read_ring().records])

    def ledger(self) -> LedgerReading:
        return self.datapath.read_ledger()

    def observe(self, *frames: bytes, program: str = "netobs_ingress", repeat: int = 1, **context: int) -> Observed:
        """Sends frames and evicts. Checks that all packets and octets are accounted for, as each test must."""
        with self.accounting() as observed:
            for frame in frames:
                self.send(frame, program, repeat, **context)
        return observed[0]

    @contextlib.contextmanager
    def accounting(self) -> Iterator[list[Observed]]:
        """Evicts at the end of the block; the list then has the one result."""
        result: list[Observed] = []
        before = self.ledger()
        yield result
        records, after = self.evict(), self.ledger()
        reasons = {
            name: (count.packets - before.reasons[name].packets, count.octets - before.reasons[name].octets)
            for name, count in after.reasons.items()
        }
        for i, unit in enumerate(("packets", "octets")):
            seen = getattr(after.seen, unit) - getattr(before.seen, unit)
            assert seen == int(records[unit].sum()) + sum(counts[i] for counts in reasons.values()), unit
        result.append(Observed(records, {name: counts for name, counts in reasons.items() if any(counts)}))

    def program_fd(self, name: str) -> int:
        return self.datapath.program_fd(name)

    def map_fd(self, name: str) -> int:
        return self.datapath.map_fd(name)

    @property
    def datapath(self) -> Datapath:
        return self.capture.datapath

    @property
    def table(self) -> Any:
        """The user-space side of the flow table; which class it is, the configuration says."""
        return self.datapath.table


def put(map_fd: int, key: Any, value: Any) -> None:
    """bpf_map_update_elem; ``key`` and ``value`` are numpy arrays or scalars."""
    function = declared("bpf_map_update_elem", c_int, c_void_p, c_void_p, ctypes.c_uint64)
    key, value = np.ascontiguousarray(key), np.ascontiguousarray(value)
    libbpf.checked(function(map_fd, key.ctypes.data, value.ctypes.data, 0), "update")


def get(map_fd: int, key: Any, value_bytes: int) -> bytes | None:
    """bpf_map_lookup_elem; None: there is no such element. ``value_bytes``: of one lookup, for all CPUs."""
    function = declared("bpf_map_lookup_elem", c_int, c_void_p, c_void_p)
    key, value = np.ascontiguousarray(key), ctypes.create_string_buffer(value_bytes)
    result: int = function(map_fd, key.ctypes.data, ctypes.addressof(value))
    if result == -errno.ENOENT:
        return None
    libbpf.checked(result, "lookup")
    return value.raw


def kernel_id(fd: int) -> int:
    """The kernel's number of a program or map."""
    info, size = (c_uint32 * 64)(), c_uint32(256)
    function = declared("bpf_obj_get_info_by_fd", c_int, c_void_p, POINTER(c_uint32))
    libbpf.checked(function(fd, info, byref(size)), "info")
    return int(info[1])  # struct bpf_prog_info and struct bpf_map_info: type, id


def wait_until_gone(*objects: tuple[str, int]) -> None:
    """Until the kernel has freed these ("prog" or "map", number): it does so a little after the last close."""
    deadline = time.monotonic() + DEADLINE_S
    while any(exists(*one) for one in objects):
        assert time.monotonic() < deadline, "programs or maps are still there"
        time.sleep(0.01)


def exists(kind: str, number: int) -> bool:
    """Whether the kernel has a "prog" or "map" of that number."""
    fd: int = declared(f"bpf_{kind}_get_fd_by_id", c_uint32)(number)
    if fd < 0:
        return False
    os.close(fd)
    return True


class Hammer:
    """Calls ``work`` again and again in a thread on one CPU, for the time of the block. ``work`` must let other
    threads run, as a test run does."""

    def __init__(self, cpu: int, work: Callable[[], object]) -> None:
        self._cpu, self._work = cpu, work
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run)
        self._failure: BaseException | None = None
        self.calls = 0

    def _run(self) -> None:
        os.sched_setaffinity(0, {self._cpu})  # of this thread
        try:
            while not self._stop.is_set():
                self._work()
                self.calls += 1
        except BaseException as error:  # noqa: BLE001 - whatever it is, the test fails with it
            self._failure = error

    def __enter__(self) -> Hammer:
        self._thread.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self._stop.set()
        self._thread.join()
        if self._failure is not None:
            raise self._failure

    def go_on(self, calls: int) -> None:
        """Until ``work`` was done that many times from now on."""
        wanted, deadline = self.calls + calls, time.monotonic() + DEADLINE_S
        while self.calls < wanted:
            assert self._failure is None, self._failure
            assert time.monotonic() < deadline, f"waited {DEADLINE_S} s for a test run"
            time.sleep(0.0001)


@contextlib.contextmanager
def on_cpu(cpu: int) -> Iterator[None]:
    """Runs this thread, and so each test run, on one CPU."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {cpu})
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)
