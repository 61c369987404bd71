"""How messages show values and names: in TOML notation, on one line."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterable

from netobs.base.log import printable

LONGEST = 60  # characters of a value that a message repeats
MANY_NAMES, FEW_ALIKE = 8, 3


def quoted(text: str) -> str:
    """``text`` as a TOML string on one line: cut if it is long, with everything unprintable escaped."""
    cut = text if len(text) <= LONGEST else text[: LONGEST - 3] + "..."
    return printable(json.dumps(cut, ensure_ascii=False))


def folded(names: Iterable[str]) -> str:
    """Names of interfaces for one line: ``eth0, bond0, 90 bond0.* and 512 taps``. Up to eight are all named. Of more,
    names that start alike, as on a hypervisor, become a number, and so do the others beyond eight."""
    shown = [printable(name) for name in names]
    if len(shown) <= MANY_NAMES:
        return ", ".join(shown)
    groups: dict[str, list[str]] = {}
    vlans = Counter(name.rpartition(".")[0] for name in shown)
    for name in shown:
        device = name.rpartition(".")[0]
        if device and vlans[device] > FEW_ALIKE:
            group = f"{device}.*"
        else:
            group = re.split(r"(?<=[a-z]{3})|\d", name, maxsplit=1)[0] or name
        groups.setdefault(group, []).append(name)
    alone = [name for group in groups.values() if len(group) <= FEW_ALIKE for name in group]
    counts = [f"{len(group)} {_kind(name, group)}" for name, group in groups.items() if len(group) > FEW_ALIKE]
    if len(alone) > MANY_NAMES:
        counts.append(f"{len(alone) - MANY_NAMES} others")
    *first, last = [*alone[:MANY_NAMES], *counts]
    return f"{', '.join(first)} and {last}" if first else last


def _kind(group: str, names: list[str]) -> str:
    """What all ``names`` are: ``taps``, or ``bond0.*`` of VLANs. A number at the end may be hexadecimal."""
    if group.endswith(".*"):
        return group
    if all(re.fullmatch(r"[a-z]{3}[0-9a-f-]{7,}", name) for name in names):
        return f"{group}s"
    least, greatest = min(names), max(names)
    same = next((at for at, pair in enumerate(zip(least, greatest)) if pair[0] != pair[1]), len(least))
    return f"{least[:same].rstrip('0123456789-_.') or least}s"


def one_line(text: str) -> str:
    """``text`` without quotes, everything unprintable escaped, cut when long."""
    return printable(text if len(text) <= 2 * LONGEST else text[: 2 * LONGEST] + "...")


def toml_text(value: object) -> str:
    """``value`` as an operator would write it in TOML."""
    if isinstance(value, str):
        return quoted(value)
    if isinstance(value, dict):
        return "a table"
    if isinstance(value, list):
        return _list_text(value)
    if isinstance(value, int) and abs(value) >= 1 << 64:
        return "an integer of more than 64 bits"  # Python refuses to print the longest ones
    return str(value).lower() if isinstance(value, bool) else printable(str(value))


def _list_text(values: list[object]) -> str:
    if any(isinstance(value, (list, dict)) for value in values):
        return "a nested list"
    text = "[" + ", ".join(map(toml_text, values)) + "]"
    return text if len(text) <= 2 * LONGEST else f"a list of {len(values)} entries"


def nearest(word: str, known: Iterable[str]) -> str:
    """The known word that was probably meant, or an empty string."""
    from difflib import get_close_matches  # only a mistake needs it

    by_lower = {name.lower(): name for name in known}
    near = get_close_matches(word.lower()[:LONGEST], by_lower, n=1, cutoff=0.6)
    return by_lower[near[0]] if near else ""
