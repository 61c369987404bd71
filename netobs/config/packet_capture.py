"""Checks between the keys of [packet_capture]."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import NamedTuple

from netobs.config.addresses import Endpoint, as_address
from netobs.config.schema import CaptureConfig, PacketCaptureConfig
from netobs.config.text import quoted


class Settings(NamedTuple):
    """All that the process of packet capture works by: its table, capture.attach, log.level."""

    config: PacketCaptureConfig
    attach: str
    level: str


def effective(config: PacketCaptureConfig, capture: CaptureConfig) -> PacketCaptureConfig:
    """With the interfaces of [capture] where [packet_capture] names none."""
    return config if config.interfaces else replace(config, interfaces=capture.interfaces, exclude=capture.exclude)


def packet_capture_problems(config: PacketCaptureConfig) -> Iterator[tuple[str, str]]:
    """Key and reason of each mistake: half a pair, and a port that is open to anybody."""
    if bool(config.cert) != bool(config.key):
        missing, there = ("key", "cert") if config.cert else ("cert", "key")
        yield missing, f"missing; {there} needs the {missing} that belongs to it"
    if config.client_ca and not config.cert:
        yield "client_ca", "needs cert and key; without TLS clients show no certificate"
    if config.enabled and not _is_local(config.listen) and not config.cert and not config.allow:
        yield (
            "listen",
            f"{quoted(config.listen.host)} is not a loopback address: anybody who reaches the port would see "
            "this host's packets; set allow to the prefixes of those who may, or cert and key for TLS",
        )


def packet_capture_warnings(config: PacketCaptureConfig) -> Iterator[str]:
    """Warnings about settings that are probably mistakes, without the path of the file."""
    if config.enabled and not _is_local(config.listen) and not config.client_ca and not config.allow:
        what = "TLS protects packets only on the network: without client_ca or allow, any host can get them"
        yield f"[packet_capture] listen: {what}"
    without_meaning = [key for key in ("allow", "cert", "client_ca") if getattr(config, key)]
    if config.enabled and config.listen.is_path and without_meaning:
        keys = ", ".join(without_meaning)
        yield (
            f"[packet_capture] listen: {keys} have no meaning with a Unix socket, which the group netobs may use; "
            'for TCP set listen = "127.0.0.1:9990"'
        )


def _is_local(listen: Endpoint) -> bool:
    """A name may resolve to any address, so only localhost counts."""
    address = as_address(listen.host)
    return listen.is_path or listen.host == "localhost" or (address is not None and address.is_loopback)
