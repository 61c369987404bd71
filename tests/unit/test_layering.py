"""Who may import whom, and who may read the clock: read from the syntax trees, nothing is imported."""

from __future__ import annotations

import ast
from collections.abc import Iterable
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
STAGES = ("datapath", "metering", "encode", "export")
# the loop with its Exporting Process, the plan that --dry-run prints of it, what another configuration would change,
# what does not fit the host,
# and the accounts of what it did for the operator and for collectors
JOINERS = {
    "netobs.daemon.daemon",
    "netobs.daemon.collectors",
    "netobs.daemon.dry_run",
    "netobs.daemon.reload",
    "netobs.daemon.account",
    "netobs.daemon.reporter",
    "netobs.daemon.footprint",
    "netobs.daemon.host_check",
}
TOP = {"netobs.cli.main", "netobs.__main__", *JOINERS}
CLOCK_READERS = {
    "time": {
        "time", "time_ns", "monotonic", "monotonic_ns", "perf_counter", "perf_counter_ns", "clock_gettime",
        "clock_gettime_ns", "process_time", "process_time_ns", "sleep", "localtime", "gmtime", "strftime",
    },
    "datetime": {"now", "utcnow", "today"},
}  # fmt: skip
NOT_IN_ENCODE = {"socket", "logging", "time", "select", "selectors", "asyncio", "threading", "ssl", "netobs.base.clock"}


def module_name(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {module_name(path): path.read_text() for path in sorted((ROOT / "netobs").rglob("*.py"))}


def imports_of(source: str) -> set[str]:
    """All that ``source`` imports, at any depth. ``from a import b`` gives ``a`` and ``a.b``: b may be a module."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            names.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            module = "." * node.level + (node.module or "")
            names.add(module)
            names.update(f"{module}.{alias.name}" for alias in node.names)
    return names


def stages_in(imports: set[str]) -> set[str]:
    return {stage for stage in STAGES for name in imports if f"{name}.".startswith(f"netobs.{stage}.")}


def clock_reads(source: str) -> set[str]:
    """The ways in which ``source`` reads the time: ``time.X``, ``datetime.now`` and names imported from time."""
    reads: set[str] = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.ImportFrom) and node.module == "time":
            reads.update(alias.name for alias in node.names if alias.name in CLOCK_READERS["time"])
        elif isinstance(node, ast.Attribute):
            owner = node.value.attr if isinstance(node.value, ast.Attribute) else getattr(node.value, "id", "")
            if node.attr in CLOCK_READERS.get(owner, ()):
                reads.add(node.attr)
    return reads


def test_the_reader_sees_every_form_of_import() -> None:
    source = (
        "import a.b\nfrom netobs import encode\nfrom .x import y\ndef f():\n    from netobs.export.link.udp import z\n"
    )
    assert {"a.b", "netobs.encode", ".x", "netobs.export.link.udp"} <= imports_of(source)
    assert stages_in(imports_of(source)) == {"encode", "export"}
    assert stages_in({"netobs.encoder", "encode"}) == set()


def test_the_reader_sees_every_form_of_clock_read() -> None:
    assert clock_reads("import time\ntime.time_ns()") == {"time_ns"}
    assert clock_reads("from time import monotonic") == {"monotonic"}
    assert clock_reads("import datetime\ndatetime.datetime.now(tz)") == {"now"}
    assert clock_reads("from netobs import clock\nclock.monotonic_ns()\nself.time()") == set()


def test_every_stage_has_modules() -> None:
    assert stages_in(set(MODULES)) == set(STAGES)


@pytest.mark.parametrize("module", MODULES)
def test_no_relative_import(module: str) -> None:
    assert not [name for name in imports_of(MODULES[module]) if name.startswith(".")]


@pytest.mark.parametrize("module", [name for name in MODULES if stages_in({name})])
def test_a_stage_imports_no_other_stage(module: str) -> None:
    assert stages_in(imports_of(MODULES[module])) <= stages_in({module})


def of_pcap(names: Iterable[str]) -> list[str]:
    return [name for name in names if f"{name}.".startswith("netobs.pcap.")]


@pytest.mark.parametrize("module", of_pcap(MODULES))
def test_the_capture_agent_has_nothing_of_the_stages(module: str) -> None:
    assert stages_in(imports_of(MODULES[module])) == set()


@pytest.mark.parametrize("module", [name for name in MODULES if stages_in({name})])
def test_a_stage_has_nothing_of_the_capture_agent(module: str) -> None:
    assert of_pcap(imports_of(MODULES[module])) == []


@pytest.mark.parametrize("module", [name for name in MODULES if not stages_in({name}) and name not in JOINERS])
def test_only_the_daemon_and_its_plan_see_several_stages(module: str) -> None:
    assert len(stages_in(imports_of(MODULES[module]))) <= 1


@pytest.mark.parametrize("module", [name for name in MODULES if name not in TOP])
def test_nothing_below_imports_the_top(module: str) -> None:
    assert not imports_of(MODULES[module]) & TOP


@pytest.mark.parametrize("module", [name for name in MODULES if name != "netobs.base.clock"])
def test_only_clock_reads_the_time(module: str) -> None:
    assert not clock_reads(MODULES[module])


@pytest.mark.parametrize("module", [name for name in MODULES if stages_in({name}) == {"encode"}])
def test_encode_does_no_io(module: str) -> None:
    assert not imports_of(MODULES[module]) & NOT_IN_ENCODE
