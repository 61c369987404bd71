"""Which interfaces are observed: names, globs and regular expressions."""

from __future__ import annotations

import fnmatch
import re
import warnings
from collections.abc import Sequence
from dataclasses import dataclass

from netobs.config.text import quoted, toml_text
from netobs.config.values import BadValue, Kind

MAX_NAME_BYTES = 15  # IFNAMSIZ - 1
_ALL_KINDS = ("lo", "eth0", "Z", "9", "_-", "tap0f.12@x", "\N{LATIN SMALL LETTER E WITH ACUTE}")
GLOB_CHARACTERS = frozenset("*?[")
GLOB_SET = re.compile(r"\[(?:!.|[^!])[^\]]*\]")  # a "]" that comes first is one of the characters


class InterfaceSelector:
    """Decides whether to observe an interface.

    An entry is a name, a glob (``fnmatch``: ``*``, ``?``, ``[...]``, for the whole name) or ``/regex/``, which is
    searched in the name and so is anchored only by its own ``^`` and ``$``. ``exclude`` takes interfaces out of what
    the globs and regular expressions of ``include`` match; a name written out in ``include`` always counts.
    """

    def __init__(self, include: Sequence[str], exclude: Sequence[str] = ()) -> None:
        self.names = tuple(entry for entry in include if is_name(entry))
        """The entries that are names written out."""
        self._include = [compile_entry(entry) for entry in include if not is_name(entry)]
        self._exclude = [compile_entry(entry) for entry in exclude]

    @property
    def has_patterns(self) -> bool:
        """Whether there are globs or regular expressions, which may match interfaces that do not exist yet."""
        return bool(self._include)

    def matches(self, name: str) -> bool:
        """Whether the interface called ``name`` is to be observed."""
        if name in self.names:
            return True
        included = any(pattern.search(name) for pattern in self._include)
        return included and not any(pattern.search(name) for pattern in self._exclude)


def is_name(entry: str) -> bool:
    """Whether an entry is a name written out, neither a glob nor a regular expression."""
    return not entry.startswith("/") and GLOB_CHARACTERS.isdisjoint(entry)


def matches_all(entry: str) -> bool:
    """Whether a glob or regular expression seems to match every interface: it matches some unlikely names."""
    return not is_name(entry) and all(compile_entry(entry).search(name) for name in _ALL_KINDS)


def compile_entry(entry: str) -> re.Pattern[str]:
    """The pattern to search for in a name. Raises ValueError with the mistake in the entry."""
    if entry.startswith("/"):
        if len(entry) < len("/./") or not entry.endswith("/"):
            raise ValueError('a regular expression stands between two "/"')
        return _compile_regex(entry[1:-1], "regular expression", offset=2)
    if not entry or any(char in "/:" or not char.isprintable() or char.isspace() for char in entry):
        raise ValueError('an interface name is not empty and has no "/", ":" or space')
    if not is_name(entry):
        if "[" in GLOB_SET.sub("", entry):
            raise ValueError('bad glob: a "[" without its "]"')
        return _compile_regex(r"\A" + fnmatch.translate(entry), "glob")
    if len(entry.encode(errors="replace")) > MAX_NAME_BYTES or entry in {".", ".."}:
        raise ValueError(f"no interface can have this name (at most {MAX_NAME_BYTES} bytes)")
    return re.compile(rf"\A{re.escape(entry)}\Z")


def _compile_regex(pattern: str, what: str, offset: int | None = None) -> re.Pattern[str]:
    """``pattern`` compiled; ``offset`` is the place of its first character in the operator's entry."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about syntax that future Pythons may read differently
            return re.compile(pattern)
    except re.error as error:
        place = "" if error.pos is None or offset is None else f" at character {error.pos + offset}"
        raise ValueError(f"bad {what}: {error.msg}{place}") from error
    except (OverflowError, RecursionError) as error:
        raise ValueError(f"bad {what}: {error}") from error


@dataclass(eq=False, repr=False)
class Selectors(Kind):
    """A list of entries for an InterfaceSelector, parsed to a tuple of strings."""

    may_be_empty: bool = False

    @property
    def expected(self) -> str:
        return "a list of interface names, globs or /regex/" + ("" if self.may_be_empty else ", at least one")

    def parse(self, value: object) -> tuple[str, ...]:
        if isinstance(value, str):
            raise self.refuse(value, f"write [{quoted(value)}]")
        if not isinstance(value, (list, tuple)) or not (value or self.may_be_empty):
            raise self.refuse(value)
        reasons = [_entry_problem(number, entry) for number, entry in enumerate(value, 1)]
        if any(reasons):
            raise BadValue(*filter(None, reasons))
        return tuple(value)


def _entry_problem(number: int, entry: object) -> str:
    """The mistake in an entry of the list, or an empty string."""
    if not isinstance(entry, str):
        return f"entry {number}: expected a name, a glob or /regex/, got {toml_text(entry)}"
    try:
        compile_entry(entry)
    except ValueError as error:
        return f"entry {number}, {quoted(entry)}: {error}"
    return ""
