"""Which optional metrics the templates of a configuration ask for, and what they cost."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable

from netobs.base.errors import TemplateError
from netobs.config import Config
from netobs.daemon.protocols import exporter
from netobs.encode.columns import ALL_COLUMNS
from netobs.encode.protocols import Exporter
from netobs.flow.metrics import INSIGHT_GROUPS


def elements(exporters: Iterable[Exporter]) -> dict[str, str]:
    """The elements that ``exporters`` send and that cost each packet something: name -> group of ``metrics.GROUPS``."""
    named = (field for each in exporters for template in each.encoder.templates for field in template.fields)
    columns = {field.filled_with: ALL_COLUMNS.get(field.filled_with) for field in named}
    return {name: column.group for name, column in columns.items() if column is not None and column.group}


def groups(config: Config, exporters: Iterable[Exporter]) -> frozenset[str]:
    """What the programs have to measure: the groups of ``elements``, and what [insight] asks for.

    :raises TemplateError: a template needs what [insight] does not ask for.
    """
    wanted = elements(exporters)
    off = [name for name, group in wanted.items() if group in INSIGHT_GROUPS and group not in config.insight.groups]
    if off:
        key = f"{wanted[off[0]]} = true"
        raise TemplateError(f"template elements {', '.join(off)} are not measured", f"set {key} in [insight]")
    return frozenset({*wanted.values(), *config.insight.groups})


def check_measured(exporters: Iterable[Exporter], measured: frozenset[str]) -> None:
    """For a reload: the programs that run measure the groups ``measured``, and no others.

    :raises TemplateError: ``exporters`` need another one.
    """
    missing = [name for name, group in elements(exporters).items() if group not in measured]
    if missing:
        raise TemplateError(
            f"template elements {', '.join(missing)}: the running programs do not measure them", "restart netobs"
        )


def readable(config: Config) -> list[Exporter]:
    """An exporter for each collector whose template is usable; other checks report the unusable ones."""
    found = []
    for collector in config.collectors:
        with contextlib.suppress(TemplateError):
            found.append(exporter(collector.protocol, collector.template, 0, config.capture.sampling))
    return found
