"""libpcap by ctypes: the compiler of the language of pcap-filter(7). It captures nothing.

It is opened when the first expression asks for it.
"""

from __future__ import annotations

import ctypes
import functools
from ctypes import POINTER, byref, c_char_p, c_int, c_ubyte, c_uint, c_ushort, c_void_p
from typing import Any

from netobs.base.errors import FilterError
from netobs.pcap.filters import classic
from netobs.pcap.selection import Instruction, Program

SONAMES = ("libpcap.so.0.8", "libpcap.so.1")
"""Debian and what comes from it; the others."""

ETHERNET, RAW_IP = 1, 12
"""DLT_EN10MB, and DLT_RAW as it is on Linux."""

_WHERE = "the package libpcap0.8 (Debian, Ubuntu) or libpcap (Fedora, EL)"
NETMASK_UNKNOWN = 0xFFFFFFFF  # PCAP_NETMASK_UNKNOWN


class BpfInstruction(ctypes.Structure):
    """struct bpf_insn."""

    _fields_ = [("code", c_ushort), ("jt", c_ubyte), ("jf", c_ubyte), ("k", c_uint)]


class BpfProgram(ctypes.Structure):
    """struct bpf_program."""

    _fields_ = [("bf_len", c_uint), ("bf_insns", POINTER(BpfInstruction))]


_PROTOTYPES: dict[str, tuple[Any, list[Any]]] = {
    "pcap_open_dead": (c_void_p, [c_int, c_int]),
    "pcap_compile": (c_int, [c_void_p, POINTER(BpfProgram), c_char_p, c_int, c_uint]),
    "pcap_geterr": (c_char_p, [c_void_p]),
    "pcap_freecode": (None, [POINTER(BpfProgram)]),
    "pcap_close": (None, [c_void_p]),
    "pcap_lib_version": (c_char_p, []),
}


@functools.cache
def library() -> ctypes.CDLL:
    """libpcap, loaded once, with all prototypes declared.

    :raises FilterError: there is no usable one; the next call looks for it again.
    """
    lib = _open()
    for name, (result, arguments) in _PROTOTYPES.items():
        try:
            function = getattr(lib, name)
        except AttributeError:
            raise _missing(f"it has no function {name}") from None
        function.restype, function.argtypes = result, arguments
    return lib


def _open() -> ctypes.CDLL:
    reasons = []
    for soname in SONAMES:
        try:
            return ctypes.CDLL(soname)
        except OSError as error:  # noqa: PERF203 - there are two
            reasons.append(str(error))
    raise _missing(next((reason for reason in reasons if "No such file" not in reason), ""))


def _missing(why: str) -> FilterError:
    what = f"which cannot be loaded ({why})" if why else f"which is not installed ({' or '.join(SONAMES)})"
    return FilterError(
        f"the language of pcap-filter(7) needs libpcap, {what}",
        f"install {_WHERE}, or use the form tcp,80, which works without it",
    )


def forbid_names() -> None:
    """Makes this process resolve no names of hosts and networks. Ports and protocols come from the system's files. Only
    glibc supports this (nss/nss_database.c); other C libraries still resolve names."""
    configure = getattr(ctypes.CDLL(None), "__nss_configure_lookup", None)
    if configure is not None:
        for database, service in (
            ("hosts", "none"),
            ("networks", "none"),
            ("services", "files"),
            ("protocols", "files"),
        ):
            configure(database.encode(), service.encode())


def version() -> str:
    """As libpcap says it itself: ``libpcap version 1.10.3 (with TPACKET_V3)``.

    :raises FilterError: there is no libpcap.
    """
    text: bytes = library().pcap_lib_version()
    return text.decode(errors="replace")


def compile_expression(expression: str, link_type: int, optimize: bool = True) -> Program:
    """The classic BPF program of an ``expression`` for packets of ``link_type``. It may ask the name service.

    :raises FilterError: libpcap cannot compile it, or there is no libpcap.
    """
    lib, text = library(), _encoded(expression)
    handle, program = lib.pcap_open_dead(link_type, classic.ALL), BpfProgram()
    if not handle:
        raise MemoryError("pcap_open_dead")
    try:
        if lib.pcap_compile(handle, byref(program), text, optimize, NETMASK_UNKNOWN) != 0:
            raise FilterError(" ".join(lib.pcap_geterr(handle).decode(errors="replace").split()))
        try:
            compiled = (program.bf_insns[index] for index in range(program.bf_len))
            return tuple(Instruction(each.code, each.jt, each.jf, each.k) for each in compiled)
        finally:
            lib.pcap_freecode(byref(program))
    finally:
        lib.pcap_close(handle)


def _encoded(expression: str) -> bytes:
    """For C, where NUL is the end; a lone surrogate, which JSON may bring, is no character at all."""
    try:
        text = expression.encode()
    except UnicodeEncodeError:
        text = b"\0"
    if b"\0" in text:
        raise FilterError("it has a character that no expression may have")
    return text
