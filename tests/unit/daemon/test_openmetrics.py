"""The state document as metrics: names, units, escapes, bounds, and what promtool says of them."""

from __future__ import annotations

import copy
import re
import shutil
import subprocess
from typing import Any

import pytest

from netobs.daemon.interface_metrics import InterfaceMetrics
from netobs.daemon.openmetrics import (
    MOST_INTERFACES,
    PROCESS,
    SINGLES,
    UNITS,
    Family,
    families,
    labels,
    text,
)
from tests.unit.daemon.documents import DOCUMENT, columns, interface

NAME = re.compile(r"[a-z_]+")
SAMPLE = re.compile(r'([a-z_]+)(\{(?:[a-z]+="(?:[^"\\\n]|\\[\\"n])*",?)*\})? (\S+)')


def written(document: Any, openmetrics: bool = True, interfaces: InterfaceMetrics | None = None) -> str:
    of_interfaces = (interfaces or InterfaceMetrics()).families(*columns(document["interfaces"]))
    return text(families(document, of_interfaces, SINGLES + PROCESS), openmetrics)


def samples(said: str) -> dict[str, float]:
    found: dict[str, float] = {}
    for line in said.splitlines():
        if not line.startswith("#"):
            match = SAMPLE.fullmatch(line)
            assert match is not None, line
            name = match[1] + (match[2] or "")
            assert name not in found
            found[name] = float(match[3])
    return found


def changed(**tables: Any) -> dict[str, Any]:
    document = copy.deepcopy(DOCUMENT)
    for name, values in tables.items():
        document[name] = {**document[name], **values}
    return document


def test_the_grammar_of_openmetrics() -> None:
    said = written(DOCUMENT)
    assert said.endswith("\n# EOF\n")
    blocks = re.split(r"^(?=# TYPE )", said[: -len("# EOF\n")], flags=re.MULTILINE)[1:]
    seen = set()
    for block in blocks:
        head = re.match(r"# TYPE (\w+) (\w+)\n(?:# UNIT (\w+) (\w+)\n)?# HELP (\w+) ([^\n\"\\]+)\n", block)
        assert head is not None, block
        name, kind, of_unit, unit, of_help, _ = head.groups()
        assert NAME.fullmatch(name)
        assert name not in seen
        seen.add(name)
        assert (of_unit or name, of_help) == (name, name)
        assert not unit or (name.endswith(f"_{unit}") and unit in UNITS)
        suffixes = {
            "counter": ("_total",),
            "info": ("_info",),
            "gauge": ("",),
            "histogram": ("_bucket", "_count", "_sum"),
        }
        lines = block[head.end() :].splitlines()
        assert lines
        assert {re.match(r"\w+", line)[0] for line in lines} == {name + each for each in suffixes[kind]}  # type: ignore[index]
    assert len(seen) > 60


def test_the_older_format_names_the_samples() -> None:
    said = written(DOCUMENT, openmetrics=False)
    assert "EOF" not in said
    assert "# UNIT" not in said
    assert "# TYPE netobs_evictions_total counter\n" in said
    assert "# TYPE netobs_build_info gauge\n" in said
    assert samples(said) == samples(written(DOCUMENT))


def test_promtool_finds_nothing() -> None:
    if shutil.which("promtool") is None:
        pytest.skip("promtool is not installed")
    said = written(DOCUMENT, openmetrics=False)
    done = subprocess.run(["promtool", "check", "metrics"], input=said, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_what_is_known_becomes_a_sample() -> None:
    found = samples(written(DOCUMENT))
    main = '{collector="main"}'
    assert {name: found.get(name) for name in (
        'netobs_build_info{version="1.2.3"}',
        'netobs_seen_packets_total{interface="eth0",direction="ingress"}',
        'netobs_interface_info{interface="eth0",direction="ingress",method="tcx"}',
        'netobs_reconciliation_ratio{interface="eth0",direction="ingress"}',
        "netobs_account_seen_octets_total",
        'netobs_ledger_packets_total{reason="ring_full",loss="true"}',
        'netobs_ledger_packets_total{reason="not_ip",loss="false"}',
        'netobs_table_flows{level="slots"}',
        'netobs_eviction_seconds_bucket{le="0.01"}',
        'netobs_eviction_seconds_bucket{le="+Inf"}',
        "netobs_eviction_seconds_count",
        "netobs_eviction_seconds_sum",
        f"netobs_collector_up{main}",
        'netobs_collector_up{collector="spare"}',
        f"netobs_exported_packets_total{main}",
        f"netobs_accepted_flows_total{main}",
        'netobs_not_sent_flows_total{collector="main",reason="queue_full"}',
        'netobs_not_sent_flows_total{collector="main",reason="no_template"}',
        'netobs_spool_bytes{collector="main"}',
        "netobs_reload_failed",
        "netobs_configuration_newer",
        'netobs_events_total{event="clock_step"}',
        "netobs_capture_clients",
        'netobs_capture_lost_packets_total{reason="queue_full"}',
        "process_open_fds",
    )} == {
        'netobs_build_info{version="1.2.3"}': 1,
        'netobs_seen_packets_total{interface="eth0",direction="ingress"}': 1000,
        'netobs_interface_info{interface="eth0",direction="ingress",method="tcx"}': 1,
        'netobs_reconciliation_ratio{interface="eth0",direction="ingress"}': 0.01,
        "netobs_account_seen_octets_total": 900_000,
        'netobs_ledger_packets_total{reason="ring_full",loss="true"}': 7,
        'netobs_ledger_packets_total{reason="not_ip",loss="false"}': 3,
        'netobs_table_flows{level="slots"}': 92,
        'netobs_eviction_seconds_bucket{le="0.01"}': 12,
        'netobs_eviction_seconds_bucket{le="+Inf"}': 13,
        "netobs_eviction_seconds_count": 13,
        "netobs_eviction_seconds_sum": 0.5,
        f"netobs_collector_up{main}": 1,
        'netobs_collector_up{collector="spare"}': 0,
        f"netobs_exported_packets_total{main}": 950,
        f"netobs_accepted_flows_total{main}": 100,
        'netobs_not_sent_flows_total{collector="main",reason="queue_full"}': 2,
        'netobs_not_sent_flows_total{collector="main",reason="no_template"}': 1,
        'netobs_spool_bytes{collector="main"}': 4096,
        "netobs_reload_failed": 0,
        "netobs_configuration_newer": 1,
        'netobs_events_total{event="clock_step"}': 2,
        "netobs_capture_clients": 2,
        'netobs_capture_lost_packets_total{reason="queue_full"}': 5,
        "process_open_fds": 40,
    }  # fmt: skip


def test_what_is_not_known_becomes_none() -> None:
    document = changed(configuration={"reload": None, "is_newer": None}, daemon={"ready_s": None})
    document["interfaces"] = [interface("eth0", 2)]
    document["interfaces"][0]["directions"]["ingress"]["seen"] = None
    document["collectors"][1]["spool"] = document["packet_capture"] = None
    names = " ".join(samples(written(document)))
    assert "reload" not in names
    assert "newer" not in names
    assert "ready" not in names
    assert "capture_" not in names
    assert 'netobs_seen_packets_total{interface="eth0",direction="ingress"}' not in names
    assert 'netobs_seen_packets_total{interface="eth0",direction="egress"}' in names
    assert 'netobs_spool_bytes{collector="spare"}' not in names


def test_a_label_is_escaped() -> None:
    assert labels(a='x"y\\z\n', b="", c=None) == r'{a="x\"y\\z\n"}'
    assert labels() == ""
    document = changed()
    document["interfaces"] = [interface('a"b\\', 2)]
    assert 'netobs_seen_packets_total{interface="a\\"b\\\\",direction="egress"}' in samples(written(document))


def test_equal_names_in_two_namespaces_are_told_apart() -> None:
    document = changed()
    document["interfaces"] = [interface("eth0", 2), interface("eth0", 2, netns="blue")]
    found = samples(written(document))
    assert 'netobs_seen_packets_total{interface="eth0",netns="blue",direction="egress"}' in found
    assert 'netobs_seen_packets_total{interface="eth0",direction="egress"}' in found


def seen_by(names: list[str], chosen: InterfaceMetrics, packets: int = 10) -> dict[str, float]:
    document = changed()
    document["interfaces"] = [interface(name, int(name[3:]), packets=packets) for name in names]
    pattern = re.compile(r'netobs_seen_packets_total\{interface="(\w+)",direction="ingress"\}')
    found = samples(written(document, interfaces=chosen))
    return {match[1]: value for name, value in found.items() if (match := pattern.fullmatch(name))}


def test_beyond_the_most_interfaces_the_rest_is_added_up() -> None:
    chosen = InterfaceMetrics(most=2)
    assert seen_by(["tap1", "tap2"], chosen) == {"tap1": 10, "tap2": 10}
    assert seen_by(["tap0", "tap1", "tap2", "tap3"], chosen) == {"tap1": 10, "tap2": 10, "others": 20}
    # A place is free: whoever counts as one of the others stays there, so that their sum never goes down.
    assert seen_by(["tap0", "tap2", "tap3"], chosen, 15) == {"tap2": 15, "others": 30}
    assert seen_by(["tap0", "tap2", "tap4"], chosen, 15) == {"tap2": 15, "tap4": 15, "others": 30}
    assert seen_by(["tap2", "tap4"], chosen, 16) == {"tap2": 16, "tap4": 16, "others": 30}


def test_the_sum_of_others_does_not_go_down_while_a_counter_is_unknown() -> None:
    chosen, document = InterfaceMetrics(most=1), changed()
    document["interfaces"] = [interface(f"tap{index}", index, packets=10) for index in range(3)]
    of_others = 'netobs_seen_packets_total{interface="others",direction="ingress"}'
    assert samples(written(document, interfaces=chosen))[of_others] == 20
    document["interfaces"][1]["directions"]["ingress"]["seen"] = None
    document["interfaces"][2] = interface("tap2", 2, packets=15)
    assert samples(written(document, interfaces=chosen))[of_others] == 25
    document["interfaces"][1] = interface("tap1", 1, packets=4)  # begins anew
    assert samples(written(document, interfaces=chosen))[of_others] == 29
    del document["interfaces"][2]["directions"]["ingress"]
    assert samples(written(document, interfaces=chosen))[of_others] == 29
    document["interfaces"][2] = interface("tap2", 2, packets=16)  # the hook is back
    assert samples(written(document, interfaces=chosen))[of_others] == 30


def test_interfaces_are_in_the_order_of_namespaces_then_of_indices() -> None:
    document = changed()
    document["interfaces"] = [interface("c", 3, "blue"), interface("b", 10), interface("a", 9)]
    said = written(document)
    order = re.findall(r'netobs_seen_octets_total\{interface="(\w)".*direction="(\w+)"', said)
    assert order == [(name, way) for name in "abc" for way in ("ingress", "egress")]


def test_two_thousand_interfaces_have_a_bounded_number_of_samples() -> None:
    document = changed()
    document["interfaces"] = [interface(f"tap{index}", index) for index in range(2 * MOST_INTERFACES)]
    said = written(document)
    assert said.count("\nnetobs_seen_packets_total{") == 2 * (MOST_INTERFACES + 1)
    assert f'netobs_seen_packets_total{{interface="others",direction="ingress"}} {1000 * MOST_INTERFACES}\n' in said
    assert f"\nnetobs_interfaces {2 * MOST_INTERFACES}\n" in said


def test_a_metric_without_samples_is_left_out() -> None:
    assert (
        text([Family("netobs_a", "gauge", "A", []), Family("netobs_b", "gauge", "B", [("", None)])], True) == "# EOF\n"
    )
