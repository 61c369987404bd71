"""Takes addresses and names out of texts that leave the host: each gets a pseudonym, the same one everywhere."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from netobs.config.addresses import as_address, plain
from netobs.config.schema import TABLES, keys

SECRET = re.compile(r"pass|secret|token|community|psk|credential", re.IGNORECASE)
"""In the name of a key: its value is left out."""
HIDDEN = "(left out)"
_IDENTIFIERS = {"switch_id": "switch"}
"""Keys whose values tell hosts apart, often by a MAC address; with the kind of their pseudonym."""
_MAC = r"(?<![\w:-])(?:[0-9a-fA-F]{2}([:-]))(?:[0-9a-fA-F]{2}\1){4}[0-9a-fA-F]{2}(?![\w:-])"
_NAMED_BY_MAC = r"(?<=\benx)[0-9a-f]{12}\b"
_IPV6 = r"(?<![\w:.])(?:[0-9a-fA-F]{0,4}:){2,7}(?:(?:\d{1,3}\.){3}\d{1,3}|[0-9a-fA-F]{0,4})(?![\w:])"
_IPV4 = r"(?<![\w.])(?:\d{1,3}\.){3}\d{1,3}(?!\w|\.\w)"
_HOST = r"(?<![\w.-])(?:[a-zA-Z0-9_-]+\.)+[a-zA-Z]{2,}(?![\w-]|\.\w)"
_PLAIN_MACS = ("000000000000", "ffffffffffff")
_ROOMS = {path.name for path in Path(__file__).parents[1].iterdir()}
_FILES = {"toml", "sock", "service", "socket", "slice", "scope", "target", "conf", "py", "so", "pem", "crt", "key",
          "pcap", "pcapng", "ipfix", "index", "prom", "bpf", "json", "txt", "gz", "log"}  # fmt: skip
"""Last words of files and units."""
_IN_FILTER = re.compile(r"\b(?:host|net|gateway)\s+([A-Za-z][\w.-]*)")


class Masker:
    """``hosts``: names that are to be masked wherever they are, beside all that look like one."""

    def __init__(self, hosts: Iterable[str] = ()) -> None:
        self._pseudonyms: dict[str, str] = {}
        self._numbers: dict[str, int] = {}
        names = {name.lower().rstrip(".") for name in hosts} - {"", "localhost", "netobs"}
        self._known = [re.escape(name) for name in sorted(names, key=len, reverse=True) if as_address(name) is None]

    def text(self, text: str) -> str:
        """``text`` with pseudonyms."""
        text = re.sub(_MAC, self._mac, text)
        text = re.sub(_NAMED_BY_MAC, self._mac, text)
        text = re.sub(_IPV6, self._ip, text)
        text = re.sub(_IPV4, self._ip, text)
        if self._known:
            pattern = rf"(?<![\w.-])(?:{'|'.join(self._known)})\.?(?![\w-]|\.\w)"
            text = re.sub(pattern, lambda found: self._pseudonym("host", found[0].lower().rstrip(".")), text,
                          flags=re.IGNORECASE)  # fmt: skip
        return re.sub(_HOST, self._host, text)

    def tree(self, value: Any, key: str = "") -> Any:
        """The same for all strings in a tree for JSON, names of keys too. ``key``: what the value belongs to."""
        if isinstance(value, dict):
            return {self.text(str(name)): self.tree(each, str(name)) for name, each in value.items()}
        if isinstance(value, (list, tuple)):
            return [self.tree(each, key) for each in value]
        if SECRET.search(key) and value is not None:
            return HIDDEN
        if key in _IDENTIFIERS and value:
            return self._pseudonym(_IDENTIFIERS[key], str(value))
        return self.text(value) if isinstance(value, str) else value

    def _pseudonym(self, kind: str, what: str) -> str:
        if what not in self._pseudonyms:
            number = self._numbers[kind] = self._numbers.get(kind, 0) + 1
            self._pseudonyms[what] = f"{kind}-{number}"
        return self._pseudonyms[what]

    def _mac(self, found: re.Match[str]) -> str:
        digits = re.sub("[:-]", "", found[0]).lower()
        return found[0] if digits in _PLAIN_MACS else self._pseudonym("mac", digits)

    def _ip(self, found: re.Match[str]) -> str:
        address = as_address(found[0])
        if address is None:
            return found[0]
        address = plain(address)
        if address.is_loopback or address.is_unspecified:
            return found[0]
        return self._pseudonym(f"ipv{address.version}", str(address))

    def _host(self, found: re.Match[str]) -> str:
        words = found[0].lower().split(".")
        return found[0] if _is_no_host(words) else self._pseudonym("host", found[0].lower())


def _is_no_host(words: list[str]) -> bool:
    """A file or unit, a key of the configuration, or a module of netobs."""
    is_key = len(words) == 2 and words[0] in TABLES and words[1] in keys(words[0])
    return words[-1] in _FILES or is_key or (words[0] == "netobs" and words[1] in _ROOMS)


def hosts_in(tables: object) -> set[str]:
    """The host names that a configuration has, as read by a TOML parser: of collectors, and in packet filters."""
    found: set[str] = set()
    if isinstance(tables, dict):
        for name, value in tables.items():
            if name in ("host", "server_name") and isinstance(value, str):
                found.add(value)
            found |= hosts_in(value)
    elif isinstance(tables, list):
        for value in tables:
            found |= hosts_in(value)
    elif isinstance(tables, str):
        found |= set(_IN_FILTER.findall(tables))
    return found
