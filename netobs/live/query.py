"""What a client of the live table wants to see. It arrives as an object of JSON, which is checked as any input.

{"by": ["src", "dst"], "sort": "bits", "filter": "net 192.0.2.0/24", "rows": 20, "prefixes": [24, 64], "interval": 1}
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from netobs.base.errors import NetobsError
from netobs.config.text import nearest, quoted
from netobs.live import filters

BY = {
    "proto": "protocol",
    "src": "source address",
    "srcnet": "source network",
    "sport": "source port",
    "dst": "destination address",
    "dstnet": "destination network",
    "dport": "destination port, or type and code of ICMP",
    "if": "interface",
    "dir": "direction",
    "vlan": "VLAN of the outer tag",
}
"""What flows can be grouped by, in the order of the columns."""
DEFAULT_BY = ("proto", "src", "sport", "dst", "dport", "if", "dir")
"""Each flow as it is measured: a packet that is forwarded is measured twice, and is in two of them."""
SORT = ("bits", "packets", "flows")
"""By bits, packets, or new flows per second."""
MOST_ROWS = 1000
LONGEST_INTERVAL_S = 3600
_PREFIX_RANGE = ((8, 32), (8, 64))
_KEYS = ("by", "sort", "filter", "rows", "prefixes", "interval")


class Query(NamedTuple):
    """``prefixes``: the lengths of networks, IPv4 and IPv6. ``interval``: seconds between two frames."""

    by: tuple[str, ...] = DEFAULT_BY
    sort: str = "bits"
    filter: str = ""
    rows: int = 20
    prefixes: tuple[int, int] = (24, 64)
    interval: int = 1

    @property
    def condition(self) -> filters.Condition | None:
        """The filter, parsed; None: every flow."""
        return filters.parse(self.filter)


def parse(given: Mapping[str, Any], before: Query | None = None) -> Query:
    """The query that ``given`` describes; keys that are missing are as in ``before``, or have their defaults.

    :raises NetobsError: a key has a wrong value.
    """
    whole = {**(before or Query())._asdict(), **{key: given[key] for key in _KEYS if key in given}}
    query = Query(
        _by(whole["by"]),
        _one_of("sort", whole["sort"], SORT),
        _text("filter", whole["filter"]),
        _number("rows", whole["rows"], 1, MOST_ROWS),
        _prefixes(whole["prefixes"]),
        _number("interval", whole["interval"], 1, LONGEST_INTERVAL_S),
    )
    filters.parse(query.filter)
    return query


def _by(words: Any) -> tuple[str, ...]:
    if not isinstance(words, (list, tuple)) or len(words) > len(BY):
        raise NetobsError(f"by: expected a list of at most {len(BY)} words", f"these exist: {', '.join(BY)}")
    chosen = {_one_of("by", word, tuple(BY)) for word in words}
    return tuple(word for word in BY if word in chosen)


def _one_of(key: str, word: Any, words: tuple[str, ...]) -> str:
    if isinstance(word, str) and word in words:
        return word
    text = str(word)[:40]
    near = nearest(text, words)
    raise NetobsError(
        f"{key}: there is no {quoted(text)}", f"did you mean {near}?" if near else f"use {', '.join(words)}"
    )


def _text(key: str, text: Any) -> str:
    if not isinstance(text, str) or len(text) > filters.LONGEST:
        raise NetobsError(f"{key}: expected a text of at most {filters.LONGEST} characters", "make it shorter")
    return text.strip()


def _number(key: str, number: Any, least: int, most: int) -> int:
    if not isinstance(number, int) or isinstance(number, bool) or not least <= number <= most:
        raise NetobsError(f"{key}: expected a whole number, {least} to {most}", f"got {str(number)[:40]}")
    return number


def _prefixes(lengths: Any) -> tuple[int, int]:
    if not isinstance(lengths, (list, tuple)) or len(lengths) != len(_PREFIX_RANGE):
        raise NetobsError("prefixes: expected two lengths, for IPv4 and IPv6", "for instance 24,64")
    ipv4, ipv6 = (_number("prefixes", length, *bounds) for length, bounds in zip(lengths, _PREFIX_RANGE))
    return ipv4, ipv6
