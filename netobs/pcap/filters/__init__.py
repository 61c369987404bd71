"""Packet filters: compiles the operator's text to programs that the kernel runs."""

from __future__ import annotations

from collections.abc import Sequence

from netobs.base.errors import FilterError
from netobs.config.text import one_line
from netobs.pcap.filters import classic, libpcap, simple
from netobs.pcap.selection import Filter, Program

MAX_OF_LIST = 2048
"""Instructions of all filters of a list. To make and verify the programs of this many takes up to half a second, in
which nobody gets packets; and each packet passes each filter."""

Compiled = tuple[Program, Program]
"""A text as classic programs: for packets that start with an Ethernet header, and with an IP header (empty: none)."""


def compile_filter(texts: Sequence[str], optimize: bool = True) -> Filter:
    """The filter that selects a packet if any of ``texts`` does: each in the simple form (simple.py), or in the
    language of pcap-filter(7). ``optimize``: whether libpcap optimizes.

    libpcap runs in this process, and may ask the name service: use ``apart.compile_apart`` for texts of others.

    :raises FilterError: a text cannot be compiled; quotes it, with libpcap's own message. Or all are too large.
    """
    texts = given(texts)
    return joined(texts, [compile_text(text, optimize) for text in texts])


def given(texts: Sequence[str]) -> tuple[str, ...]:
    """Each of ``texts`` once. Raises FilterError if there is none."""
    if not texts:
        raise FilterError("no filter is given", 'the empty one, "", selects every packet')
    return tuple(simple.merged(texts))


def joined(texts: Sequence[str], compiled: Sequence[Compiled]) -> Filter:
    """One filter of all ``texts``. Raises FilterError if the kernel cannot run one of them."""
    for text, programs in zip(texts, compiled):
        for reason in [classic.problem(program) for program in programs[: 1 if not programs[1] else 2]]:
            if reason:
                raise _error(text, reason)
    ethernet, ip = (tuple(program for program in programs if program) for programs in zip(*compiled))
    whole = Filter(" or ".join(texts), ethernet, ip)
    if len(texts) > 1 and whole.instructions > MAX_OF_LIST:
        raise FilterError(
            f"a list of {len(texts)} filters has {whole.instructions} instructions, and at most {MAX_OF_LIST} are "
            "possible",
            'join filters by "or" to one, which has fewer',
        )
    return whole


def compile_text(text: str, optimize: bool = True) -> Compiled:
    """One text. Raises FilterError."""
    try:
        return simple.compile_simple(text) if simple.is_simple(text) else _compile_expression(text, optimize)
    except FilterError as error:
        raise _error(text, error.args[0], error.hint) from None


def _error(text: str, reason: str, hint: str = "") -> FilterError:
    return FilterError(f'filter "{one_line(text)}": {reason}', hint)


def _compile_expression(text: str, optimize: bool) -> Compiled:
    ethernet = libpcap.compile_expression(text, libpcap.ETHERNET, optimize)
    try:
        return ethernet, libpcap.compile_expression(text, libpcap.RAW_IP, optimize)
    except FilterError:
        return ethernet, ()  # an expression about Ethernet selects nothing on a link without it
