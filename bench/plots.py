"""PNG plots of the figures. Nothing else needs matplotlib."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from bench.userspace import STAGES

Rows = list[dict[str, Any]]


def draw(results: dict[str, Rows], folder: Path) -> list[Path]:
    """A plot for each section that has one; the files."""
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot

    files = []
    for name, plot in PLOTS.items():
        if results.get(name):
            figure, axes = pyplot.subplots(figsize=(9, 4.5))
            plot(axes, results[name])
            figure.tight_layout()
            files.append(folder / f"{name}.png")
            figure.savefig(files[-1], dpi=120)
            pyplot.close(figure)
    return files


def _bars(axes: Any, labels: list[str], values: list[float], unit: str, title: str) -> None:
    bars = axes.barh(labels, values)
    axes.bar_label(bars, fmt="%.4g", padding=2)
    axes.margins(x=0.12)
    axes.invert_yaxis()
    axes.set(xlabel=unit, title=title)


def _kernel(axes: Any, rows: Rows) -> None:
    labels, values = [row["variant"] for row in rows], [row["ns"] for row in rows]
    _bars(axes, labels, values, "ns above an empty program", "Kernel cost of a packet, one flow (BPF_PROG_TEST_RUN)")


def _traffic(axes: Any, rows: Rows) -> None:
    for variant in dict.fromkeys(row["variant"] for row in rows):
        points = [(row["flows"], row["ns"]) for row in rows if row["variant"] == variant]
        axes.plot(*zip(*points), marker="o", label=variant)
    axes.set(xscale="log", xlabel="flows, round robin", ylabel="ns above an empty program",
             title="Kernel cost of a packet, real traffic (bpf_stats)")  # fmt: skip
    axes.set_ylim(bottom=0)
    axes.grid(alpha=0.3)
    axes.legend(fontsize="small")


def _userspace(axes: Any, rows: Rows) -> None:
    rows = [row for row in rows if not row["profile"]]
    labels = [f"{row['flow_table']}, {row['flows']:,}, timeout {row['timeout_s']} s" for row in rows]
    left = [0.0] * len(rows)
    for stage in STAGES:
        values = [row[f"{stage}_us"] for row in rows]
        axes.barh(labels, values, left=left, label=stage)
        left = [begin + value for begin, value in zip(left, values)]
    axes.invert_yaxis()
    axes.set(xlabel="CPU us for each flow taken out", title="User space by stage")
    axes.legend(fontsize="small")


def _throughput(axes: Any, rows: Rows) -> None:
    labels = [f"{row['program']}, {row['flows']:,} flows" for row in rows]
    values = [row["packets_per_second"] / 1e6 for row in rows]
    _bars(axes, labels, values, "million packets/s", "Throughput of one CPU through a veth pair")


def _memory(axes: Any, rows: Rows) -> None:
    labels, values = [row["case"] for row in rows], [row["peak_kib"] / 1024 for row in rows]
    _bars(axes, labels, values, "MiB", "Peak resident memory of the daemon")


def _overload(axes: Any, rows: Rows) -> None:
    labels, values = [row["case"] for row in rows], [100 * row["exported_share"] for row in rows]
    _bars(axes, labels, values, "% of the packets seen", "Packets in exported records, 200,000 flows at full speed")


PLOTS = {
    "kernel": _kernel,
    "traffic": _traffic,
    "userspace": _userspace,
    "throughput": _throughput,
    "memory": _memory,
    "overload": _overload,
}
