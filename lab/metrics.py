"""A daemon that Prometheus scrapes while traffic passes: ``python -m lab.metrics --seconds 300 --picture FILE``.

Its flows go to nfcapd and to a collector with a spool. At the end the sums of Prometheus and of nfcapd must be equal,
only the alert for the collector that is down may fire, and no query of the dashboard may be empty. There is no Grafana
here: with ``--picture`` (needs matplotlib) each panel is drawn from what Prometheus answers to its queries.
"""

from __future__ import annotations

import argparse
import itertools
import json
import math
import re
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import NamedTuple

from lab.collectors import Nfcapd
from lab.daemon import Counts, Daemon, configuration
from lab.namespaces import Lab, Link
from lab.programs import wait_until
from lab.prometheus import Prometheus
from lab.traffic import REPOSITORY, Traffic

FILES = REPOSITORY / "docs" / "prometheus"
PORT = 9469
NFCAPD = 'collector="nfcapd"'
RATE_INTERVAL_S = 4
COURSES = 20
"""The panels behind those with one number."""
EXPECTED = {"NetobsCollectorDown"}


def queries() -> list[tuple[str, str, str]]:
    """Of the dashboard: title of the panel, expression and legend, with the variables filled in."""
    panels = json.loads((FILES / "netobs.dashboard.json").read_text("utf-8"))["panels"]
    filled = {"$instance": ".*", "$__rate_interval": f"{RATE_INTERVAL_S}s"}
    found = []
    for panel in panels:
        for target in panel.get("targets", ()):
            expression = target["expr"]
            for name, value in filled.items():
                expression = expression.replace(name, value)
            found.append((panel["title"], expression, target["legendFormat"]))
    return found


class Scene(NamedTuple):
    """All that runs. ``near`` sends to ``far``, which the daemon measures."""

    lab: Lab
    near: Link
    far: Link
    daemon: Daemon
    nfcapd: Nfcapd
    prometheus: Prometheus


@contextmanager
def scene(lab: Lab, folder: Path) -> Iterator[Scene]:
    """A daemon with two collectors, of which one is down and has a spool, and Prometheus with netobs's rules."""
    near, far = lab.pair()
    away = {"name": "away", "transport": "tcp", "port": 4740, "spool": str(folder / "spool"), "reconnect_max": "1s"}
    config = configuration(
        {"eviction_interval": "500ms"},
        {"active_timeout": "1s", "idle_timeout": "1s"},
        [{"name": "nfcapd"}, away],
        metrics={"listen": f"127.0.0.1:{PORT}"},
    )
    with ExitStack() as stack:
        nfcapd = stack.enter_context(Nfcapd(lab, far.ns, folder))
        daemon = stack.enter_context(Daemon(lab, far.ns, folder, config))
        daemon.reload(config)  # so that there is the result of one
        targets = {"netobs": [f"127.0.0.1:{PORT}"]}
        prometheus = stack.enter_context(Prometheus(lab, far.ns, folder, targets, [FILES / "netobs.rules.yml"]))
        wait_until(lambda: bool(prometheus.query("up == 1")), "the first scrape")
        yield Scene(lab, near, far, daemon, nfcapd, prometheus)


def send(made: Scene, seconds: float) -> None:
    """Traffic of several protocols in both directions, more and less of it."""
    kinds = (("tcp", False), ("udp", False), ("udp", True), ("icmp", False), ("tcp", True))
    began_s = time.monotonic()
    for number in itertools.count():
        protocol, ipv6 = kinds[number % len(kinds)]
        packets = round(400 + 300 * math.sin(number / 20))
        traffic = Traffic(
            flows=50, packets=packets, protocol=protocol, ipv6=ipv6, flow_base=50 * number, size=(80, 1200)
        )
        traffic.send(made.lab, made.far if number % 4 == 3 else made.near, rate=packets * 5)
        if time.monotonic() - began_s >= seconds:
            return


def sums(made: Scene) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Flows, packets and octets, when the last has been exported and scraped: of Prometheus, and of nfcapd."""
    account: dict[str, Counts] = {}

    def is_settled() -> bool:
        account.update(sent=made.daemon.account().sent["nfcapd"])
        exported = made.prometheus.value(f"netobs_exported_packets_total{{{NFCAPD}}}")
        return made.prometheus.value("netobs_flow_cache_flows") == 0 and exported == account["sent"].packets

    wait_until(is_settled, "all flows are exported, and scraped")
    names = [f"netobs_exported_{each}_total{{{NFCAPD}}}" for each in ("flows", "packets", "octets")]
    found = tuple(int(made.prometheus.value(name)) for name in names)
    summary = made.nfcapd.summary()
    return found, (summary.flows, summary.packets, summary.octets)


def empty(made: Scene) -> list[str]:
    """The queries of the dashboard that Prometheus has no answer to."""
    return [expression for _, expression, _ in queries() if not made.prometheus.query(expression)]


def draw(made: Scene, seconds: float, path: Path) -> None:
    """Draws the panels with a course, four in a row."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot, ticker
    from PIL import Image

    titles = list(dict.fromkeys(title for title, _, _ in queries()))[-COURSES:]
    figure, axes = pyplot.subplots(-(-len(titles) // 4), 4, figsize=(24, 3.6 * -(-len(titles) // 4)))
    end_s = made.prometheus.value("vector(time())")
    for title, axis in zip(titles, axes.flat):
        for _, expression, legend in (each for each in queries() if each[0] == title):
            for labels, points in made.prometheus.query_range(expression, end_s - seconds, end_s, 1):
                name = legend
                for label in re.findall(r"{{(\w+)}}", legend):
                    name = name.replace(f"{{{{{label}}}}}", labels.get(label, "") if label != "instance" else "")
                axis.plot(
                    [at_s - end_s + seconds for at_s, _ in points],
                    [value for _, value in points],
                    label=" ".join(name.split()) or "daemon",
                )
        axis.set_title(title, fontsize=10)
        axis.set_xlabel("seconds", fontsize=7)
        axis.yaxis.set_major_formatter(ticker.EngFormatter())
        axis.tick_params(labelsize=7)
        low, high = axis.dataLim.intervaly
        axis.set_ylim(min(0, low), 1.3 * high if high > 0 else 1)
        axis.legend(fontsize=7, loc="upper right")
    for axis in axes.flat[len(titles) :]:
        axis.axis("off")
    figure.tight_layout()
    figure.savefig(path, dpi=60)
    with Image.open(path) as picture:  # a third of the size
        picture.quantize(64).save(path, optimize=True)


def main() -> int:
    """Runs it all; 1 if anything is not as it should be."""
    parser = argparse.ArgumentParser(prog="lab.metrics", description="Prometheus scrapes a daemon (root)")
    parser.add_argument("--seconds", type=float, default=300)
    parser.add_argument("--picture", type=Path, help="draw the panels of the dashboard to this PNG file")
    options = parser.parse_args()
    with Lab() as lab, tempfile.TemporaryDirectory() as folder, scene(lab, Path(folder)) as made:
        send(made, options.seconds)
        without, firing, problems = empty(made), made.prometheus.firing(), made.prometheus.problems()
        scrapes = int(made.prometheus.value(f'count_over_time(up{{job="netobs"}}[{round(options.seconds) + 60}s])'))
        if options.picture:
            draw(made, options.seconds, options.picture)
        found, theirs = sums(made)
    print(f"{scrapes} scrapes; flows, packets, octets: Prometheus {found}, nfcapd {theirs}")
    print(f"queries of the dashboard without an answer: {', '.join(without) or 'none'}")
    print(f"alerts: {', '.join(firing) or 'none'}; failed scrapes and rules: {', '.join(problems) or 'none'}")
    return int(found != theirs or bool(without) or bool(problems) or not {*firing} <= EXPECTED)


if __name__ == "__main__":
    sys.exit(main())
