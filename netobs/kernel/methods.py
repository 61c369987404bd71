"""Which interfaces get TCX links, and which get filters."""

from __future__ import annotations

from collections.abc import Sequence

from netobs.base.errors import CaptureError
from netobs.kernel import descriptors, privileges
from netobs.kernel.attach import Attachment, has_tcx, may_filter, method_for
from netobs.kernel.interfaces import Interface
from netobs.kernel.many import for_filters, has_tcx_programs


class Methods:
    """``find`` -> ``choose`` -> ``best_first`` for a hook that has no program yet, ``fits`` for one that has."""

    def __init__(self, setting: str, is_here: bool) -> None:
        """``setting``: as the key capture.attach. ``is_here``: in the network namespace of this process."""
        self._setting, self._is_here = setting, is_here
        self.method = ""
        """tcx or tc; with ``mixes``, of the most important interfaces."""
        self.mixes = False
        """Whether interfaces may get filters instead of links; see ``many.py``."""
        self._by_filter: set[int] = set()

    def find(self, program_fd: int) -> None:
        """Finds out how to attach. ``program_fd``: any program for the hooks.

        :raises CaptureError: the configured method does not work, or this process lacks the right.
        """
        self.method = method_for(self._setting, lambda: has_tcx(program_fd))
        if self.method == "tc" and not may_filter():
            raise CaptureError(*privileges.explain_filters())
        if self.method == "tcx":
            self.mixes = self._setting == "auto" and self._is_here and may_filter()
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

    def best_first(self, index: int, direction: str, former: str) -> tuple[str, ...]:
        """``former``: the method of the former process on this hook, which goes on where it may, or ""."""
        former = former if self._setting == "auto" else ""
        by_filter = self.method == "tcx" and (former == "tc" or (not former and index in self._by_filter))
        if by_filter and not has_tcx_programs(index, direction):
            return ("tc", "tcx")
        return (self.method,)

    def fits(self, one: Attachment) -> bool:
        """Whether it may stay as it is."""
        if not self.mixes or one.method != "tc":
            return True
        index = one.interface.index
        return index in self._by_filter and not has_tcx_programs(index, one.direction)
