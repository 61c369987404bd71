"""Packet filters: from what an operator writes to programs that the kernel runs."""

from __future__ import annotations

from collections.abc import Sequence

from netobs.base.errors import FilterError
from netobs.pcap.filters import classic, libpcap, simple
from netobs.pcap.filters.classic import Program
from netobs.pcap.filters.mistake import Mistake, in_one_line
from netobs.pcap.selection import Filter

MAX_OF_LIST = 2048
"""Instructions of all filters of a list. To make and verify the programs of so many takes up to half a second, when
nobody is given packets; each filter is looked at for each packet."""


def compile_filter(texts: Sequence[str], optimize: bool = True) -> Filter:
    """The filter that selects what any of ``texts`` selects: each in the simple form (simple.py), or in the language of
    pcap-filter(7). ``optimize``: whether libpcap does so.

    May block: libpcap asks the name service for the names in an expression.

    :raises FilterError: a text cannot be compiled; quotes it, with libpcap's own message. Or all are too large.
    """
    if not texts:
        raise FilterError("no filter is given", 'the empty one, "", selects every packet')
    texts = simple.merged(texts)
    first, *others = (_compile_one(text, optimize) for text in texts)
    if not others:
        return first
    joined = Filter(" or ".join(texts), first.ethernet, first.ip, tuple(others))
    if joined.instructions > MAX_OF_LIST:
        raise FilterError(
            f"a list of {len(texts)} filters has {joined.instructions} instructions, and at most {MAX_OF_LIST} are "
            "possible",
            'join filters by "or" to one, which has fewer',
        )
    return joined


def _compile_one(text: str, optimize: bool) -> Filter:
    try:
        ethernet, ip = simple.compile_simple(text) if simple.is_simple(text) else _compile_expression(text, optimize)
        return Filter(text, _checked(ethernet), _checked(ip) if ip else ())
    except Mistake as error:
        raise FilterError(f'filter "{in_one_line(text)}": {error}', error.hint) from None


def _compile_expression(text: str, optimize: bool) -> tuple[Program, Program]:
    ethernet = libpcap.compile_expression(text, libpcap.ETHERNET, optimize)
    try:
        return ethernet, libpcap.compile_expression(text, libpcap.RAW_IP, optimize)
    except Mistake:
        return ethernet, ()  # what asks for Ethernet has no meaning where there is none: it selects nothing


def _checked(program: Program) -> Program:
    reason = classic.problem(program)
    if reason:
        raise Mistake(reason)
    return program
