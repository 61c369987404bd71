"""The helper's own configuration: what it may do is not for the daemon, which it serves, to say."""

from __future__ import annotations

import pwd
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from netobs.base.errors import ConfigError
from netobs.base.files import read_file
from netobs.base.log import printable
from netobs.config.namespaces import NamespacePatterns, NamespaceSelector
from netobs.config.text import quoted
from netobs.config.values import BadValue, Kind, Text

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

PATH = "/etc/netobs-helper.toml"
USER = "netobs"
KEYS: dict[str, Kind] = {"netns": NamespacePatterns(interfaces=False), "user": Text("a user name", 32)}
_MAX_MIB = 1


@dataclass(frozen=True)
class HelperConfig:
    """``netns``: names or globs of the namespaces that may be opened. ``user``: whom it serves, beside root."""

    netns: tuple[str, ...] = ()
    user: str = USER

    @property
    def selector(self) -> NamespaceSelector:
        """Selects the namespaces."""
        return NamespaceSelector(self.netns)

    def uids(self) -> frozenset[int]:
        """The numbers of root and ``user``.

        :raises ConfigError: there is no such user.
        """
        try:
            return frozenset({0, pwd.getpwnam(self.user).pw_uid})
        except KeyError:
            raise ConfigError([f"user: there is no user {quoted(self.user)} on this host"]) from None


def load(path: str) -> HelperConfig:
    """The configuration in the file ``path``.

    :raises ConfigError: every mistake in it.
    """
    try:
        tables: dict[str, Any] = tomllib.loads(read_file(path, _MAX_MIB).decode("utf-8"))
    except OSError as error:
        raise ConfigError([f"{path}: cannot be read: {error.strerror}"]) from error
    except (ValueError, RecursionError) as error:
        raise ConfigError([f"{path}: not a readable TOML file: {printable(str(error))}"]) from error
    problems = [f"{path}: {printable(name)}: {reason}" for name in tables for reason in _mistakes(name, tables[name])]
    if problems:
        raise ConfigError(problems)
    return HelperConfig(**{name: KEYS[name].parse(value) for name, value in tables.items()})


def _mistakes(name: str, value: object) -> Sequence[str]:
    if name not in KEYS:
        return (f"unknown key; the keys are {', '.join(KEYS)}",)
    try:
        KEYS[name].parse(value)
    except BadValue as error:
        return error.reasons
    return ()
