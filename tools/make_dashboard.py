"""The dashboard for Grafana: ``python -m tools.make_dashboard >docs/prometheus/netobs.dashboard.json``.

A panel is a row here: its title, its unit, and its queries with their legends. tests/e2e/test_prometheus.py runs each
query against a Prometheus that has scraped a daemon.
"""

from __future__ import annotations

import json
from typing import Any, NamedTuple

WIDTH, HEIGHT, STAT_HEIGHT = 24, 8, 4
EACH_WAY = "instance, interface, netns, direction"
SELECTED = 'instance=~"$instance"'
DATASOURCE = {"type": "prometheus", "uid": "${datasource}"}


class Panel(NamedTuple):
    """``queries``: expression and legend; $ is the selection of the instances. ``kind``: stat or timeseries. ``unit``:
    as Grafana calls it. ``bad_above``: the value turns red there."""

    title: str
    about: str
    unit: str
    queries: tuple[tuple[str, str], ...]
    kind: str = "timeseries"
    bad_above: float | None = None


def stat(title: str, about: str, query: str, unit: str = "short", bad_above: float | None = None) -> Panel:
    """One number."""
    return Panel(title, about, unit, ((query, ""),), "stat", bad_above)


def rate(name: str, by: str, more: str = "") -> str:
    """How fast a counter grows, by some labels."""
    return f"sum by ({by}) (rate({name}{{$}}[$__rate_interval])){more}"


UNACCOUNTED = (
    "netobs_accepted_packets_total{$} + netobs_taken_over_packets_total"
    " - (netobs_exported_packets_total - netobs_resent_packets_total)"
    ' - (sum without (reason) (netobs_not_sent_packets_total{reason!~"refused|no_template"})'
    " or netobs_accepted_packets_total * 0)"
    " - netobs_waiting_packets - netobs_spooled_packets - netobs_moved_away_packets_total"
)
ROWS: tuple[tuple[str, tuple[Panel, ...]], ...] = (
    (
        "Is it well",
        (
            stat(
                "Daemons down", "Daemons that Prometheus does not reach", 'sum(up{job="netobs"} == bool 0)', bad_above=1
            ),
            stat(
                "Collectors down",
                "Collectors that do not seem to accept Messages",
                "sum(netobs_collector_up{$} == bool 0)",
                bad_above=1,
            ),
            stat(
                "Packets lost in the last hour",
                "In no flow, and not left out on purpose",
                'sum(increase(netobs_ledger_packets_total{$,loss="true"}[1h]))',
                bad_above=1,
            ),
            stat(
                "Flows not sent in the last hour",
                "By no collector's fault alone: see the reasons below",
                "sum(increase(netobs_not_sent_flows_total{$}[1h]))",
                bad_above=1,
            ),
            stat(
                "Packets not accounted for",
                "Given to collectors, and neither sent, nor waiting, nor counted as not sent: always 0",
                f"sum(abs({UNACCOUNTED}))",
                bad_above=1,
            ),
            stat("Interfaces", "Interfaces that are measured", "sum(netobs_interfaces{$})"),
        ),
    ),
    (
        "Traffic",
        (
            Panel(
                "Bits per second by protocol",
                "IP octets of exported flows; a flow counts when it is exported",
                "bps",
                ((rate("netobs_flow_octets_total", "protocol", " * 8"), "{{protocol}}"),),
            ),
            Panel(
                "Bits per second by interface and direction",
                "The ten largest",
                "bps",
                (
                    (
                        f"topk(10, {rate('netobs_flow_octets_total', EACH_WAY, ' * 8')})",
                        "{{instance}} {{netns}} {{interface}} {{direction}}",
                    ),
                ),
            ),
            Panel(
                "Flow Records per second by protocol",
                "Exported",
                "short",
                ((rate("netobs_flow_records_total", "protocol"), "{{protocol}}"),),
            ),
            Panel(
                "Packets per second seen, by interface and direction",
                "The ten largest; counted by the programs at the hooks",
                "pps",
                (
                    (
                        f"topk(10, {rate('netobs_seen_packets_total', EACH_WAY)})",
                        "{{instance}} {{netns}} {{interface}} {{direction}}",
                    ),
                ),
            ),
        ),
    ),
    (
        "The account of every packet",
        (
            Panel(
                "Packets per second, stage by stage",
                "Seen at the hooks, taken out of the kernel, handed out by the flow cache",
                "pps",
                (
                    (rate("netobs_account_seen_packets_total", "instance"), "{{instance}} seen"),
                    (rate("netobs_taken_packets_total", "instance"), "{{instance}} taken"),
                    (rate("netobs_handed_out_packets_total", "instance"), "{{instance}} handed out"),
                ),
            ),
            Panel(
                "Packets in no flow, by reason",
                "not_ip and not_sampled are no losses",
                "pps",
                ((rate("netobs_ledger_packets_total", "instance, reason"), "{{instance}} {{reason}}"),),
            ),
            Panel(
                "Flows not sent, by collector and reason",
                "netobs(8) says what to do about each reason",
                "short",
                (
                    (
                        rate("netobs_not_sent_flows_total", "instance, collector, reason"),
                        "{{instance}} {{collector}} {{reason}}",
                    ),
                ),
            ),
            Panel(
                "Difference to the kernel's counters",
                "What nothing explains, as a part of the packets",
                "percentunit",
                (("netobs_reconciliation_ratio{$}", "{{instance}} {{netns}} {{interface}} {{direction}}"),),
            ),
        ),
    ),
    (
        "Collectors",
        (
            Panel(
                "Flows sent per second",
                "With those that were sent again, or refused",
                "short",
                ((rate("netobs_exported_flows_total", "instance, collector"), "{{instance}} {{collector}}"),),
            ),
            Panel(
                "Reachable",
                "1: the collector seems to accept Messages",
                "short",
                (("netobs_collector_up{$}", "{{instance}} {{collector}}"),),
            ),
            Panel(
                "Flows that wait",
                "In memory, and in the spool",
                "short",
                (
                    ("netobs_waiting_flows{$}", "{{instance}} {{collector}} in memory"),
                    ("netobs_spooled_flows{$}", "{{instance}} {{collector}} in the spool"),
                ),
            ),
            Panel(
                "Spool, as a part of spool_max",
                "When it is full, its oldest flows are lost",
                "percentunit",
                (("netobs_spool_bytes{$} / netobs_spool_max_bytes", "{{instance}} {{collector}}"),),
            ),
        ),
    ),
    (
        "The daemon",
        (
            Panel(
                "Flows in the kernel's table and in the flow cache",
                "The table as the last eviction found it",
                "short",
                (
                    ("netobs_table_flows{$}", "{{instance}} {{level}}"),
                    ("netobs_flow_cache_flows{$}", "{{instance}} flow cache"),
                ),
            ),
            Panel(
                "Evictions per second",
                "Those because the table was full cost CPU time: raise capture.max_flows",
                "short",
                (
                    (rate("netobs_evictions_total", "instance"), "{{instance}} all"),
                    (rate("netobs_emergency_evictions_total", "instance"), "{{instance}} because the table was full"),
                ),
            ),
            Panel(
                "Time that evictions take",
                "The 99th percentile, with metering and export; and the part that waits for programs",
                "s",
                (
                    (
                        f"histogram_quantile(0.99, {rate('netobs_eviction_seconds_bucket', 'instance, le')})",
                        "{{instance}} eviction",
                    ),
                    (
                        f"histogram_quantile(0.99, {rate('netobs_grace_seconds_bucket', 'instance, le')})",
                        "{{instance}} grace period",
                    ),
                ),
            ),
            Panel(
                "Longest silence of the loop",
                "Since the start of the daemon",
                "s",
                (("netobs_loop_longest_silence_seconds{$}", "{{instance}}"),),
            ),
            Panel(
                "CPU time",
                "1 is one core",
                "short",
                (('rate(process_cpu_seconds_total{$,job="netobs"}[$__rate_interval])', "{{instance}}"),),
            ),
            Panel(
                "Resident memory",
                "Without the flow table, which is memory of the kernel",
                "bytes",
                (('process_resident_memory_bytes{$,job="netobs"}', "{{instance}}"),),
            ),
            Panel(
                "Things that the log warns of",
                "How often in an hour the clock was set, a program removed, or the daemon silent for a second",
                "short",
                (("increase(netobs_events_total{$}[1h])", "{{instance}} {{event}}"),),
            ),
            Panel(
                "Configuration",
                "1: the last reload failed; 1: the file has changed since it was read",
                "short",
                (
                    ("netobs_reload_failed{$}", "{{instance}} reload failed"),
                    ("netobs_configuration_newer{$}", "{{instance}} file has changed"),
                ),
            ),
        ),
    ),
)


def written(panel: Panel, number: int, place: dict[str, int]) -> dict[str, Any]:
    """The panel as Grafana has it."""
    colours: list[dict[str, Any]] = [{"color": "green", "value": None}]
    if panel.bad_above is not None:
        colours.append({"color": "red", "value": panel.bad_above})
    options: dict[str, Any] = (
        {"reduceOptions": {"calcs": ["lastNotNull"], "fields": "", "values": False}, "colorMode": "value"}
        if panel.kind == "stat"
        else {"legend": {"displayMode": "list", "placement": "bottom"}, "tooltip": {"mode": "multi", "sort": "desc"}}
    )
    return {
        "id": number,
        "type": panel.kind,
        "title": panel.title,
        "description": panel.about,
        "datasource": DATASOURCE,
        "gridPos": place,
        "fieldConfig": {
            "defaults": {"unit": panel.unit, "thresholds": {"mode": "absolute", "steps": colours}},
            "overrides": [],
        },
        "options": options,
        "targets": [
            {
                "refId": chr(ord("A") + position),
                "datasource": DATASOURCE,
                "expr": expression.replace("{$", "{" + SELECTED),
                "legendFormat": legend,
            }
            for position, (expression, legend) in enumerate(panel.queries)
        ],
    }


def panels() -> list[dict[str, Any]]:
    """All rows with their panels, placed on the grid."""
    found: list[dict[str, Any]] = []
    y = 0
    for title, row in ROWS:
        place = {"h": 1, "w": WIDTH, "x": 0, "y": y}
        found.append({"id": len(found) + 1, "type": "row", "title": title, "gridPos": place, "panels": []})
        y += 1
        for start in range(0, len(row), 6 if row[0].kind == "stat" else 2):
            line = row[start : start + (6 if row[0].kind == "stat" else 2)]
            height, width = (STAT_HEIGHT if row[0].kind == "stat" else HEIGHT), WIDTH // len(line)
            for position, panel in enumerate(line):
                place = {"h": height, "w": width, "x": position * width, "y": y}
                found.append(written(panel, len(found) + 1, place))
            y += height
    return found


def dashboard() -> dict[str, Any]:
    """The whole dashboard."""
    source = {"name": "datasource", "label": "Prometheus", "type": "datasource", "query": "prometheus", "hide": 0}
    instances = {
        "name": "instance",
        "label": "Host",
        "type": "query",
        "datasource": DATASOURCE,
        "query": {"query": "label_values(netobs_build_info, instance)", "refId": "instances"},
        "multi": True,
        "includeAll": True,
        "allValue": ".*",
        "current": {"text": ["All"], "value": ["$__all"]},
        "refresh": 2,
        "sort": 1,
        "hide": 0,
    }
    return {
        "uid": "netobs",
        "title": "netobs",
        "description": "Network flows of hosts, and how well they are measured and exported",
        "tags": ["netobs", "network", "ipfix"],
        "schemaVersion": 37,
        "version": 1,
        "editable": True,
        "timezone": "browser",
        "refresh": "30s",
        "time": {"from": "now-1h", "to": "now"},
        "templating": {"list": [source, instances]},
        "annotations": {"list": []},
        "links": [],
        "panels": panels(),
    }


if __name__ == "__main__":
    print(json.dumps(dashboard(), indent=2))
