"""The Exporting Process: Transport Sessions to the collectors, over UDP, TCP and TLS."""

from __future__ import annotations

from netobs.export.link.address import Address, resolve
from netobs.export.session import TransportSession
from netobs.export.stats import ExportStats

__all__ = ["Address", "ExportStats", "TransportSession", "resolve"]
