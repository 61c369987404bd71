"""Which interfaces get TCX links, and which get filters."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Callable

from netobs.base.errors import CaptureError
from netobs.kernel import descriptors, privileges
from netobs.kernel.attach import Attachment, has_tcx, may_filter, method_for
from netobs.kernel.interfaces import Interface
from netobs.kernel.many import for_filters, has_tcx_programs


def possible(setting: str, program_fd: int) -> str:
    """The method for the key capture.attach: tcx or tc. ``program_fd``: any program for the hooks.

    :raises CaptureError: the configured method does not work, or this process lacks the right.
    """
    method = method_for(setting, lambda: has_tcx(program_fd))
    if method == "tc" and not may_filter():
        raise CaptureError(*privileges.explain_filters())
    return method


class Methods:
    """``find`` -> ``choose`` -> ``best_first`` for a hook without a program of ours, ``for_attached`` for others."""

    def __init__(self, setting: str, of_host: Methods | None = None) -> None:
        """``setting``: as the key capture.attach. ``of_host``: for another network namespace than this process's."""
        self.setting, self._of_host = setting, of_host
        self.method = ""
        """tcx or tc; with ``mixes``, of the most important interfaces."""
        self.mixes = False
        """Whether interfaces may get filters instead of links; see ``many.py``."""
        self._by_filter: set[int] = set()

    def find(self, program_fd: Callable[[str], int], probe: str) -> None:
        """Finds out how to attach. ``probe``: any program for the hooks.

        :raises CaptureError: as in ``possible``.
        """
        if self._of_host is not None:
            self.method = self._of_host.method
            return
        self.method = possible(self.setting, program_fd(probe))
        self.mixes = self.setting == "auto" and self.method == "tcx" and may_filter()
        if self.method == "tcx":
            descriptors.raise_limit()

    def for_filters(self, present: Sequence[Interface], wanted: Sequence[Interface]) -> set[int]:
        """The indices of the ``present`` and ``wanted`` interfaces that get filters, although the method is tcx."""
        return for_filters(present, wanted) if self.mixes else set()

    def choose(self, present: Sequence[Interface], wanted: Sequence[Interface]) -> None:
        """Goes by what is there now."""
        self._by_filter = self.for_filters(present, wanted)

    def links_only(self) -> bool:
        """No interface gets a filter any more. Whether that is new."""
        is_new = bool(self._by_filter)
        self._by_filter.clear()
        return is_new

    def forget(self, index: int) -> None:
        """The interface has gone."""
        self._by_filter.discard(index)

    def _gets_filter(self, index: int, direction: str) -> bool:
        return index in self._by_filter and not has_tcx_programs(index, direction)

    def best_first(self, index: int, direction: str) -> tuple[str, ...]:
        """For a hook that has no program yet."""
        return ("tc", "tcx") if self._gets_filter(index, direction) else (self.method,)

    def for_attached(self, one: Attachment) -> str:
        """The method that it should have; its own, where that will do. A link is never replaced for the time that it
        takes to make: it is there."""
        if one.method == self.method or (one.method == "tc" and self._gets_filter(one.interface.index, one.direction)):
            return one.method
        return self.method
