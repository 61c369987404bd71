"""Errors that an operator can act on. Each is one line: what, where, and what to do."""

from __future__ import annotations


class NetobsError(Exception):
    """The root of all errors that netobs reports without a traceback. ``hint`` tells the operator what to do.

    ``may_pass``: the problem may resolve by itself when the host changes; the service retries (packaging/systemd).
    """

    def __init__(self, message: str, hint: str = "", may_pass: bool = False) -> None:
        super().__init__(message)
        self.hint = hint
        self.may_pass = may_pass

    def __str__(self) -> str:
        message = super().__str__()
        return f"{message}; {self.hint}" if self.hint else message


class ConfigError(NetobsError):
    """One or more mistakes in the configuration. ``problems`` lists them all, a line each."""

    def __init__(self, problems: list[str]) -> None:
        super().__init__("\n".join(problems))
        self.problems = problems


class TemplateError(NetobsError):
    """A template file that cannot be used; the message names the file and the place in it."""


class CaptureError(NetobsError):
    """The BPF object could not be loaded, attached or read; the message names the object or interface."""


class FilterError(NetobsError):
    """A packet filter that cannot be compiled; the message quotes it."""


class ExportError(NetobsError):
    """A collector that cannot be used as configured; the message names the collector."""


class DecodeError(NetobsError):
    """A Message that does not follow its protocol; the message says at which octet."""
