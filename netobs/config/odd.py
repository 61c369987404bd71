"""Warnings about settings that work but are probably mistakes, for the start, a reload and --dry-run.

These checks need only the configuration. ``netobs.daemon.host_check`` compares it with this host.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import fields
from typing import Any, Callable, NamedTuple

from netobs.config.addresses import as_address, plain
from netobs.config.packet_capture import packet_capture_warnings
from netobs.config.schema import CaptureConfig, CollectorConfig, Config, MeteringConfig, keys
from netobs.config.selector import compile_entry, is_name, matches_all
from netobs.config.text import quoted

UNFRAGMENTED = 1472  # the UDP payload that fits the usual MTU of 1500 over IPv4


class Rule(NamedTuple):
    """``keys`` of a table that have no effect where ``applies(the table, all)``; ``why`` follows these words."""

    table: str
    keys: tuple[str, ...]
    applies: Callable[[Any, Config], bool]
    why: str


NO_EFFECT = (
    Rule("collector", ("spool_max", "spool_rate"), lambda its, _: not its.spool, "without spool"),
    Rule(
        "collector",
        ("max_message_size", "template_refresh", "template_refresh_messages"),
        lambda its, _: its.transport != "udp",
        "over TCP and TLS",
    ),
    Rule(
        "collector",
        ("template", "template_refresh", "template_refresh_messages", "options_refresh"),
        lambda its, _: its.protocol == "netflow5",
        "with netflow5: its format is fixed, and it has no options records",
    ),
    Rule(
        "capture",
        ("exclude",),
        lambda its, _: not its.selector.has_patterns,
        "beside names: it leaves out what globs and regular expressions of interfaces match",
    ),
    Rule("capture", ("max_flows",), lambda its, _: its.flow_table == "ringbuf", "with ringbuf, which holds no flows"),
    Rule(
        "metering",
        ("idle_timeout",),
        lambda its, _: not its.active_timeout_ns,
        'with active_timeout = "0s": each eviction exports all flows',
    ),
    Rule("packet_capture", ("exclude",), lambda its, _: its.enabled and not its.interfaces, "without interfaces"),
    Rule("packet_capture", ("recorder_max",), lambda its, _: its.enabled and not its.recorder_ns, "without recorder"),
)
"""Keys that nothing uses although they differ from their default."""


def warnings_of(config: Config) -> list[str]:
    """A warning for each setting that works but is probably a mistake."""
    found = [*_timeouts(config), *_without_effect(config), *_exclude(config.capture), *_hosts(config)]
    found += packet_capture_warnings(config.packet_capture)
    if config.metrics.textfile and not config.metrics.textfile.endswith(".prom"):
        found.append("[metrics] textfile: node_exporter reads only files whose names end in .prom")
    return [f"{config.path}: {line}" for line in found]


def _timeouts(config: Config) -> Iterator[str]:
    interval, active = config.capture.eviction_interval_ns, config.metering.active_timeout_ns
    idle = config.metering.idle_timeout_ns
    if active and idle < interval:
        yield (
            "[metering] idle_timeout is shorter than [capture] eviction_interval: "
            "flows are idle no earlier than at the next eviction"
        )
    if 0 < active < interval:
        yield (
            "[metering] active_timeout is shorter than [capture] eviction_interval: "
            "flows are exported no more often than they are evicted"
        )
    if 0 < active < idle != MeteringConfig.idle_timeout_ns:
        yield (
            "[metering] idle_timeout is longer than active_timeout: active_timeout exports every flow before it is idle"
        )


def _without_effect(config: Config) -> Iterator[str]:
    tables: dict[str, list[tuple[str, Any]]] = {
        name: [(f"[{name}]", getattr(config, name))] for name in ("capture", "metering", "packet_capture")
    }
    tables["collector"] = [(_place(each), each) for each in config.collectors]
    for rule in NO_EFFECT:
        for place, its in tables[rule.table]:
            if rule.applies(its, config):
                yield from (f"{place} {key} has no effect {rule.why}" for key in rule.keys if _is_set(its, rule, key))


def _is_set(its: Any, rule: Rule, key: str) -> bool:
    name = keys(rule.table)[key].field_name
    default = next(item.default for item in fields(its) if item.name == name)
    return bool(getattr(its, name) != default)


def _exclude(capture: CaptureConfig) -> Iterator[str]:
    """Warnings about entries that leave out all matches of the globs, or none of them."""
    included = [compile_entry(entry) for entry in capture.interfaces if not is_name(entry)]
    if not included or capture.exclude == CaptureConfig.exclude:
        return
    for entry in capture.exclude:
        if matches_all(entry):
            yield f"[capture] exclude: {quoted(entry)} leaves out all but the names that are written out in interfaces"
        elif is_name(entry) and not any(pattern.search(entry) for pattern in included):
            yield f"[capture] exclude: {quoted(entry)} has no effect: interfaces does not match it"


def _hosts(config: Config) -> Iterator[str]:
    for each in config.collectors:
        if each.transport == "udp" and each.max_message_size > UNFRAGMENTED and each.protocol != "netflow5":
            yield (
                f"{_place(each)} max_message_size {each.max_message_size} does not fit "
                "an MTU of 1500: Messages are lost or fragmented unless the path has a larger one"
            )
        address = as_address(each.host)
        if address is not None and plain(address).is_multicast:
            yield (
                f"{_place(each)} host: {each.host} is a multicast group: Messages stay in the local network, and "
                "no error comes back if no collector listens"
            )


def _place(collector: CollectorConfig) -> str:
    return f"[collector {quoted(collector.name)}]"
