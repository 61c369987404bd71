"""The tests on each supported Python, with the oldest and the newest versions of the modules: ``make test-matrix``.

Each combination has a virtual environment in build/matrix/ that later runs bring up to date, and a log beside it. The
oldest versions are those that pyproject.toml promises. Words on the command line select: ``3.9 oldest``.

A Python that is not found is not run, which is a failure only with ``NETOBS_REQUIRE_KERNEL=1``. Pythons are looked for
in ``MATRIX_PYTHONS`` (paths, between spaces), on PATH, and among those of pyenv.
"""

from __future__ import annotations

import functools
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

ROOT = Path(__file__).parents[1]
PLACE = ROOT / "build" / "matrix"
STRICT = os.environ.get("NETOBS_REQUIRE_KERNEL") == "1"

FIRST_NUMPY = {"3.9": "1.21.1", "3.10": "1.21.2", "3.11": "1.23.2", "3.12": "1.26.0", "3.13": "2.1.0"}
"""The supported Pythons, and for each the first numpy, from 1.21.1 on, that there is a wheel for."""
SYSTEM = ("system", "/usr/bin/python3")
"""The distribution's Python with the distribution's modules: what a package runs with."""
MODULES = ("pyroute2", "construct", "click", "numpy")
LINTERS = ("mypy", "ruff")

TESTS = (
    "tests/unit",
    # The real kernel, if the machine can: where versions of numpy, and of pyroute2 in a test, would differ.
    "tests/kernel/test_links.py",
    "tests/e2e/test_dry_run.py::test_the_plan",
    "tests/e2e/test_interfaces.py::test_an_interface_that_comes_later_and_comes_back",
    "tests/e2e/test_exact.py::test_each_flow_is_right",
)
TAIL_LINES = 15


@dataclass
class Row:
    """A line of the table."""

    python: str
    which: str
    versions: dict[str, str]
    result: str
    seconds: float = 0
    failed: bool = False

    def cells(self) -> list[str]:
        versions = [self.versions.get(module, "-") for module in MODULES]
        return [self.python, self.which, *versions, self.result, f"{self.seconds:.0f}"]


class CombinationError(Exception):
    """Its environment could not be made."""


def wanted() -> dict[str, str]:
    """Name to requirement, of netobs and of its tests, as pyproject.toml has them."""
    with (ROOT / "pyproject.toml").open("rb") as file:
        project = tomllib.load(file)["project"]
    every = [*project["dependencies"], *project["optional-dependencies"]["dev"]]
    named = {re.split(r"[^\w-]", requirement)[0]: requirement for requirement in every}
    return {name: requirement for name, requirement in named.items() if name not in LINTERS}


def requirements(python: str, which: str) -> list[str]:
    """What pip is to install: ``oldest`` has the lower bounds of what netobs itself needs, the tests' own are new."""
    every = wanted()
    runtime = [name for name in every if name in (*MODULES, "tomli")]
    if which == SYSTEM[0]:
        return [requirement for name, requirement in every.items() if name not in runtime]
    if which == "oldest":
        every |= {name: every[name].replace(">=", "==") for name in runtime}
        every["numpy"] = f"numpy=={FIRST_NUMPY[python]}"
    return list(every.values())


def _version(interpreter: str | Path) -> str:
    """``3.9``; "" if it does not run, as the stand-ins that pyenv puts on PATH do for versions that are not chosen."""
    try:
        argv = [interpreter, "-c", "import sys; print('%d.%d' % sys.version_info[:2])"]
        return subprocess.run(argv, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return ""


@functools.cache
def _pyenv() -> Path:
    root = os.environ.get("PYENV_ROOT", "")
    if not root and shutil.which("pyenv"):
        root = subprocess.run(["pyenv", "root"], capture_output=True, text=True, check=False).stdout.strip()
    return Path(root or Path.home() / ".pyenv")


def interpreter(python: str) -> str:
    """The path of an interpreter of this version; "" if there is none."""
    candidates = os.environ.get("MATRIX_PYTHONS", "").split()
    candidates += filter(None, [shutil.which(f"python{python}")])
    candidates += map(str, sorted(_pyenv().glob(f"versions/{python}.*/bin/python{python}")))
    return next((path for path in candidates if _version(path) == python), "")


def _call(argv: list[str | Path], log: Path) -> int:
    with log.open("a", encoding="utf-8") as file:
        file.write(f"$ {shlex.join(map(str, argv))}\n")
        file.flush()
        return subprocess.run(argv, cwd=ROOT, stdout=file, stderr=subprocess.STDOUT, check=False).returncode


def environment(base: str, python: str, which: str, log: Path) -> Path:
    """The interpreter of the combination's virtual environment, with all that its tests import."""
    place = PLACE / f"{python}-{which}"
    inside = place / "bin" / "python"
    if _version(inside) != python:
        system = ["--system-site-packages"] if which == SYSTEM[0] else []
        if _call([base, "-m", "venv", "--clear", *system, place], log):
            raise CombinationError("no virtual environment")
    pip: list[str | Path] = [inside, "-m", "pip", "install", "--disable-pip-version-check", "--quiet", "--upgrade"]
    if _call([*pip, "--only-binary", "numpy", *requirements(python, which)], log):
        raise CombinationError("pip could not install the modules")
    return inside


def versions(inside: Path) -> dict[str, str]:
    """The versions of the modules that netobs gets there."""
    program = "import importlib.metadata as m, json, sys; print(json.dumps({n: m.version(n) for n in sys.argv[1:]}))"
    done = subprocess.run([inside, "-c", program, *MODULES], capture_output=True, text=True, check=False)
    if done.returncode:
        raise CombinationError(done.stderr.strip().rpartition("\n")[2])
    found: dict[str, str] = json.loads(done.stdout)
    return found


def run(python: str, which: str) -> Row:
    """One combination, to its end."""
    base = SYSTEM[1] if which == SYSTEM[0] else interpreter(python)
    if not base:
        return Row(python, which, {}, "not run: no such Python", failed=STRICT)
    log = PLACE / f"{python}-{which}.log"
    log.unlink(missing_ok=True)
    print(f"{python} {which}: {base}", flush=True)
    start_s = time.monotonic()
    row = Row(python, which, {}, "", failed=True)
    try:
        inside = environment(base, python, which, log)
        row.versions = versions(inside)
        row.failed = _call([inside, "-m", "pytest", "-q", "-p", "no:cacheprovider", *TESTS], log) != 0
        row.result = log.read_text(encoding="utf-8", errors="replace").rstrip().rpartition("\n")[2]
    except CombinationError as error:
        row.result = f"failed: {error}"
    row.seconds = time.monotonic() - start_s
    print(f"    {row.result}", flush=True)
    if row.failed:
        tail = log.read_text(encoding="utf-8", errors="replace").splitlines()[-TAIL_LINES:]
        print("\n".join([*tail, f"all of it: {log.relative_to(ROOT)}"]), flush=True)
    return row


def combinations() -> list[tuple[str, str]]:
    """Python and which modules."""
    pairs = [(python, which) for python in FIRST_NUMPY for which in ("oldest", "newest")]
    system = _version(SYSTEM[1])
    return [*pairs, (system, SYSTEM[0])] if system else pairs


def main(words: list[str]) -> int:
    """Runs what ``words`` select and prints the table; 1 if anything failed."""
    chosen = [pair for pair in combinations() if not words or all(word in pair for word in words)]
    if not chosen:
        print(f"matrix: nothing matches {' '.join(words)}", file=sys.stderr)
        return 2
    PLACE.mkdir(parents=True, exist_ok=True)
    rows = [run(*pair) for pair in chosen]
    table = [["python", "modules", *MODULES, "result", "seconds"], *(row.cells() for row in rows)]
    widths = [max(map(len, column)) for column in zip(*table)]
    print("\n" + "\n".join("  ".join(map(str.ljust, line, widths)).rstrip() for line in table))
    return int(any(row.failed for row in rows))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
