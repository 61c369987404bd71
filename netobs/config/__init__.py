"""The configuration: its keys, their validation, and the dataclasses that the stages get."""

from __future__ import annotations

from netobs.config.addresses import Endpoint
from netobs.config.identity import machine_domain
from netobs.config.loader import from_tables, load, parse
from netobs.config.odd import warnings_of
from netobs.config.schema import (
    CaptureConfig,
    CollectorConfig,
    Config,
    GroupConfig,
    InsightConfig,
    LogConfig,
    MeteringConfig,
    MetricsConfig,
    PacketCaptureConfig,
    all_keys,
)
from netobs.config.selector import InterfaceSelector

__all__ = [
    "CaptureConfig",
    "CollectorConfig",
    "Config",
    "Endpoint",
    "GroupConfig",
    "InsightConfig",
    "InterfaceSelector",
    "LogConfig",
    "MeteringConfig",
    "MetricsConfig",
    "PacketCaptureConfig",
    "all_keys",
    "from_tables",
    "load",
    "machine_domain",
    "parse",
    "warnings_of",
]
