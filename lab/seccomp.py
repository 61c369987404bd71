"""Runs a command under a seccomp filter that makes one system call fail, as containers and poorer kernels do.

``python -m lab.seccomp SYSTEM_CALL[/FIRST_ARGUMENT] ERROR COMMAND...``, for instance ``321 ENOSYS netobs``.
"""

from __future__ import annotations

import ctypes
import errno
import os
import struct
import sys

PR_SET_NO_NEW_PRIVS, PR_SET_SECCOMP, SECCOMP_MODE_FILTER = 38, 22, 2  # prctl(2)
RET_ERRNO, RET_ALLOW = 0x00050000, 0x7FFF0000  # linux/seccomp.h
LOAD, EQUAL, RETURN = 0x20, 0x15, 0x06  # BPF_LD|W|ABS, BPF_JMP|JEQ|K, BPF_RET|K
NUMBER, FIRST_ARGUMENT = 0, 16  # offsets in struct seccomp_data


class Program(ctypes.Structure):
    """struct sock_fprog."""

    _fields_ = [("length", ctypes.c_ushort), ("filter", ctypes.c_char_p)]


def instructions(system_call: int, argument: int | None, error: int) -> bytes:
    """The filter: ``error`` for ``system_call``, if its first argument is ``argument`` or that is None."""
    tests = [(NUMBER, system_call)] + ([(FIRST_ARGUMENT, argument)] if argument is not None else [])
    code = []
    for left, (offset, value) in zip(range(len(tests), 0, -1), tests):
        code += [(LOAD, 0, 0, offset), (EQUAL, 0, 2 * left - 1, value)]  # unlike: over what is left, to the last
    code += [(RETURN, 0, 0, RET_ERRNO | error), (RETURN, 0, 0, RET_ALLOW)]
    return b"".join(struct.pack("=HBBI", *instruction) for instruction in code)


def main(call: str, error: str, *command: str) -> None:
    number, _, argument = call.partition("/")
    code = instructions(int(number), int(argument) if argument else None, getattr(errno, error))
    program = Program(len(code) // 8, code)
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) or libc.prctl(
        PR_SET_SECCOMP, SECCOMP_MODE_FILTER, ctypes.byref(program), 0, 0
    ):
        raise OSError(ctypes.get_errno(), "seccomp")
    os.execvp(command[0], command)


if __name__ == "__main__":
    main(*sys.argv[1:])
