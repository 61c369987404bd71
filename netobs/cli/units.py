"""Numbers and times as people read them."""

from __future__ import annotations

from datetime import datetime, timezone

_SI = ("", "k", "M", "G", "T", "P", "E")
_STEPS = ((86_400, "d"), (3_600, "h"), (60, "min"), (1, "s"))
DAY_S = 86_400


def counted(number: int) -> str:
    """Every digit: ``1,234,567``."""
    return f"{number:,}"


def many(number: int, things: str) -> str:
    """``1,234 packets``, and ``1 packet``."""
    return f"{counted(number)} {things if number != 1 else things[:-1]}"


def short(number: float, unit: str = "") -> str:
    """Three digits: ``1.23 M``, with ``unit`` ``1.23 MB``. Steps of 1000."""
    for prefix in _SI:
        if abs(number) < 999.5 or prefix == _SI[-1]:
            break
        number /= 1000
    digits = (
        0 if number == int(number) and not prefix else 2 if abs(number) < 9.995 else 1 if abs(number) < 99.95 else 0
    )
    return f"{number:.{digits}f} {prefix}{unit}".rstrip()


def size(number: int) -> str:
    """Of memory: ``41.2 MiB``."""
    value, unit = float(number), "bytes"
    for larger in ("KiB", "MiB", "GiB", "TiB"):
        if value < 1024:
            break
        value, unit = value / 1024, larger
    return f"{number} bytes" if unit == "bytes" else f"{value:.1f} {unit}"


def amount(tally: dict[str, int]) -> str:
    """Flows, packets and octets, as far as they are there: every digit, and the octets in short as well."""
    parts = [many(tally[unit], unit) for unit in ("flows", "packets") if unit in tally]
    octets = tally["octets"]
    exact = f" ({short(octets, 'B')})" if octets >= 1000 else ""
    return ", ".join([*parts, f"{many(octets, 'octets')}{exact}"])


def duration(seconds: float) -> str:
    """Two units of it: ``3 d 4 h``, ``12 min``, ``5 s``, ``40 ms``."""
    if seconds < 1:
        return f"{1000 * seconds:.0f} ms"
    whole = int(seconds)
    for at, (length, unit) in enumerate(_STEPS):
        if whole >= length:
            rest = whole % length // _STEPS[at + 1][0] if at + 1 < len(_STEPS) else 0
            return f"{whole // length} {unit}" + (f" {rest} {_STEPS[at + 1][1]}" if rest else "")
    return "0 s"


def clock_time(at_s: float, now_s: float) -> str:
    """The time of day, with the date if it is not of the last 24 hours."""
    form = "%H:%M:%S" if abs(now_s - at_s) < DAY_S else "%Y-%m-%d %H:%M:%S"
    return datetime.fromtimestamp(at_s, timezone.utc).astimezone().strftime(form)


def ago(at_s: float | None, now_s: float) -> str:
    """``3 min ago (14:02:11)``; ``never`` for None."""
    if at_s is None:
        return "never"
    return f"{duration(max(1.0, now_s - at_s))} ago ({clock_time(at_s, now_s)})"
