"""Where the former process had its programs: TCX links that go on, and clsact qdiscs that were made for its filters."""

from __future__ import annotations

import contextlib
import fcntl
import os
from dataclasses import replace

from netobs.base.keeper import Keeper
from netobs.base.kept_record import KeptRecord
from netobs.kernel import attach, libbpf
from netobs.kernel.attach import Attachment, FilterPlace
from netobs.kernel.interfaces import Interface

QDISCS = "qdiscs"


def link_name(index: int, direction: str, namespace: int = 0) -> str:
    """The name of a link in the keeper; at most 14 characters for indices below 100 million."""
    return f"l-{namespace}-{index}-{direction[0]}"


class KeptLinks:
    """Attaches as ``attach.attach`` does, with the link of the former process where there is one, which it keeps for
    the next one. Never two links of ours are on one hook."""

    def __init__(self, keeper: Keeper, place: FilterPlace) -> None:
        """``place``: of the filters, as in ``attach.attach``."""
        self._keeper, self._place = keeper, place
        self._unclaimed = {name for name in keeper.names() if name.startswith("l-0-")}
        former = keeper.former(QDISCS)
        self._qdiscs = KeptRecord(-1)
        self._had_filters: set[int] = set()
        if former is not None:
            self._qdiscs = KeptRecord(former)
            values = self._qdiscs.read() or {}
            self._had_filters.update(values.get("filters", ()))
            attach.adopt_qdiscs(values.get("made", ()), place)
        elif keeper.keeps:
            self._qdiscs = KeptRecord(keeper.memory(QDISCS))
        self._links: dict[str, int] = {}
        self._noted: tuple[list[int], list[int]] | None = None

    def attach(self, interface: Interface, direction: str, program_fd: int, method: str) -> Attachment:
        """As ``attach.attach``.

        :raises OSError: as in ``attach.attach``.
        """
        name = link_name(interface.index, direction)
        link = self._former(name, interface, direction, program_fd)
        if method != "tcx":
            if link >= 0:
                self._end(name, link)
            return attach.attach(interface, direction, program_fd, method, self._place)
        if not self._keeper.keeps:
            return attach.attach(interface, direction, program_fd, method, self._place)
        if link < 0:
            link = attach.make_link(interface, direction, program_fd, self._place)
            self._keeper.keep(name, link)
        if interface.index in self._had_filters:
            attach.remove_former_filter(interface, direction, self._place)
        self._links[name] = link
        return replace(
            attach.attachment_of_link(interface, direction, link),
            detach=lambda: self._end(name, link),
            forget=lambda: self._forget(name, link),
        )

    def former_method(self, index: int, direction: str) -> str:
        """How the former process had its program on this hook of interface ``index``; "" if it had none there."""
        if link_name(index, direction) in self._unclaimed:
            return "tcx"
        return "tc" if index in self._had_filters else ""

    def _former(self, name: str, interface: Interface, direction: str, program_fd: int) -> int:
        """A descriptor of the former process's link on this hook, which runs the program from now on; -1 if there is
        none."""
        self._unclaimed.discard(name)
        former = self._keeper.former(name)
        if former is None:
            return -1
        link = fcntl.fcntl(former, fcntl.F_DUPFD_CLOEXEC, 3)
        try:
            if libbpf.tcx_place(link) == (interface.index, attach.BPF_TCX[direction]):
                libbpf.update_link(link, program_fd)
                return link
        except OSError:  # it is detached, or was never one
            pass
        os.close(link)
        self._keeper.drop(name)
        return -1

    def _end(self, name: str, link: int) -> None:
        """Detaches at once, whoever else has a descriptor of the link."""
        _detach(link)
        self._forget(name, link)

    def _forget(self, name: str, link: int) -> None:
        self._links.pop(name, None)
        os.close(link)
        self._keeper.drop(name)

    def end_unclaimed(self) -> None:
        """Everything wanted is attached: detaches the former process's links on other interfaces."""
        for name in self._unclaimed:
            former = self._keeper.former(name)
            if former is not None:
                _detach(former)
                self._keeper.drop(name)
        self._unclaimed.clear()
        self._had_filters.clear()

    def note_filters(self, interfaces: list[int]) -> None:
        """Keeps which interfaces (indices) have filters of ours, and where the qdisc is of our making."""
        noted = (sorted(interfaces), attach.made_qdiscs())
        if noted != self._noted and not self._qdiscs.is_off:
            self._noted = noted
            self._qdiscs.write({"filters": noted[0], "made": noted[1]})

    def keep_nothing(self) -> None:
        """The next process finds nothing: after everything was detached."""
        self.end_unclaimed()
        self._keeper.drop(QDISCS)

    def close(self) -> None:
        """Closes this process's descriptors, and keeps everything."""
        while self._links:
            os.close(self._links.popitem()[1])
        self._qdiscs.close()


def _detach(link: int) -> None:
    with contextlib.suppress(OSError):  # detached, as its interface has gone
        libbpf.detach_link(link)
