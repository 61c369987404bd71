"""The capabilities that the daemon keeps after its start, where capture.drop_capabilities is set."""

from __future__ import annotations

import logging

from netobs.base import capabilities
from netobs.config import Config
from netobs.datapath.capture import Capture
from netobs.kernel import privileges

log = logging.getLogger("netobs")


def give_up(config: Config, capture: Capture) -> None:
    """Gives up for good those that nothing configured needs any more, if ``config`` says so. The programs are on all
    hooks."""
    if not config.capture.drop_capabilities:
        return
    capture.datapath.grace.wait()  # makes what it needs, in a kernel with nohz_full by CAP_BPF
    kept, why = _needed(config, capture)
    if kept != privileges.TO_LOAD:  # else programs are executed later, which may need more of what root has
        privileges.keep_only(kept)
    names = " ".join(privileges.held()) or "none"
    log.info("capabilities that are not needed any more are given up; kept: %s%s", names, why)


def _needed(config: Config, capture: Capture) -> tuple[int, str]:
    """Those that may be needed later, and what for."""
    if config.capture.netns:
        return privileges.TO_LOAD, ", to load programs for network namespaces"
    if config.packet_capture.enabled:
        return privileges.TO_LOAD, ", for packet capture"
    always = capabilities.in_effect() & capabilities.BPF  # in an old kernel
    if capture.points.has_filters:
        return always | capabilities.NET_ADMIN, ", to set and remove filters"
    return always, ""
