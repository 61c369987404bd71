"""Packet filters: from what an operator writes to programs that the kernel runs."""

from __future__ import annotations

from collections.abc import Sequence

from netobs.base.errors import FilterError
from netobs.pcap.filters import classic, libpcap, simple
from netobs.pcap.filters.classic import Program
from netobs.pcap.filters.mistake import Mistake, in_one_line
from netobs.pcap.selection import Filter


def compile_filter(texts: Sequence[str], optimize: bool = True) -> Filter:
    """The filter that selects what any of ``texts`` selects: each in the simple form (simple.py), or in the language of
    pcap-filter(7). ``optimize``: whether libpcap does so.

    May block: libpcap asks the name service for the names in an expression.

    :raises FilterError: a text cannot be compiled; quotes it, with libpcap's own message.
    """
    if not texts:
        raise FilterError("no filter is given", 'the empty one, "", selects every packet')
    first, *others = (_compile_one(text, optimize) for text in dict.fromkeys(texts))
    if not others:
        return first
    return Filter(" or ".join(texts), first.ethernet, first.ip, tuple(others))


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
