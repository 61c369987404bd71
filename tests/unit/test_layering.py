"""Which room may import which, and who may read the clock: read from the syntax trees, nothing is imported."""

from __future__ import annotations

import ast
import re

import pytest

from tools.rooms import FLOORS, NOT_IMPORTED, ROOT, circle, imports_of, may_import, refused, room, sources

CLOCK_READERS = {
    "time": {
        "time", "time_ns", "monotonic", "monotonic_ns", "perf_counter", "perf_counter_ns", "clock_gettime",
        "clock_gettime_ns", "process_time", "process_time_ns", "sleep", "localtime", "gmtime", "strftime",
    },
    "datetime": {"now", "utcnow", "today"},
}  # fmt: skip
NOT_IN_ENCODE = {"socket", "logging", "time", "select", "selectors", "asyncio", "threading", "ssl", "netobs.base.clock"}
MODULES = sources()
ROOMS = [name for names in FLOORS for name in names]


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
    assert (room("netobs.export.link.udp"), room("netobs.__main__"), room("netobs")) == ("export", "", "")


def test_the_reader_sees_every_form_of_clock_read() -> None:
    assert clock_reads("import time\ntime.time_ns()") == {"time_ns"}
    assert clock_reads("from time import monotonic") == {"monotonic"}
    assert clock_reads("import datetime\ndatetime.datetime.now(tz)") == {"now"}
    assert clock_reads("from netobs.base import clock\nclock.monotonic_ns()\nself.time()") == set()


def test_an_import_that_leads_up_is_found() -> None:
    up = {"netobs.base.a": "from netobs.daemon import b", "netobs.daemon.b": ""}
    assert refused({**up, "netobs.daemon": ""}) == [
        "netobs.base.a -> netobs.daemon",
        "netobs.base.a -> netobs.daemon.b",
    ]
    assert may_import("export", "base")
    assert not may_import("encode", "metering")
    assert not may_import("export", "encode")


def test_a_circle_is_found() -> None:
    ring = {"a.b": "from a import c", "a.c": "def f():\n    import a.d", "a.d": "from a.b import x"}
    assert circle(ring) == ["a.b", "a.c", "a.d", "a.b"]
    assert circle({**ring, "a.c": ""}) == []
    only_for_types = "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    import a.d"
    assert circle({**ring, "a.c": only_for_types}) == []


def test_each_module_is_in_a_room() -> None:
    assert {room(name) for name in MODULES} == {"", *ROOMS}
    assert {name for name in MODULES if not room(name)} == {"netobs", "netobs.__main__"}
    assert {*NOT_IMPORTED, *(name for names in NOT_IMPORTED.values() for name in names)} <= {*ROOMS}


def test_no_import_leads_up() -> None:
    assert refused(MODULES) == []


def test_no_files_import_each_other_in_a_circle() -> None:
    assert circle(MODULES) == []


@pytest.mark.parametrize("name", ROOMS)
def test_no_relative_import(name: str) -> None:
    modules = [source for module, source in MODULES.items() if room(module) == name]
    assert modules
    assert not [imported for source in modules for imported in imports_of(source) if imported.startswith(".")]


@pytest.mark.parametrize("name", ROOMS)
def test_only_clock_reads_the_time(name: str) -> None:
    readers = {module for module, source in MODULES.items() if room(module) == name and clock_reads(source)}
    assert readers == ({"netobs.base.clock"} if name == "base" else set())


@pytest.mark.parametrize(
    ("folder", "others"),
    [
        ("netobs", ("lab", "tests", "bench", "tools")),
        ("lab", ("tests", "bench", "tools")),
        ("bench", ("tests", "tools")),
        ("tools", ("tests", "bench", "lab")),
    ],
)
def test_what_is_for_tests_stays_with_them(folder: str, others: tuple[str, ...]) -> None:
    modules = sources(folder)
    assert modules
    names = [(module, imported) for module, source in modules.items() for imported in imports_of(source)]
    assert not [(module, imported) for module, imported in names if imported.partition(".")[0] in others]


EXPORT_FLOORS = (
    ("batch", "protocol", "stats"),
    ("announcer", "headers", "queue"),
    ("keeping", "sink"),
    ("in_flight", "link", "policies", "spool"),
    ("kept", "router"),
    ("unsent",),
    ("loading",),
    ("session",),
)
"""From the ground up; kept/, link/ and spool/ count as one each. The router knows sinks only, and no session."""


def test_no_import_leads_up_within_export() -> None:
    floors = {name: floor for floor, names in enumerate(EXPORT_FLOORS) for name in names}
    found = {}
    for module, source in MODULES.items():
        parts = module.split(".")
        if room(module) == "export" and len(parts) > 2:
            others = {
                each.split(".")[2]
                for each in imports_of(source) & {*MODULES}
                if room(each) == "export" and each.count(".") > 1
            }
            found[module] = [other for other in others - {parts[2]} if floors[other] >= floors[parts[2]]]
    assert {name.split(".")[2] for name in found} == {*floors}
    assert not {module: others for module, others in found.items() if others}


def test_encode_does_no_io() -> None:
    assert not [
        f"{module} -> {imported}"
        for module, source in MODULES.items()
        if room(module) == "encode"
        for imported in imports_of(source) & NOT_IN_ENCODE
    ]


def allowed(name: str) -> str:
    """What the architecture page says of the imports of room ``name``."""
    others = [other for other in ROOMS if other != name and may_import(name, other)]
    return (
        "every room above"
        if name in ("daemon", "doctor", "cli") and others == ROOMS[: ROOMS.index(name)]
        else (", ".join(others) or "nothing")
    )


def test_the_architecture_page_has_the_rooms_and_files_that_exist() -> None:
    page = (ROOT / "docs/architecture.md").read_text("utf-8")
    listed = re.findall(r"^\| `(\w+)` \| .* \| ([a-z, ]+) \|$", page, re.MULTILINE)
    assert listed == [(name, allowed(name)) for name in ROOMS]
    path = re.findall(r"^\| \d \| `([^`]+)`", page, re.MULTILINE)
    assert 0 < len(path) <= 9
    in_rooms = re.findall(rf"`((?:{'|'.join(ROOMS)})/[a-z_/]+(?:\.py|/))`", page)
    assert len(in_rooms) > 15
    assert [name for name in (*path, *(f"netobs/{each}" for each in in_rooms)) if not (ROOT / name).exists()] == []
