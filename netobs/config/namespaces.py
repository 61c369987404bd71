"""Which network namespaces are observed, by the names that ``ip netns`` gives them, and which interfaces there."""

from __future__ import annotations

import fnmatch
import re
from collections.abc import Sequence
from dataclasses import dataclass

from netobs.config.selector import GLOB_CHARACTERS, GLOB_SET, InterfaceSelector, compile_entry
from netobs.config.text import quoted, toml_text
from netobs.config.values import BadValue, Kind

MAX_NAME_BYTES = 255  # NAME_MAX: a namespace has a file of its name
_ANY_INTERFACE = "*"


def is_namespace_name(text: str) -> bool:
    """Whether a file in a folder can have this name: no path, and nothing that moves a cursor."""
    return (
        text.isprintable() and "/" not in text and 0 < len(text.encode()) <= MAX_NAME_BYTES and text not in (".", "..")
    )


class NamespaceSelector:
    """Entries are ``NAMESPACE`` or ``NAMESPACE/INTERFACE``, each part a name or a glob (``fnmatch``). Without the
    second part an entry stands for every interface there. ``exclude``: as in ``InterfaceSelector``."""

    def __init__(self, entries: Sequence[str], exclude: Sequence[str] = ()) -> None:
        parts = [entry.partition("/") for entry in entries]
        self._entries = [(_compiled(namespace), interface or _ANY_INTERFACE) for namespace, _, interface in parts]
        self._exclude = exclude

    def matches(self, name: str) -> bool:
        """Whether the namespace called ``name`` is to be observed."""
        return any(pattern.fullmatch(name) for pattern, _ in self._entries)

    def interfaces(self, name: str) -> InterfaceSelector:
        """Which interfaces of the namespace ``name`` are to be observed."""
        return InterfaceSelector([each for pattern, each in self._entries if pattern.fullmatch(name)], self._exclude)


def _compiled(glob: str) -> re.Pattern[str]:
    return re.compile(fnmatch.translate(glob))


@dataclass(eq=False, repr=False)
class NamespacePatterns(Kind):
    """A list of entries for a NamespaceSelector, parsed to a tuple of strings. ``interfaces``: an entry may have the
    second part."""

    interfaces: bool = True

    @property
    def expected(self) -> str:
        second = ', each with "/" and a name or glob of interfaces if not all are meant' if self.interfaces else ""
        return f"a list of names or globs of network namespaces{second}"

    def parse(self, value: object) -> tuple[str, ...]:
        if isinstance(value, str):
            raise self.refuse(value, f"write [{quoted(value)}]")
        if not isinstance(value, (list, tuple)):
            raise self.refuse(value)
        reasons = [self._problem(number, entry) for number, entry in enumerate(value, 1)]
        if any(reasons):
            raise BadValue(*filter(None, reasons))
        return tuple(value)

    def _problem(self, number: int, entry: object) -> str:
        """The mistake in an entry of the list, or an empty string."""
        if not isinstance(entry, str):
            return f"entry {number}: expected a name or a glob, got {toml_text(entry)}"
        where = f"entry {number}, {quoted(entry)}"
        namespace, slash, interface = entry.partition("/")
        if not is_namespace_name(namespace) or (slash and not self.interfaces):
            return f'{where}: the name of a network namespace has 1 to {MAX_NAME_BYTES} bytes and no "/"'
        if "[" in GLOB_SET.sub("", namespace):
            return f'{where}: bad glob: a "[" without its "]"'
        if not slash:
            return ""
        try:
            compile_entry(interface)
        except ValueError as error:
            return f"{where}: {error}"
        return ""


def has_glob(entry: str) -> bool:
    """Whether an entry may stand for namespaces that do not exist yet under any name known now."""
    return not GLOB_CHARACTERS.isdisjoint(entry.partition("/")[0])
