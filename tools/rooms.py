"""The rooms of netobs/ and who imports whom, read from the syntax trees: ``python -m tools.rooms`` prints them.

It says whether an import leads up, whether files import each other in a circle, which files are longer than 400 lines,
and how long the median function is. tests/unit/test_layering.py fails where one of the first two is found.
"""

from __future__ import annotations

import ast
import statistics
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
FLOORS = (
    ("base",),
    ("config",),
    ("flow",),
    ("kernel",),
    ("datapath", "metering", "encode", "pcap"),
    ("export", "collector", "live"),
    ("daemon",),
    ("doctor", "selftest"),
    ("cli", "helper"),
)
"""From the ground up. A room imports rooms below its floor, and nothing of its neighbours."""
NOT_IMPORTED = {
    "export": {"kernel", "datapath", "metering", "encode", "pcap"},
    "collector": {"kernel", "datapath", "metering", "pcap"},
    "live": {"metering", "encode", "pcap"},
    "encode": {"kernel"},
    "metering": {"kernel"},
    "flow": {"config"},
    "helper": {
        "flow",
        "datapath",
        "metering",
        "encode",
        "pcap",
        "export",
        "collector",
        "live",
        "daemon",
        "doctor",
        "selftest",
    },
}
"""What a room does without, although it is below: stages meet in the daemon only, and the helper runs as root."""
LONGEST_FILE_LINES = 400


def module_name(path: Path) -> str:
    """``netobs/base/loop.py`` is ``netobs.base.loop``."""
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def sources(folder: str = "netobs") -> dict[str, str]:
    """The text of each module of ``folder``, by its name."""
    return {module_name(path): path.read_text("utf-8") for path in sorted((ROOT / folder).rglob("*.py"))}


def room(module: str) -> str:
    """The folder of netobs/ that ``module`` is in; "" for netobs itself and its ``__main__``."""
    parts = module.split(".")
    return parts[1] if len(parts) > 1 and parts[1] != "__main__" else ""


def imports_of(source: str) -> set[str]:
    """All that ``source`` imports, at any depth. ``from a import b`` gives ``a`` and ``a.b``: b may be a module."""
    return _imported(ast.parse(source))


def _imported(tree: ast.AST) -> set[str]:
    names: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            module = "." * node.level + (node.module or "")
            names.add(module)
            names.update(f"{module}.{alias.name}" for alias in node.names)
    return names


def may_import(importer: str, imported: str) -> bool:
    """Whether room ``importer`` may import room ``imported``."""
    floors = {name: floor for floor, names in enumerate(FLOORS) for name in names}
    return imported == importer or (
        floors[imported] < floors[importer] and imported not in NOT_IMPORTED.get(importer, ())
    )


def refused(modules: Mapping[str, str]) -> list[str]:
    """The imports that lead up or to a neighbour, as "importer -> imported"."""
    return [
        f"{name} -> {imported}"
        for name, source in modules.items()
        if room(name)
        for imported in sorted(imports_of(source) & {*modules})
        if room(imported) and not may_import(room(name), room(imported))
    ]


def _executed(source: str) -> set[str]:
    """What ``source`` imports when it runs, other than for type checkers."""
    tree = ast.parse(source)
    for node in ast.walk(tree):
        if isinstance(node, ast.If) and isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING":
            node.body = [ast.Pass()]
    return _imported(tree)


def circle(modules: Mapping[str, str]) -> list[str]:
    """Files that import each other, one after the other; empty if there is no circle. No package's own file."""
    graph = {name: sorted(_executed(source) & {*modules} - {name}) for name, source in modules.items()}
    packages = {name for name in modules if any(other.startswith(f"{name}.") for other in modules)}
    done: set[str] = set()

    def walk(name: str, path: list[str]) -> list[str]:
        if name in path:
            return [*path[path.index(name) :], name]
        if name in done:
            return []
        for other in graph[name]:
            if other not in packages and (found := walk(other, [*path, name])):
                return found
        done.add(name)
        return []

    return next((found for name in graph if name not in packages if (found := walk(name, []))), [])


def arrows(modules: Mapping[str, str]) -> dict[tuple[str, str], int]:
    """How many imports lead from one room to another."""
    counts: dict[tuple[str, str], int] = {}
    for name, source in modules.items():
        for imported in imports_of(source) & {*modules}:
            pair = room(name), room(imported)
            if pair[0] != pair[1] and all(pair):
                counts[pair] = counts.get(pair, 0) + 1
    return counts


def function_lines(texts: Iterable[str]) -> list[int]:
    """The length of each function."""
    return [
        (node.end_lineno or node.lineno) - node.lineno + 1
        for text in texts
        for node in ast.walk(ast.parse(text))
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef))
    ]


def main() -> int:
    """Prints all of it; 1 if an import leads up or there is a circle."""
    modules = sources()
    counts = arrows(modules)
    for names in FLOORS:
        for name in names:
            below = sorted((to, number) for (of, to), number in counts.items() if of == name)
            print(f"{name:10} imports {', '.join(f'{to} ({number})' for to, number in below) or 'nothing'}")
    up, ring = refused(modules), circle(modules)
    print(f"{sum(map(len, FLOORS))} rooms, {len(FLOORS)} floors, {len(counts)} arrows")
    print(f"imports that lead up: {', '.join(up) or 'none'}")
    print(f"circle of files: {' -> '.join(ring) or 'none'}")
    long = {name: text.count("\n") for name, text in modules.items() if text.count("\n") > LONGEST_FILE_LINES}
    print(f"files over {LONGEST_FILE_LINES} lines: {', '.join(long) or 'none'}")
    print(f"lines of the median function: {statistics.median(function_lines(modules.values())):g}")
    return bool(up or ring)


if __name__ == "__main__":
    sys.exit(main())
