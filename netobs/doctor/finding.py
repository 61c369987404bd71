"""What the doctor says: one finding for each fact that matters, with what netobs does and what the operator can do."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, NamedTuple

from netobs.config.text import folded

SEVERITIES = ("problem", "warning", "note", "ok")
"""The worst first. A problem: netobs does not work, or not as configured. A warning: packets or flows may be missing,
or count twice. A note: good to know."""
_DIRECTIONS = (" ingress", " egress")
HOST, DAEMON, CONFIGURATION, NOT_SEEN = "host", "daemon", "configuration", "not-seen"


class Finding(NamedTuple):
    """``id`` is stable, for scripts. ``where``: interfaces with a direction, collectors, or one of the words above.
    ``netobs``: what netobs does about it; ``remedy``: what the operator can do; both may be empty."""

    id: str
    severity: str
    what: str
    where: tuple[str, ...] = (HOST,)
    netobs: str = ""
    remedy: str = ""

    def as_json(self) -> dict[str, Any]:
        """For ``--json``."""
        return {**self._asdict(), "where": list(self.where)}

    def place(self) -> str:
        """``where`` in one line: ``eth0 ingress; 500 taps ingress and egress``."""
        directions: dict[str, list[str]] = {}
        for each in self.where:
            name, _, direction = each.rpartition(" ") if each.endswith(_DIRECTIONS) else (each, "", "")
            directions.setdefault(name, []).append(direction)
        alike: dict[str, list[str]] = {}
        for name, ways in directions.items():
            alike.setdefault(" and ".join(filter(None, ways)), []).append(name)
        return "; ".join(f"{folded(names)} {ways}".rstrip() for ways, names in alike.items())


def not_seen(what: str, needed: str) -> Finding:
    """Something that this process may not look at."""
    return Finding(NOT_SEEN, "note", f"not looked at: {what}", netobs="", remedy=f"run netobs doctor {needed}")


def joined(findings: Iterable[Finding]) -> list[Finding]:
    """Those that differ in ``where`` only become one; the worst first, otherwise in their order."""
    places: dict[Finding, dict[str, None]] = {}
    for each in findings:
        places.setdefault(each._replace(where=()), {}).update(dict.fromkeys(each.where))
    found = [each._replace(where=tuple(where)) for each, where in places.items()]
    return sorted(found, key=lambda each: SEVERITIES.index(each.severity))


def worst(findings: Iterable[Finding]) -> str:
    """The severity of the worst."""
    return min((each.severity for each in findings), key=SEVERITIES.index, default="ok")
