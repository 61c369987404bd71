"""The encoder and the kind of header of each export protocol."""

from __future__ import annotations

from typing import Any, Callable, NamedTuple

from netobs.encode.options.choice import TemplateSet
from netobs.encode.template import file


class Exporter(NamedTuple):
    """The encoder of one protocol and template. ``header`` takes the fields of ``netobs.encode.ipfix.Header``."""

    encoder: Any  # with ``templates``, ``options``, ``check`` and ``encode``; the sink of the protocol needs more
    header: Callable[..., Any]
    templates: TemplateSet

    def says_the_same(self, other: Exporter) -> bool:
        """Whether both make the same Messages from the same flows, because the template file has not changed."""
        mine, its = self.templates, other.templates
        return type(self.encoder) is type(other.encoder) and mine == its and mine.options == its.options


def exporter(protocol: str, template: str, boot_ns: int, sampling: int) -> Exporter:
    """The encoder of ``protocol`` ("ipfix", "netflow9", "netflow5") with the template file ``template``.

    ``boot_ns``: start of the exporter, CLOCK_MONOTONIC; sysUptime of NetFlow counts from there. ``sampling``: one
    packet in N is measured. NetFlow v5 has no templates. Raises TemplateError.
    """
    if protocol == "netflow5":
        from netobs.encode import netflow5

        return Exporter(netflow5.Encoder(boot_ns, sampling), netflow5.Header, TemplateSet(()))
    templates = file.load(template)
    if protocol == "netflow9":
        from netobs.encode import netflow9

        encoder = netflow9.Encoder(templates, boot_ns, templates.options, sampling)
        return Exporter(encoder, netflow9.Header, templates)
    from netobs.encode import ipfix

    return Exporter(ipfix.Encoder(templates, templates.options, sampling), ipfix.Header, templates)
