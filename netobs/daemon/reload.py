"""Another configuration for a daemon that runs: is the file right, and what of it can be put into force?"""

from __future__ import annotations

from dataclasses import replace

from netobs import config as configuration
from netobs.base.errors import ConfigError, NetobsError
from netobs.config import Config, all_keys, warnings_of
from netobs.daemon import host_check, packet_capture
from netobs.daemon.collectors import make_exporters
from netobs.datapath.capture import check_interfaces
from netobs.export.link.tls import client_context

AT_START_ONLY = {
    "capture": ("sampling", "flow_table", "max_flows", "precise_time", "attach"),
}
"""What is fixed when the programs are loaded: keys by table. All others take effect at a reload."""


def read(present: Config) -> tuple[Config, list[str]]:
    """The configuration that ``present.path`` holds now, as far as a running daemon can take it over.

    With it comes a line for each key that keeps its present value, and for what is odd but no mistake.

    :raises NetobsError: the file is not right; the message has a line for each mistake.
    """
    wanted = configuration.load(present.path)
    check(wanted)
    effective, kept = _merge(present, wanted)
    return effective, kept + warnings_of(effective) + host_check.warnings_of(effective, host_check.present_interfaces())


def check(config: Config) -> None:
    """What a daemon that goes over to ``config`` would stumble over: templates, certificates, interfaces, spools.

    :raises NetobsError: the message has a line for each mistake.
    """
    problems: list[str] = []
    try:
        make_exporters(config, 0)
    except NetobsError as error:
        problems.append(str(error))
    for collector in config.collectors:
        if collector.transport == "tls":
            try:
                client_context(collector)
            except NetobsError as error:
                problems.append(str(error))
    problems += packet_capture.problems(config)
    problems += host_check.problems_of(config)
    try:
        check_interfaces(config.capture, host_check.present_interfaces())
    except NetobsError as error:
        problems.append(str(error))
    if problems:
        raise ConfigError(problems)


def _merge(present: Config, wanted: Config) -> tuple[Config, list[str]]:
    kept = []
    tables = {}
    for table, names in AT_START_ONLY.items():
        mine, its = getattr(present, table), getattr(wanted, table)
        fixed = [key for key in all_keys() if key.table == table and key.name in names]
        kept += [
            f"{present.path}: [{table}] {key.name} takes effect at the next start: restart netobs"
            for key in fixed
            if getattr(mine, key.field_name) != getattr(its, key.field_name)
        ]
        tables[table] = replace(its, **{key.field_name: getattr(mine, key.field_name) for key in fixed})
    return replace(wanted, **tables), kept
