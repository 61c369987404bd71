"""In a time namespace, whose monotonic clock is not the kernel's, flows and packets are dated as elsewhere."""

from __future__ import annotations

import datetime
import struct
import time
from pathlib import Path

import pytest

from lab.collectors import UdpSink
from lab.daemon import KEPT, Daemon, configuration
from lab.namespaces import Lab, command
from lab.traffic import Traffic
from netobs.collector.decode import Decoder
from tests.e2e.test_capture_command import CaptureCommand

pytestmark = pytest.mark.e2e(tools=("make", "unshare"))

AHEAD_S, BEHIND_S = 2_000_000, -30


@pytest.fixture(params=[AHEAD_S, BEHIND_S], ids=["ahead", "behind"])
def moved(request: pytest.FixtureRequest) -> tuple[str, ...]:
    """A command that starts another one in a time namespace."""
    prefix = ("unshare", "--time", "--monotonic", str(request.param))
    done = command([*prefix, "readlink", "/proc/self/ns/time"], check=False)
    own = command(["readlink", "/proc/self/ns/time"], check=False).stdout
    if done.returncode or done.stdout == own:
        pytest.skip(
            f"a command cannot be started in a time namespace here: {done.stderr.strip() or 'it stays outside'}"
        )
    return prefix


def seconds(text: str) -> float:
    """Since 1970, of a time as the decoder writes it."""
    return datetime.datetime.fromisoformat(text.replace("Z", "+00:00")).timestamp()


@pytest.mark.parametrize("precise", [True, False], ids=["precise", "coarse"])
def test_flows(lab: Lab, tmp_path: Path, moved: tuple[str, ...], precise: bool) -> None:
    near, far = lab.pair()
    config = configuration({"precise_time": precise, "eviction_interval": "1h"}, KEPT)
    with UdpSink(far.ns) as collector:
        with Daemon(lab, far.ns, tmp_path, config, prefix=moved, as_user=False) as daemon:
            before = time.time()
            Traffic(packets=10).send(lab, near)
            after = time.time()
            account = daemon.finish()
        decoder = Decoder()
        (flow,) = [flow for message in collector.drain() for flow in decoder.decode(message).flows]
    assert account.is_balanced()
    assert flow["packetDeltaCount"] == 10
    start, end = (seconds(flow[f"flow{each}Milliseconds"]) for each in ("Start", "End"))
    assert before - 0.1 < start <= end < after + 0.1
    assert daemon.log.count("this process is in a time namespace") == 1


def test_packets(lab: Lab, tmp_path: Path, moved: tuple[str, ...]) -> None:
    near, far = lab.pair()
    options = ("--alone", "--interface", far.name, "--count", "1", "--filter", "udp")
    with CaptureCommand(lab, far.ns, tmp_path, *options, file="out.pcap", prefix=moved) as capture:
        before = time.time()
        Traffic(packets=1).send(lab, near)
        capture.ended()
    whole, nanos = struct.unpack_from("=II", (capture.directory / "out.pcap").read_bytes(), 24)
    assert before - 0.1 < whole + nanos / 1e9 < time.time() + 0.1
