"""Values of Information Elements as people read them: addresses and MACs as text, times as ISO 8601."""

from __future__ import annotations

import ipaddress
import math
from collections.abc import Callable
from datetime import datetime, timedelta
from functools import lru_cache
from typing import Any

from netobs.base.ipfix import NTP_EPOCH_S

_EPOCH = datetime(1970, 1, 1)  # noqa: DTZ001  UTC, and said by the Z
_BOOLEANS = {1: True, 2: False}


def _ipv4(value: bytes) -> str:
    return "{}.{}.{}.{}".format(*value) if len(value) == 4 else value.hex()


@lru_cache(maxsize=4096)
def _ipv6(value: bytes) -> str:
    return str(ipaddress.IPv6Address(value)) if len(value) == 16 else value.hex()


def _mac(value: bytes) -> str:
    return value.hex(":") if len(value) == 6 else value.hex()


def _string(value: bytes) -> str:
    """Strings of fixed length are padded with NULs."""
    return value.rstrip(b"\0").decode("utf-8", "replace")


def _octets(value: bytes) -> str:
    return value.hex()


def _boolean(value: int) -> bool | int:
    return _BOOLEANS.get(value, value)


def _float(value: float) -> float | str:
    """NaN and infinity as text: JSON has no numbers for them."""
    return value if math.isfinite(value) else str(value)


def _seconds(value: int) -> str | int:
    return _iso(value, value, "")


def _milliseconds(value: int) -> str | int:
    seconds, ms = divmod(value, 1_000)
    return _iso(value, seconds, f".{ms:03d}")


def _microseconds(value: int) -> str | int:
    """Truncated: encoders round the fraction up to the next step of their resolution (RFC 7011, 6.1.9)."""
    seconds, fraction = _ntp(value)
    return _iso(value, seconds, f".{(fraction * 1_000_000) >> 32:06d}")


def _nanoseconds(value: int) -> str | int:
    """Nine digits (RFC 7011, 6.1.10)."""
    seconds, fraction = _ntp(value)
    return _iso(value, seconds, f".{(fraction * 1_000_000_000) >> 32:09d}")


def _ntp(value: int) -> tuple[int, int]:
    """Seconds since 1970, and fraction (2**-32 s).

    NTP time starts again in 2036: the high bit tells the era (RFC 4330, 3).
    """
    seconds, fraction = value >> 32, value & 0xFFFFFFFF
    return seconds - NTP_EPOCH_S + (0 if seconds >> 31 else 1 << 32), fraction


def _iso(raw: int, seconds: int, fraction: str) -> str | int:
    """ISO 8601 in UTC; ``raw`` if the time is beyond the year 9999, which only a damaged Message holds."""
    text = _second(seconds)
    return f"{text}{fraction}Z" if text else raw


@lru_cache(maxsize=4096)
def _second(since_1970: int) -> str:
    """Flows that are decoded together have few different seconds."""
    try:
        return (_EPOCH + timedelta(seconds=since_1970)).isoformat()
    except OverflowError:
        return ""


_READERS: dict[str, Callable[[Any], Any]] = {
    "ipv4Address": _ipv4,
    "ipv6Address": _ipv6,
    "macAddress": _mac,
    "string": _string,
    "boolean": _boolean,
    "float32": _float,
    "float64": _float,
    "dateTimeSeconds": _seconds,
    "dateTimeMilliseconds": _milliseconds,
    "dateTimeMicroseconds": _microseconds,
    "dateTimeNanoseconds": _nanoseconds,
}


_OF_BYTES = frozenset(("ipv4Address", "ipv6Address", "macAddress", "string"))


def reader(abstract_type: str, is_number: bool) -> Callable[[Any], Any] | None:
    """The function that makes values of ``abstract_type`` readable, None for numbers that stay as they are.

    ``is_number``: values come as numbers, else as bytes (any type can, in a field of odd length).
    """
    if is_number:
        return _READERS.get(abstract_type)
    return _READERS[abstract_type] if abstract_type in _OF_BYTES else _octets
