"""The examples in conf/: each is a whole configuration, right as it stands, with nothing odd in it."""

from __future__ import annotations

from pathlib import Path

import pytest

from netobs.config import Config, load, warnings_of
from netobs.config.schema import CaptureConfig
from netobs.encode.protocols import exporter

CONF = Path(__file__).parents[3] / "conf"
EXAMPLES = sorted(CONF.glob("*.toml"))


def test_the_examples_are_these() -> None:
    assert {path.stem for path in EXAMPLES} == {"lab", "netobs", "openstack-compute", "router", "server"}


@pytest.fixture(params=EXAMPLES, ids=lambda path: path.stem)
def example(request: pytest.FixtureRequest) -> Config:
    return load(request.param)


def test_it_loads_without_a_warning(example: Config) -> None:
    assert warnings_of(example) == []


def test_its_collectors_can_be_exported_to(example: Config) -> None:
    for collector in example.collectors:
        encoder = exporter(collector.protocol, collector.template, 0, example.capture.sampling).encoder
        encoder.check(collector.max_message_size)


def test_it_says_what_it_is_for(example: Config) -> None:
    first, *rest = Path(example.path).read_text("utf-8").splitlines()
    assert first.startswith("# ")
    assert rest[0] == "#"
    assert max(map(len, rest)) <= 120


def matched(name: str, *interfaces: str) -> list[str]:
    """Which of ``interfaces`` the example ``name`` observes."""
    return [each for each in interfaces if load(CONF / f"{name}.toml").capture.selector.matches(each)]


def test_a_packet_counts_on_one_level() -> None:
    """What passes a VLAN, a bond or a bridge passes the card below it too."""
    cards = ["eth0", "eno1", "enp3s0f1np1"]
    for name in ("server", "router"):
        assert matched(name, *cards, "eno1.100", "bond0", "br0", "lo", "docker0", "veth1a2b") == cards
    taps = ["tap0a1b2c3d-4e", "tapffffffff-00"]
    others = ["tap0", "qvo0a1b2c3d-4e", "br-int", "ovs-system", "vxlan_sys_4789", "bond0.100", "eno1", "lo"]
    assert matched("openstack-compute", *taps, "bond0", *others) == [*taps, "bond0"]


def test_a_router_counts_a_packet_where_it_comes_in() -> None:
    assert load(CONF / "router.toml").capture.direction == "ingress"


def test_the_lab_shows_flows_within_seconds() -> None:
    lab = load(CONF / "lab.toml")
    assert lab.capture.eviction_interval_ns < CaptureConfig.eviction_interval_ns
    assert [(each.host, each.port) for each in lab.collectors] == [("127.0.0.1", 4739)]
    assert not lab.capture.selector.matches("lo")
