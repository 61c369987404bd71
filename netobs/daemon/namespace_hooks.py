"""The hooks of the interfaces in a network namespace, which only the root helper can attach to."""

from __future__ import annotations

import errno
import functools
import logging
import os
import socket
from collections.abc import Iterable
from typing import Any, Callable, NamedTuple

from netobs.base import capabilities
from netobs.daemon.helper_calls import HelperCalls
from netobs.kernel import libbpf
from netobs.kernel.attach import ANY_PROGRAM, Attachment, FilterPlace, PlacedFilter, attachment_of_link
from netobs.kernel.helper_client import Helper
from netobs.kernel.interfaces import Interface
from netobs.kernel.netlink import TC_H_CLSACT, priorities_of, replace_filter

log = logging.getLogger("netobs.capture")


class _Hook(NamedTuple):
    ifindex: int
    direction: str
    method: str


class _Link(NamedTuple):
    fd: int


class NamespaceHooks:
    """``Hooks`` of netobs.kernel.kept_links. The helper may hang, and the loop does not wait for it: attaching raises
    BlockingIOError (EINPROGRESS) while the helper is asked, and returns what it has made when ``settle`` has this
    interface attached to once more. A link or filter that is not wanted any more by then is taken off."""

    def __init__(self, calls: HelperCalls, namespace: str, requests: socket.socket) -> None:
        """``requests``: a netlink socket there."""
        self._calls, self._namespace, self._requests = calls, namespace, requests
        self.settle: Callable[[int], None] = lambda index: None
        """Called with the index of an interface."""
        self._answers: dict[_Hook, Any] = {}  # None: the helper is asked
        self._outdated: set[_Hook] = set()
        self._filters: set[tuple[_Hook, int]] = set()  # with their priorities: a hook may have two for a moment
        self._made_qdiscs: set[int] = set()  # by interface: for filters of ours that are there

    def make_link(self, interface: Interface, direction: str, program_fd: int, place: FilterPlace) -> int:
        """As ``attach.make_link``.

        :raises OSError: EINPROGRESS: the helper is asked; EPIPE: it is away; or as the kernel refused.
        """

        def ask(helper: Helper, program: int) -> _Link:
            return _Link(helper.make_link(self._namespace, interface.index, direction, program, place.last))

        made: _Link = self._answer(_Hook(interface.index, direction, "tcx"), program_fd, ask)
        return made.fd

    def attach(
        self, interface: Interface, direction: str, program_fd: int, method: str, place: FilterPlace
    ) -> Attachment:
        """As ``attach.attach``.

        :raises OSError: as in ``make_link``.
        """
        if method == "tcx":
            link = self.make_link(interface, direction, program_fd, place)
            return attachment_of_link(interface, direction, link, place.last)
        hook = _Hook(interface.index, direction, method)
        ask = self._placing(hook, place, beside=place.beside)
        return self._filter(interface, hook, self._answer(hook, program_fd, ask), place)

    def former_filters(self, interface: Interface, direction: str, place: FilterPlace) -> list[int]:
        """As ``attach.former_filters``."""
        return self._priorities(interface.index, direction, place)

    def remove_former_filter(self, interface: Interface, direction: str, place: FilterPlace) -> None:
        """As ``attach.remove_former_filter``, as soon as the helper answers."""
        self._remove(_Hook(interface.index, direction, "tc"), PlacedFilter(place.priority, ANY_PROGRAM, False))

    def adopt_qdiscs(self, indices: Iterable[int], place: FilterPlace) -> None:
        """As ``attach.adopt_qdiscs``."""
        former = {_Hook(index, each, "tc") for index in indices for each in TC_H_CLSACT}
        self._filters = {(hook, each) for hook in former for each in self._priorities(*hook[:2], place)}
        self._made_qdiscs = {hook.ifindex for hook, _ in self._filters}

    def made_qdiscs(self) -> list[int]:
        """As ``attach.made_qdiscs``."""
        return sorted(self._made_qdiscs)

    def _priorities(self, ifindex: int, direction: str, place: FilterPlace) -> list[int]:
        """Of the filters with our handle."""
        return priorities_of(place.handle, ifindex, TC_H_CLSACT[direction], self._requests)

    def outdate(self) -> None:
        """The programs are others from now on: what the helper is making is made once more."""
        self._outdated.update(self._answers)

    def close(self) -> None:
        """Settles nothing any more."""
        self.settle = lambda index: None

    def _placing(self, hook: _Hook, place: FilterPlace, **values: int | bool) -> Callable[[Helper, int], PlacedFilter]:
        return lambda helper, program: helper.place_filter(
            self._namespace, hook.ifindex, hook.direction, program, place.last, **values
        )

    def _answer(self, hook: _Hook, program_fd: int, ask: Callable[[Helper, int], Any]) -> Any:
        if hook not in self._answers:
            self._answers[hook] = None
            self._call(program_fd, ask, functools.partial(self._on_answer, hook))
        answer = self._answers[hook]
        if answer is None:
            raise BlockingIOError(errno.EINPROGRESS, "the root helper is asked")
        del self._answers[hook]
        if isinstance(answer, OSError):
            raise answer
        return answer

    def _call(self, program_fd: int, ask: Callable[[Helper, int], Any], then: Callable[[Any, int], None]) -> None:
        program = os.dup(program_fd)  # the other one may be closed before the helper is asked

        def answered(answer: Any, now_ns: int) -> None:
            os.close(program)
            then(answer, now_ns)

        self._calls.call(lambda: ask(self._calls.helper, program), answered)

    def _on_answer(self, hook: _Hook, answer: Any, _now_ns: int) -> None:
        if isinstance(answer, PlacedFilter):
            self._filters.add((hook, answer.priority))
            if answer.made_qdisc:
                self._made_qdiscs.add(hook.ifindex)
        if hook in self._outdated:
            self._outdated.remove(hook)
            del self._answers[hook]
            self._undo(hook, answer)
            self.settle(hook.ifindex)
            return
        self._answers[hook] = answer
        self.settle(hook.ifindex)
        if self._answers.get(hook) is answer:
            del self._answers[hook]
            self._undo(hook, answer)

    def _undo(self, hook: _Hook, answer: Any) -> None:
        if isinstance(answer, _Link):
            os.close(answer.fd)  # which takes the program off
        elif isinstance(answer, PlacedFilter):
            self._remove(hook, answer)

    def _remove(self, hook: _Hook, placed: PlacedFilter) -> None:
        made_qdisc = hook.ifindex in self._made_qdiscs  # for the other direction, perhaps
        self._forget(hook, placed.priority)

        def removed(answer: object, _now_ns: int) -> None:
            if isinstance(answer, OSError) and answer.errno not in (errno.ENOENT, errno.ENODEV):
                where = f"{self._namespace}/ifindex {hook.ifindex} {hook.direction}"
                log.warning("%s: filter not removed: %s", where, answer.strerror)

        self._calls.call(
            lambda: self._calls.helper.unlink(
                self._namespace, hook.ifindex, hook.direction, placed._replace(made_qdisc=made_qdisc)
            ),
            removed,
        )

    def _filter(self, interface: Interface, hook: _Hook, placed: PlacedFilter, place: FilterPlace) -> Attachment:
        def swap(program_fd: int) -> None:
            """Without the helper, whose socket it is: both need CAP_NET_ADMIN, whoever opens it and whoever sends."""
            nonlocal placed
            number = libbpf.number_of(program_fd)
            name = f"{libbpf.program_info(program_fd)[1]}:[{number}]"
            parent, where = TC_H_CLSACT[hook.direction], (place.handle, placed.priority)
            with capabilities.taken_up(capabilities.NET_ADMIN):
                replace_filter(self._requests, hook.ifindex, parent, *where, program_fd, name)
            placed = placed._replace(program=number)

        def is_there() -> bool:
            return placed.priority in self._priorities(*hook[:2], place)

        def detach() -> None:
            self._remove(hook, placed)

        def forget() -> None:
            self._made_qdiscs.discard(hook.ifindex)  # somebody has removed it, or made another one since
            self._forget(hook, placed.priority)

        return Attachment(interface, hook.direction, "tc", detach, is_there, forget, swap, place.last)

    def _forget(self, hook: _Hook, priority: int) -> None:
        self._filters.discard((hook, priority))
        others = {each.ifindex for each, _ in self._filters} | {each.ifindex for each in self._answers}
        if hook.ifindex not in others:
            self._made_qdiscs.discard(hook.ifindex)
