"""Attaches the programs to interfaces, and does not touch other programs, filters and qdiscs.

TCX (kernel 6.6): a link for each interface and direction. The kernel removes it when this process ends, in any way.
It returns TCX_NEXT.

clsact: a direct-action filter with our own handle, which replaces one that a killed predecessor left.

Both precede the programs that are there, so that we see the packets that these drop or redirect, unless the place is
the last one. A filter can only have a priority that does not belong to another kind of filter.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import logging
import os
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Callable, NamedTuple

from netobs.base import capabilities
from netobs.base.errors import CaptureError
from netobs.kernel import libbpf, libbpf_types, netlink, requirements
from netobs.kernel.interfaces import Interface

log = logging.getLogger("netobs.capture")

BPF_TCX = {"ingress": 46, "egress": 47}
BPF_F_BEFORE, BPF_F_AFTER = 1 << 3, 1 << 4  # without a relative: before all, or behind all
BPF_TC_POINT = {"ingress": 1, "egress": 2}
BPF_TC_F_REPLACE = 1
TC_HANDLE, PACKETS_TC_HANDLE = 0x6E6F6273, 0x6E6F6270  # "nobs", "nobp"
NO_INTERFACE = 0x7FFFFFFF
LAST_PRIORITIES = range(0xC001, 0x10000)  # behind those that the kernel chooses (net/sched/cls_api.c: tcf_auto_prio)


class FilterPlace(NamedTuple):
    """The place of our programs. Filters of one priority differ by their handles, and run one after the other as long
    as they return "next" (net/sched/cls_bpf.c: cls_bpf_classify)."""

    handle: int
    priority: int = 1
    """The first priority, as with TCX; another is used if this one belongs to another kind of filter."""
    last: bool = False
    """Behind all that is there, instead of before it."""
    beside: bool = False
    """Beside a filter of ours that is there, instead of in its place."""


FLOWS_PLACE, PACKETS_PLACE = FilterPlace(TC_HANDLE), FilterPlace(PACKETS_TC_HANDLE)


@dataclass(eq=False)
class _Qdisc:
    """A clsact qdisc that we made, and how many filters we have on it."""

    filters: int = 0


@dataclass(eq=False, repr=False)
class Attachment:
    """One program on one hook. ``detach`` undoes it, and leaves earlier programs in place.

    ``is_there``: the interface exists, and nobody has removed the filter or link, as root may. ``forget``, instead of
    ``detach`` if it is not there any more, frees this process's part of it. ``swap`` puts another program there, by
    its descriptor, in one step, or raises OSError.
    """

    interface: Interface
    direction: str
    method: str
    detach: Callable[[], None]
    is_there: Callable[[], bool]
    forget: Callable[[], None]
    swap: Callable[[int], None]
    last: bool = False
    """Behind the programs that were there, instead of before them."""


def method_for(setting: str, probe: Callable[[], bool]) -> str:
    """``tcx`` or ``tc`` for the key capture.attach.

    :raises CaptureError: the configuration asks for tcx, and the kernel does not have it.
    """
    if setting == "tc":
        return "tc"
    if probe():
        return "tcx"
    if setting == "tcx":
        raise CaptureError(f"kernel {os.uname().release} has no TCX (6.6 and later do)", 'set capture.attach = "auto"')
    return "tc"


def has_tcx(program_fd: int) -> bool:
    """Whether the kernel has TCX: interface 0 does not exist, but only a kernel without TCX returns EINVAL for it."""
    options = libbpf_types.LinkCreateOpts(ctypes.sizeof(libbpf_types.LinkCreateOpts), 0)
    result: int = libbpf.library().bpf_link_create(program_fd, 0, BPF_TCX["ingress"], ctypes.byref(options))
    return result == -errno.ENODEV


def may_filter() -> bool:
    """Whether the kernel lets this process set filters: it checks this before it looks for the interface."""
    hook = libbpf_types.TcHook(ctypes.sizeof(libbpf_types.TcHook), NO_INTERFACE, BPF_TC_POINT["ingress"], 0)
    with capabilities.taken_up(capabilities.NET_ADMIN):
        result: int = libbpf.library().bpf_tc_hook_create(ctypes.byref(hook))
    return result != -errno.EPERM


def attach(
    interface: Interface, direction: str, program_fd: int, method: str, place: FilterPlace = FLOWS_PLACE
) -> Attachment:
    """Attaches ``program_fd`` to ``interface`` ("ingress" or "egress") by ``method`` ("tcx", or "tc" at ``place``).

    :raises OSError: the kernel refused; ENODEV where the interface has gone meanwhile.
    """
    if method == "tcx":
        return attachment_of_link(interface, direction, make_link(interface, direction, program_fd, place), place.last)
    with capabilities.taken_up(capabilities.NET_ADMIN):
        return _attach_tc(interface, direction, program_fd, place)


def make_link(interface: Interface, direction: str, program_fd: int, place: FilterPlace) -> int:
    """A TCX link for the program.

    :raises OSError: the kernel refused.
    """
    flags = BPF_F_AFTER if place.last else BPF_F_BEFORE
    options = libbpf_types.LinkCreateOpts(ctypes.sizeof(libbpf_types.LinkCreateOpts), flags)
    return libbpf.checked(
        libbpf.library().bpf_link_create(program_fd, interface.index, BPF_TCX[direction], ctypes.byref(options)),
        f"{interface.name} {direction}: TCX link",
    )


def attachment_of_link(interface: Interface, direction: str, link: int, last: bool) -> Attachment:
    """That of a TCX link, wherever it was made: ``last`` behind others. It owns the descriptor ``link``."""
    made = [libbpf.tcx_link(link)[0], interface.index]

    def close() -> None:
        os.close(link)

    def swap(program_fd: int) -> None:
        libbpf.update_link(link, program_fd)
        made[0] = libbpf.tcx_link(link)[0]

    def is_there() -> bool:
        return [*libbpf.tcx_link(link)] == made

    return Attachment(interface, direction, "tcx", close, is_there, forget=close, swap=swap, last=last)


def _hook(interface: Interface, attach_point: int) -> libbpf_types.TcHook:
    return libbpf_types.TcHook(ctypes.sizeof(libbpf_types.TcHook), interface.index, attach_point, 0)


def _options(place: FilterPlace, program_fd: int = 0, flags: int = 0) -> libbpf_types.TcOpts:
    return libbpf_types.TcOpts(ctypes.sizeof(libbpf_types.TcOpts), program_fd, flags, 0, place.handle, place.priority)


def _attach_tc(interface: Interface, direction: str, program_fd: int, place: FilterPlace) -> Attachment:
    filter_, qdisc = _set_filter(interface, direction, program_fd, place)
    return Attachment(
        interface, direction, "tc",
        detach=lambda: _detach_tc(interface, direction, filter_, qdisc),
        is_there=lambda: _query(interface, direction, filter_) not in (-errno.ENOENT, -errno.EINVAL),
        forget=lambda: _disown(interface, qdisc),
        swap=lambda other_fd: _swap(interface, direction, filter_, other_fd),
        last=filter_.priority in LAST_PRIORITIES,
    )  # fmt: skip


ANY_PROGRAM = 0


class PlacedFilter(NamedTuple):
    """A filter that one process sets for another. ``program``: its number, or ``ANY_PROGRAM`` for that of a former
    process. ``made_qdisc``: the clsact qdisc was not there before."""

    priority: int
    program: int
    made_qdisc: bool


def place_filter(interface: Interface, direction: str, program_fd: int, place: FilterPlace) -> PlacedFilter:
    """Sets a clsact filter, and remembers nothing of it.

    :raises OSError: the kernel refused.
    """
    _made_qdiscs.clear()
    filter_, qdisc = _set_filter(interface, direction, program_fd, place)
    _made_qdiscs.clear()
    return PlacedFilter(filter_.priority, filter_.prog_id, qdisc is not None)


def remove_filter(interface: Interface, direction: str, placed: PlacedFilter, handle: int) -> None:
    """Removes the filter if it still runs its program; the qdisc, too, if it was made and has no other filter."""
    filter_ = _options(FilterPlace(handle, placed.priority))
    filter_.prog_id = placed.program or max(0, _query(interface, direction, filter_))
    qdisc = _Qdisc(1) if placed.made_qdisc else None
    _made_qdiscs.clear()
    if qdisc is not None:
        _made_qdiscs[interface.index] = qdisc
    _detach_tc(interface, direction, filter_, qdisc)


def _set_filter(
    interface: Interface, direction: str, program_fd: int, place: FilterPlace
) -> tuple[libbpf_types.TcOpts, _Qdisc | None]:
    where, hook = f"{interface.name} {direction}", _hook(interface, BPF_TC_POINT[direction])
    result = libbpf.library().bpf_tc_hook_create(ctypes.byref(hook))
    if result == 0:
        _made_qdiscs[interface.index] = _Qdisc()
    elif result != -errno.EEXIST:
        _checked_tc(result, f"{where}: clsact qdisc", requirements.QDISC_MODULE)
    elif direction == "egress" and interface.index not in _made_qdiscs:
        _check_egress(interface, where)
    qdisc = _made_qdiscs.get(interface.index)
    if qdisc is not None:
        qdisc.filters += 1
    present = netlink.filters(interface.index, netlink.TC_H_CLSACT[direction])
    try:
        filter_ = _add_filter(hook, present, program_fd, place, where)
    except OSError:
        _leave_qdisc(interface, qdisc)
        raise
    return filter_, qdisc


def _check_egress(interface: Interface, where: str) -> None:
    """Refuses an ingress qdisc in the place of clsact. It would put an egress filter among the ingress filters
    (sch_ingress.c: ingress_tcf_block), which then would count the packets of the other direction.

    :raises OSError: there is such a qdisc.
    """
    kind = netlink.ingress_qdisc(interface.index)
    if kind != "clsact":
        raise OSError(
            errno.EOPNOTSUPP,
            f"{where}: the {kind or 'ingress'} qdisc there (of policing, as by Open vSwitch) has no such hook; "
            "a clsact qdisc in its place has both, or use Linux 6.6 or newer",
        )


def _disown(interface: Interface, qdisc: _Qdisc | None) -> None:
    """Somebody has removed our filter. The present qdisc may be theirs, unless we have made a new one meanwhile."""
    if qdisc is not None and _made_qdiscs.get(interface.index) is qdisc:
        del _made_qdiscs[interface.index]


def _add_filter(
    hook: libbpf_types.TcHook, present: list[tuple[int, int]], program_fd: int, place: FilterPlace, where: str
) -> libbpf_types.TcOpts:
    """Adds our filter, or replaces that of a killed predecessor, beside those that are ``present`` on the hook.

    A priority belongs to one kind of filter and one protocol; for others the kernel returns EINVAL
    (net/sched/cls_api.c: tc_new_tfilter). Our filter then takes the first free priority.
    """
    taken = {priority for _, priority in present}
    former = [priority for handle, priority in present if handle == place.handle and not place.beside]
    former.sort(key=lambda priority: priority != place.priority)
    if place.last:
        wanted = min(max(LAST_PRIORITIES[0], max(taken, default=0) + 1), LAST_PRIORITIES[-1])
        others = reversed(LAST_PRIORITIES)
    else:
        wanted, others = place.priority, iter(range(place.priority, 0xFFFF))
    free = next(priority for priority in others if priority not in taken)
    for priority in former[:1] or [wanted, free]:
        options = _options(place._replace(priority=priority), program_fd, BPF_TC_F_REPLACE)
        result = libbpf.library().bpf_tc_attach(ctypes.byref(hook), ctypes.byref(options))
        if result != -errno.EINVAL:
            break
    _checked_tc(result, f"{where}: filter", requirements.FILTER_MODULE)
    return options


def _checked_tc(result: int, what: str, module: str) -> None:
    """ENOENT: TC knows no such kind of qdisc or filter, and no module brought it (net/sched/: tc_modify_qdisc)."""
    if result == -errno.ENOENT:
        raise OSError(errno.ENOENT, f"{what}: {requirements.missing_module(module)}")
    libbpf.checked(result, what)


def _query(interface: Interface, direction: str, filter_: libbpf_types.TcOpts) -> int:
    """The id of the program that the filter at our place runs, or a negative errno."""
    hook = _hook(interface, BPF_TC_POINT[direction])
    found = _options(FilterPlace(filter_.handle, filter_.priority))
    result: int = libbpf.library().bpf_tc_query(ctypes.byref(hook), ctypes.byref(found))
    return result or int(found.prog_id)


def _swap(interface: Interface, direction: str, filter_: libbpf_types.TcOpts, program_fd: int) -> None:
    hook = _hook(interface, BPF_TC_POINT[direction])
    other = _options(FilterPlace(filter_.handle, filter_.priority), program_fd, BPF_TC_F_REPLACE)
    with capabilities.taken_up(capabilities.NET_ADMIN):
        result = libbpf.library().bpf_tc_attach(ctypes.byref(hook), ctypes.byref(other))
    libbpf.checked(result, f"{interface.name} {direction}: filter")
    filter_.prog_id = other.prog_id


def former_filters(interface: Interface, direction: str, place: FilterPlace) -> list[int]:
    """The priorities of the filters that a former process has left there: one, or two if it was about to move it."""
    return netlink.priorities_of(place.handle, interface.index, netlink.TC_H_CLSACT[direction])


def remove_former_filter(interface: Interface, direction: str, place: FilterPlace) -> None:
    """Removes the filter of a former process at this place, and with its last one the qdisc if it was made for
    that."""
    hook, former = _hook(interface, BPF_TC_POINT[direction]), _options(place)
    with capabilities.taken_up(capabilities.NET_ADMIN):
        libbpf.library().bpf_tc_detach(ctypes.byref(hook), ctypes.byref(former))
        qdisc = _made_qdiscs.get(interface.index)
        if qdisc is not None and not qdisc.filters and not _has_filters(interface):
            qdisc.filters = 1
            _leave_qdisc(interface, qdisc)


def adopt_qdiscs(indices: Iterable[int], place: FilterPlace) -> None:
    """A former process of this daemon has made the clsact qdiscs of these interfaces. Where its filter is not there any
    more, somebody else has made another since."""
    for index in indices:
        with contextlib.suppress(OSError):  # the interface has gone
            if any(place.handle == handle for parent in netlink.TC_H_CLSACT.values()
                   for handle, _ in netlink.filters(index, parent)):  # fmt: skip
                _made_qdiscs[index] = _Qdisc()


def made_qdiscs() -> list[int]:
    """The interfaces, by index, whose clsact qdisc is of our making."""
    return sorted(_made_qdiscs)


def _detach_tc(interface: Interface, direction: str, filter_: libbpf_types.TcOpts, qdisc: _Qdisc | None) -> None:
    """Removes our filter if it still runs our program, and the qdisc if we made it for nobody else."""
    with capabilities.taken_up(capabilities.NET_ADMIN):
        if _query(interface, direction, filter_) == filter_.prog_id:
            hook = _hook(interface, BPF_TC_POINT[direction])
            mine = _options(FilterPlace(filter_.handle, filter_.priority))
            result = libbpf.library().bpf_tc_detach(ctypes.byref(hook), ctypes.byref(mine))
            if result not in (0, -errno.ENODEV, -errno.ENOENT):
                log.warning("%s %s: filter not removed: %s", interface.name, direction, libbpf.error_text(-result))
        _leave_qdisc(interface, qdisc)


_made_qdiscs: dict[int, _Qdisc] = {}
"""Of the interfaces (index) whose clsact qdisc did not exist before us."""


def _leave_qdisc(interface: Interface, qdisc: _Qdisc | None) -> None:
    """Counts one filter less. With the last one, removes the qdisc if we made it and nobody else uses it."""
    if qdisc is None:
        return
    qdisc.filters -= 1
    if qdisc.filters or _made_qdiscs.get(interface.index) is not qdisc:
        return
    del _made_qdiscs[interface.index]
    if not _has_filters(interface):
        hook = _hook(interface, sum(BPF_TC_POINT.values()))
        libbpf.library().bpf_tc_hook_destroy(ctypes.byref(hook))


def _has_filters(interface: Interface) -> bool:
    return any(netlink.filters(interface.index, parent) for parent in netlink.TC_H_CLSACT.values())
