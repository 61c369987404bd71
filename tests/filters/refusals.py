"""What is said of texts that are no filter."""

from __future__ import annotations

from collections.abc import Sequence

from netobs.base.errors import FilterError
from netobs.pcap.filters import compile_filter


def refusal(texts: Sequence[str]) -> str:
    """The message."""
    try:
        compile_filter(texts)
    except FilterError as error:
        return str(error)
    raise AssertionError(f"{texts} was compiled")
