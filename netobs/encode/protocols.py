"""Which encoder, and which kind of header, an export protocol has."""

from __future__ import annotations

from typing import Any, Callable, NamedTuple, Union

from netobs.encode import ipfix, netflow5, netflow9, template_file

AnyEncoder = Union[ipfix.Encoder, netflow9.Encoder, netflow5.Encoder]


class Exporter(NamedTuple):
    """What makes the Messages of one protocol and template. ``header(export_time_s, sequence, observation_domain)``."""

    encoder: AnyEncoder
    header: Callable[[int, int, int], Any]


def exporter(protocol: str, template: str, boot_s: int, sampling: int) -> Exporter:
    """The encoder of ``protocol`` ("ipfix", "netflow9", "netflow5") with the template file ``template``.

    ``boot_s``: when the exporter began, seconds since 1970: sysUptime of NetFlow counts from there. ``sampling``: one
    packet in N is measured. NetFlow v5 has no templates. Raises TemplateError.
    """
    if protocol == "netflow5":
        return Exporter(netflow5.Encoder(boot_s, sampling), netflow5.Header)
    templates = template_file.load(template)
    if protocol == "netflow9":
        return Exporter(netflow9.Encoder(templates, boot_s, templates.options), netflow9.Header)
    return Exporter(ipfix.Encoder(templates, templates.options), ipfix.Header)
