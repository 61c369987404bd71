"""What a start of the daemon imports: a module that it does not need makes every restart longer."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import pytest

from lab.daemon import Daemon, configuration
from lab.namespaces import Lab, command

pytestmark = pytest.mark.e2e

OFF = (
    *("asyncio", "bz2", "click", "construct", "ctypes.util", "difflib", "email", "http", "importlib.metadata"),
    *("multiprocessing", "numpy.typing", "platform", "pyroute2", "ssl", "subprocess", "tempfile"),
    *("netobs.cli.main", "netobs.collector", "netobs.helper", "netobs.pcap", "netobs.daemon.dry_run"),
    *("netobs.daemon.namespaces", "netobs.encode.lint", "netobs.encode.netflow5", "netobs.encode.netflow9"),
    *("netobs.encode.template.wire", "netobs.export.kept", "netobs.export.link.tcp", "netobs.export.link.tls"),
    *("netobs.base.http", "netobs.daemon.flow_rates", "netobs.daemon.metrics", "netobs.daemon.openmetrics"),
    *("netobs.export.spool.replay", "netobs.kernel.helper_client", "netobs.kernel.pins", "netobs.selftest"),
    *("netobs.daemon.live", "netobs.live"),
)
"""What a daemon does not need that exports IPFIX over UDP and keeps nothing: packages and modules."""
IMPORTED = re.compile(r"^import time: +\d+ \| +\d+ \| +([\w.]+)$", re.MULTILINE)
"""A line of ``python -X importtime``."""


def test_what_is_off_is_not_imported(lab: Lab, tmp_path: Path) -> None:
    _, far = lab.pair()
    profiled = {"PYTHONPROFILEIMPORTTIME": "1"}
    with Daemon(lab, far.ns, tmp_path, configuration(), environment=profiled) as daemon:
        imported = set(IMPORTED.findall(daemon.log))
    assert imported > {"numpy", "netobs.daemon.daemon", "netobs.encode.ipfix", "netobs.export.link.udp"}
    by_numpy = command([sys.executable, "-c", "import numpy, sys; print(*sys.modules)"]).stdout.split()
    assert not {
        name for name in imported.difference(by_numpy) if any(f"{name}.".startswith(f"{each}.") for each in OFF)
    }
