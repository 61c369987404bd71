"""Groups of collectors: the kind of their lists, and the checks between groups and collectors."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from netobs.config.text import nearest, quoted, toml_text
from netobs.config.values import BadValue, Kind

LEAST = 2  # collectors in a group


class CollectorNames(Kind):
    """A list of names of collectors in order, parsed to a tuple of strings. Whether they exist is checked later."""

    @property
    def expected(self) -> str:
        return f"a list of names of collectors, at least {LEAST}"

    def parse(self, value: object) -> tuple[str, ...]:
        if not isinstance(value, list) or len(value) < LEAST:
            raise self.refuse(value)
        reasons = [
            f"entry {number}: expected the name of a collector, got {toml_text(entry)}"
            for number, entry in enumerate(value, 1)
            if not isinstance(entry, str)
        ]
        if reasons:
            raise BadValue(*reasons)
        return tuple(value)


def group_problems(groups: Sequence[dict[str, Any]], collectors: Sequence[str]) -> Iterator[tuple[int, str, str]]:
    """Mistakes between ``groups`` (values by field name) and the names of all ``collectors``.

    Yields the number of the group, the key, and the reason.
    """
    names: dict[str, int] = {}
    owners: dict[str, int] = {}
    for number, group in enumerate(groups, 1):
        first = names.setdefault(group["name"], number) if "name" in group else number
        if first != number:
            yield number, "name", f"group {first} has this name already; names must differ"
        for entry, name in enumerate(group.get("collectors", ()), 1):
            reason = _member_problem(name, number, collectors, owners)
            if reason:
                yield number, "collectors", f"entry {entry}, {quoted(name)}: {reason}"


def _member_problem(name: str, number: int, collectors: Sequence[str], owners: dict[str, int]) -> str:
    """Why ``name`` cannot be in group ``number``, or an empty string. ``owners``: the group of each one so far."""
    if name not in collectors:
        near = nearest(name, collectors)
        known = "the collectors are " + ", ".join(map(quoted, filter(None, collectors)))
        return f"no collector has this name; {f'did you mean {quoted(near)}?' if near else known}"
    if name in owners:
        where = "this group" if owners[name] == number else f"group {owners[name]}"
        return f"it is in {where} already; a collector is in one group, once"
    owners[name] = number
    return ""
