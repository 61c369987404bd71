"""From the file to the dataclasses, with all mistakes reported at once."""

from __future__ import annotations

import re
import sys
import zlib
from dataclasses import replace
from pathlib import Path
from typing import Any

from netobs.base.errors import ConfigError
from netobs.base.files import read_file
from netobs.base.log import printable
from netobs.config.addresses import as_address, plain
from netobs.config.groups import group_problems
from netobs.config.identity import machine_domain
from netobs.config.packet_capture import packet_capture_problems
from netobs.config.schema import (
    ARRAYS,
    MAX_NETFLOW5_SAMPLING,
    TABLES,
    TLS_PORT,
    CollectorConfig,
    Config,
    GroupConfig,
    Key,
    PacketCaptureConfig,
    keys,
)
from netobs.config.selector import is_name, matches_all
from netobs.config.text import nearest, quoted, toml_text
from netobs.config.values import BadValue

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

MAX_MIB = 1  # a collector takes some hundred bytes


def load(path: str | Path) -> Config:
    """The configuration in the file ``path``, Observation Domains of 0 replaced by the machine's number.

    Raises ConfigError with every mistake.
    """
    try:
        content = read_file(path, MAX_MIB)
        text = content.decode("utf-8-sig")
    except FileNotFoundError:
        hint = "create it: a [[collector]] table with a host is enough"
        raise ConfigError([f"{path}: there is no such file; {hint}"]) from None
    except OSError as error:
        raise ConfigError([f"{path}: cannot be read: {error.strerror}"]) from error
    except UnicodeDecodeError as error:
        line = error.object[: error.start].count(b"\n") + 1
        raise ConfigError([f"{path}: line {line}: not UTF-8 (byte 0x{error.object[error.start]:02x})"]) from error
    except ValueError as error:  # a NUL in the path
        raise ConfigError([f"{printable(str(path))}: cannot be read: {error}"]) from error
    config = parse(text, str(path))
    domain = machine_domain(conf=path)
    collectors = (replace(each, observation_domain=each.observation_domain or domain) for each in config.collectors)
    return replace(config, collectors=tuple(collectors), checksum=zlib.crc32(content))


def checksum(path: str | Path) -> int:
    """Tells the present content of the file ``path`` from another one.

    :raises OSError: it cannot be read.
    """
    return zlib.crc32(read_file(path, MAX_MIB))


def parse(text: str, path: str) -> Config:
    """The configuration in ``text``; ``path`` is for messages. Raises ConfigError with every mistake."""
    try:
        tables = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise ConfigError([_syntax_problem(str(error), text, path)]) from error
    except (ValueError, RecursionError) as error:  # a number of thousands of digits, a thousand brackets
        raise ConfigError([f"{path}: not a readable TOML file: {printable(str(error).partition(';')[0])}"]) from error
    return from_tables(tables, path)


def from_tables(tables: dict[str, Any], path: str) -> Config:
    """The configuration in ``content``, the result of a TOML parser. Raises ConfigError with every mistake."""
    return _Reader(path).read(tables)


def _syntax_problem(message: str, text: str, path: str) -> str:
    """A TOML parser's message with the place before it, and the line itself."""
    match = re.fullmatch(r"(.*) \(at line (\d+), column (\d+)\)", message, re.DOTALL)
    place, reason, line = "end of file", message.replace(" (at end of document)", ""), ""
    if match:
        place, reason = f"line {match[2]}, column {match[3]}", match[1]
        line = text.split("\n")[int(match[2]) - 1].strip()
    shown = f", in {quoted(line)}" if line else ""
    twice = [name for name in ARRAYS if f"('{name}',) twice" in message]
    hint = f"; write {_heading(twice[0])} for each {twice[0]}" if twice else ""
    return f"{path}: {place}: TOML syntax error: {printable(reason)}{shown}{hint}"


class _Reader:
    """Reads the tables and collects the problems on the way."""

    def __init__(self, path: str) -> None:
        self._path = path
        self._problems: list[str] = []

    def read(self, tables: dict[str, Any]) -> Config:
        """The configuration. Raises ConfigError."""
        values: dict[str, dict[str, Any]] = {name: {} for name in TABLES}
        arrays: dict[str, list[dict[str, Any]]] = {name: [] for name in ARRAYS}
        for name, content in tables.items():
            if name in ARRAYS:
                arrays[name] = self._read_array(name, content)
            elif name not in TABLES:
                self._unknown_table(name, content)
            elif isinstance(content, dict):
                values[name] = self._read_table(name, f"[{name}]", content)
            else:
                got = f"[[{name}]]" if _is_array_of_tables(content) else toml_text(content)
                self._problem(f"[{name}]", f"expected one table [{name}], got {got}")
        if "collector" not in tables:
            self._problem("[[collector]]", 'no such table; add one with its host, such as host = "192.0.2.10"')
        collectors, groups = arrays["collector"], arrays["group"]
        for each in collectors:
            if each.get("transport") == "tls":
                each.setdefault("port", TLS_PORT)
        for table in ("capture", "packet_capture"):
            self._check_interfaces(table, values[table])
        self._check_collectors(collectors, values["capture"])
        self._check_packet_capture(values["packet_capture"])
        names = _names(collectors)
        for number, key, reason in group_problems(groups, names):
            self._problem(f"{_place('group', number, groups[number - 1].get('name'))} {key}", reason)
        if self._problems:
            raise ConfigError(self._problems)
        stages = {name: TABLES[name](**values[name]) for name in TABLES if name not in ARRAYS}
        named = tuple(CollectorConfig(**{**each, "name": name}) for each, name in zip(collectors, names))
        return Config(
            **stages, collectors=named, path=self._path, groups=tuple(GroupConfig(**group) for group in groups)
        )

    def _problem(self, place: str, reason: str) -> None:
        self._problems.append(f"{self._path}: {place}: {reason}")

    def _unknown_table(self, name: str, content: object) -> None:
        """A table, or a key above all tables, that the schema does not have."""
        near = nearest(name, TABLES)
        known = ", ".join(map(_heading, TABLES))
        hint = f"did you mean {_heading(near)}?" if near else f"the tables are {known}"
        if isinstance(content, dict) or _is_array_of_tables(content):
            self._problem(f"[{printable(name)}]", f"unknown table; {hint}")
            return
        homes = [table for table in TABLES if name in keys(table)]
        below = f"below {_heading(homes[0])}" if homes else "below its table"
        self._problem(printable(name), f"a key cannot stand outside the tables; write it {below}")

    def _read_array(self, name: str, content: object) -> list[dict[str, Any]]:
        """The valid keys of each table of an array."""
        heading = _heading(name)
        if isinstance(content, dict):
            self._problem(f"[{name}]", f"expected {heading}, with two brackets on each side")
            content = [content]
        elif not isinstance(content, list) or not content:
            self._problem(heading, f"expected at least one table {heading}, got {toml_text(content)}")
            return []
        found = []
        for number, table in enumerate(content, 1):
            if isinstance(table, dict):
                found.append(self._read_table(name, _place(name, number, table.get("name")), table))
            else:
                self._problem(f"[{name} {number}]", f"expected a table, got {toml_text(table)}")
        return found

    def _read_table(self, table: str, place: str, content: dict[str, Any]) -> dict[str, Any]:
        """The valid values of a table by field name."""
        known = keys(table)
        found = {}
        for name, value in content.items():
            if name not in known:
                self._problem(f"{place} {printable(name)}", f"unknown key; {_key_hint(table, name, known)}")
                continue
            try:
                found[known[name].field_name] = known[name].kind.parse(value)
            except BadValue as error:
                for reason in error.reasons:
                    self._problem(f"{place} {name}", reason)
        for key in known.values():
            if key.required and key.name not in content:
                self._problem(f"{place} {key.name}", f"missing; expected {key.kind.expected}")
        return found

    def _check_interfaces(self, table: str, values: dict[str, Any]) -> None:
        """Reports a name in both interfaces and exclude: one of the two is a mistake."""
        both = set(values.get("interfaces", ())) & set(values.get("exclude", ()))
        for name in sorted(filter(is_name, both)):
            self._problem(f"[{table}] exclude", f"{quoted(name)} is also in interfaces; remove it from one list")
        if values.get("interfaces", table == "capture") and not any(map(is_name, values.get("interfaces", ()))):
            for entry in filter(matches_all, values.get("exclude", ())):
                reason = f"{quoted(entry)} leaves out every interface; remove it from the list"
                self._problem(f"[{table}] exclude", reason)

    def _check_collectors(self, collectors: list[dict[str, Any]], capture: dict[str, Any]) -> None:
        """Checks between the keys of a collector, and between collectors."""
        names: dict[str, int] = {}
        endpoints: dict[tuple[str, int, str], int] = {}
        for number, values in enumerate(collectors, 1):
            place = _place("collector", number, values.get("name"))
            self._check_source(place, values)
            self._check_tls(place, values)
            self._check_netflow(place, values, capture)
            first = names.setdefault(values["name"], number) if "name" in values else number
            if first != number:
                self._problem(f"{place} name", f"collector {first} has this name already; names must differ")
            if "host" not in values:
                continue
            address, transport = as_address(values["host"]), values.get("transport", CollectorConfig.transport)
            if address is not None and plain(address).is_multicast and transport != "udp":
                self._problem(f"{place} host", f"a multicast group accepts no {transport.upper()} connection; use udp")
            first = endpoints.setdefault(_endpoint(values), number)
            if first != number:
                reason = f"collector {first} has this host, port and transport already; each flow would arrive twice"
                self._problem(f"{place} host", reason)

    def _check_tls(self, place: str, values: dict[str, Any]) -> None:
        """Reports half a pair, and certificates for a transport that would send flows in the clear."""
        transport = values.get("transport", CollectorConfig.transport)
        given = [name for name in ("ca", "cert", "key", "server_name") if values.get(name)]
        if transport != "tls":
            for name in given:
                self._problem(f"{place} {name}", f'needs transport = "tls"; over {transport} nothing is encrypted')
        elif ("cert" in given) != ("key" in given):
            missing, there = ("key", "cert") if "cert" in given else ("cert", "key")
            self._problem(f"{place} {missing}", f"missing; {there} needs the {missing} that belongs to it")

    def _check_packet_capture(self, values: dict[str, Any]) -> None:
        for key, reason in packet_capture_problems(PacketCaptureConfig(**values)):
            self._problem(f"[packet_capture] {key}", reason)

    def _check_netflow(self, place: str, values: dict[str, Any], capture: dict[str, Any]) -> None:
        """Reports settings that NetFlow cannot carry, or not over this transport."""
        protocol = values.get("protocol", CollectorConfig.protocol)
        transport = values.get("transport", CollectorConfig.transport)
        if protocol != "ipfix" and transport != "udp":
            self._problem(f"{place} transport", f'{protocol} goes over UDP only; use "udp", or protocol = "ipfix"')
        if protocol != "ipfix" and values.get("spool"):
            reason = f'its files are IPFIX files, which {protocol} cannot send; use protocol = "ipfix", or no spool'
            self._problem(f"{place} spool", reason)
        if protocol == "netflow5" and capture.get("sampling", 1) > MAX_NETFLOW5_SAMPLING:
            reason = f"netflow5 can carry [capture] sampling up to {MAX_NETFLOW5_SAMPLING}; use netflow9 or ipfix"
            self._problem(f"{place} protocol", reason)

    def _check_source(self, place: str, values: dict[str, Any]) -> None:
        source, host = as_address(values.get("source", "")), as_address(values.get("host", ""))
        if source and host and source.version != host.version:
            reason = f"an IPv{source.version} address cannot reach the host {host}, which is IPv{host.version}"
            self._problem(f"{place} source", reason)


def _is_array_of_tables(content: object) -> bool:
    return isinstance(content, list) and bool(content) and all(isinstance(item, dict) for item in content)


def _heading(table: str) -> str:
    return f"[[{table}]]" if table in ARRAYS else f"[{table}]"


def _place(array: str, number: int, name: object) -> str:
    return f"[{array} {number} {quoted(name)}]" if isinstance(name, str) and name else f"[{array} {number}]"


def _key_hint(table: str, name: str, known: dict[str, Key]) -> str:
    """The table of the key, or the most similar known key."""
    homes = [other for other in TABLES if other != table and name in keys(other)]
    if homes:
        return f"it belongs below {_heading(homes[0])}"
    near = nearest(name, known)
    return f"did you mean {quoted(near)}?" if near else "the keys are " + ", ".join(known)


def _endpoint(values: dict[str, Any]) -> tuple[str, int, str]:
    """The values that two collectors must not share."""
    collector = CollectorConfig(**values)
    address = as_address(collector.host)
    host = str(plain(address)) if address else collector.host.rstrip(".").lower()
    return host, collector.port, collector.transport


def _names(collectors: list[dict[str, Any]]) -> list[str]:
    """A unique name for each collector: the configured name, else its host, else its number."""
    taken = {values["name"] for values in collectors if "name" in values}
    found = []
    for number, values in enumerate(collectors, 1):
        host = values.get("host", "")  # a wrong host is reported separately
        name = values.get("name") or (f"collector {number}" if host in taken else host)
        taken.add(name)
        found.append(name)
    return found
