"""The repository as a whole: what make builds and installs, what the wheel carries, what no file may contain."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

ROOT = Path(__file__).resolve().parents[2]
OBJECTS = tuple(
    f"netobs/bpf/{name}.bpf.o"
    for name in ("netobs", "netobs_extra", "netobs_extra_insight", "netobs_insight", "packets")
)
NOT_OURS = {".git", ".venv", "build", "dist", "__pycache__"}


def run(*argv: str | Path, cwd: Path = ROOT) -> str:
    # A make that knows of being called by another (these tests are run by one) says more than it does by hand.
    env = {name: value for name, value in os.environ.items() if name not in {"MAKEFLAGS", "MFLAGS", "MAKELEVEL"}}
    result = subprocess.run(argv, cwd=cwd, env=env, capture_output=True, text=True, check=False)
    assert result.returncode == 0, f"{argv}:\n{result.stdout}{result.stderr}"
    return result.stdout


def need(present: object, reason: str) -> None:
    """Skip, or fail in CI, unless ``present``."""
    if not present:
        (pytest.fail if os.environ.get("NETOBS_REQUIRE_KERNEL") == "1" else pytest.skip)(reason)


def source_files() -> list[Path]:
    """The files of the repository: what git knows or would add; without git (a release archive) the whole tree."""
    if shutil.which("git") and (ROOT / ".git").exists():
        # safe.directory: the tree may belong to another user than root, who runs the tests.
        git = ("git", "-c", f"safe.directory={ROOT}", "ls-files", "-z", "--cached", "--others", "--exclude-standard")
        files = [ROOT / name for name in run(*git).split("\0") if name]
    else:
        files = [path for path in ROOT.rglob("*") if not NOT_OURS & set(path.relative_to(ROOT).parts)]
    return [path for path in files if path.is_file() or path.is_symlink()]


@pytest.fixture(scope="session")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the sources with the BPF objects made in it: tests build from it, and install elsewhere."""
    tools = (os.environ.get("CLANG", "clang"), os.environ.get("LLVM_STRIP", "llvm-strip"))
    need(all(map(shutil.which, tools)), "clang or llvm-strip is not installed: run tools/install-tools.sh build")
    place = tmp_path_factory.mktemp("project") / "tree"
    for path in source_files():
        copy = place / path.relative_to(ROOT)
        copy.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(path, copy, follow_symlinks=False)
    run("make", "bpf", cwd=place)
    return place


def documentation(tree: Path) -> set[str]:
    """Where manual pages and examples belong, below the share directory."""
    pages = {f"man/man{path.suffix[1:]}/{path.name}" for path in (tree / "man").iterdir()}
    examples = {path.name for path in (tree / "conf").iterdir()} - {"netobs.toml"}
    pages |= {f"doc/netobs/prometheus/{path.name}" for path in (tree / "docs/prometheus").iterdir()}
    return pages | {f"doc/netobs/examples/{name}" for name in examples}


def test_no_path_of_one_machine() -> None:
    pattern = re.compile(rb"/(?:root|work|home/[a-z]\w*)/")
    assert not [path for path in source_files() if path.is_file() and pattern.search(path.read_bytes())]


def test_bpf_sources_carry_their_licence() -> None:
    sources = sorted((ROOT / "bpf").glob("*.[ch]"))
    assert sources
    licence = "SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause"
    assert [path for path in sources if licence not in path.read_text().splitlines()[0]] == []


def test_help_lists_every_target() -> None:
    makefile = (ROOT / "Makefile").read_text()
    targets = re.findall(r"^\.PHONY: (.*)$", makefile, re.MULTILINE)
    listed = re.findall(r"^make ([a-z-]+) +\S", run("make", "help"), re.MULTILINE)
    assert sorted(listed) == sorted(" ".join(targets).split())


def test_the_readme_is_short_and_its_links_lead_somewhere() -> None:
    assert len((ROOT / "README.md").read_text().splitlines()) <= 150
    pages = [*ROOT.glob("*.md"), *ROOT.glob("docs/*.md")]
    links = [(page, link) for page in pages for link in re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", page.read_text())]
    assert len(links) > 20
    assert [(page.name, link) for page, link in links if not (page.parent / link).exists()] == []
    readme = [link for page, link in links if page.name == "README.md"]
    assert [page.name for page in ROOT.glob("docs/*.md") if f"docs/{page.name}" not in readme] == []


def test_readme_names_the_two_commands() -> None:
    beginning = (ROOT / "README.md").read_text()[:2000]
    assert "make run" in beginning
    assert "make test" in beginning


def test_packages_are_all_named() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    in_tree = {
        path.parent.relative_to(ROOT).as_posix().replace("/", ".") for path in ROOT.glob("netobs/**/__init__.py")
    }
    assert set(project["tool"]["setuptools"]["packages"]) == in_tree


def test_the_packages_are_those_of_this_version() -> None:
    """One place has the version. The changelogs, whose entries stay, have one of it; no other file repeats it."""
    version = re.search(r'__version__ = "(.+)"', (ROOT / "netobs/__init__.py").read_text())
    assert version is not None
    assert (ROOT / "packaging/deb/changelog").read_text().startswith(f"netobs ({version[1]}-")
    spec, _, changes = (ROOT / "packaging/rpm/netobs.spec").read_text().partition("%changelog\n")
    assert re.match(rf"\* .* - {re.escape(version[1])}-", changes)
    assert re.search("^Version: +0$", spec, re.MULTILINE)
    assert 'dynamic = ["version"]' in (ROOT / "pyproject.toml").read_text()


def test_the_packages_are_for_what_is_tested() -> None:
    control, spec = ((ROOT / "packaging" / path).read_text() for path in ("deb/control", "rpm/netobs.spec"))
    assert re.findall(r"^Architecture: (.*)$", control, re.MULTILINE) == ["amd64", "all"]  # the helper is a script
    assert re.findall(r"^ExclusiveArch: *(.*)$", spec, re.MULTILINE) == ["x86_64"]


def test_a_second_build_does_nothing() -> None:
    need((ROOT / ".venv/.installed").exists(), "make build has not been run")
    run("make", "build")
    before = [(ROOT / name).stat().st_mtime_ns for name in (*OBJECTS, ".venv/.installed")]
    output = run("make", "build")
    assert "Nothing to be done" in output or output == ""
    assert [(ROOT / name).stat().st_mtime_ns for name in (*OBJECTS, ".venv/.installed")] == before


def test_the_object_is_the_same_wherever_it_is_built(tree: Path, tmp_path: Path) -> None:
    other = tmp_path / "another" / "and" / "deeper"
    shutil.copytree(tree / "bpf", other / "bpf")
    run("make", "-C", other / "bpf")
    objects = [[(place / each).read_bytes() for each in OBJECTS] for place in (tree, other)]
    assert objects[0] == objects[1]
    for each in objects[0]:
        assert each.startswith(b"\x7fELF")
        assert os.fsencode(tree) not in each
        assert b".BTF.ext" in each
        assert b".debug_info" not in each


def test_the_wheel_carries_what_runs(tree: Path, tmp_path: Path) -> None:
    build = f"from setuptools import build_meta as b; print(b.build_wheel({str(tmp_path)!r}))"
    run(sys.executable, "-W", "ignore", "-c", build, cwd=tree)
    (wheel,) = tmp_path.glob("netobs-*.whl")
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
        metadata = next(archive.read(name).decode() for name in names if name.endswith("/METADATA"))
        scripts = next(archive.read(name).decode() for name in names if name.endswith("/entry_points.txt"))
    data = [*OBJECTS, "netobs/encode/information_elements.csv", "netobs/templates/default.toml"]
    modules = [path.relative_to(tree).as_posix() for path in tree.glob("netobs/**/*.py")]
    assert {*data, *modules} <= names
    shared = {name.partition(".data/data/share/")[2] for name in names} - {""}
    assert shared == documentation(tree) | {"doc/netobs/examples/netobs.toml"}
    assert not [name for name in names if name.startswith(("tests", "bpf", "bench", "tools"))]
    assert "netobs = netobs.__main__:main" in scripts
    assert metadata.count("Requires-Dist") == metadata.count("extra ==") + 4


def test_make_install_honours_its_variables(tree: Path, tmp_path: Path) -> None:
    root = tmp_path / "root"
    variables = [f"DESTDIR={root}", "PREFIX=/usr", "SYSCONFDIR=/etc/site", "LIBDIR=/usr/lib64"]
    run("make", "install", *variables, cwd=tree)
    installed = {path.relative_to(root).as_posix() for path in root.rglob("*") if path.is_file()}
    library = {name for name in installed if name.startswith("usr/lib64/netobs/netobs/")}
    assert {f"usr/lib64/netobs/{name}" for name in OBJECTS} <= library
    assert "usr/share/netobs/templates/default.toml" in installed
    assert (root / "usr/lib64/netobs/netobs/templates").resolve() == root / "usr/share/netobs/templates"
    assert len([name for name in library if name.endswith(".py")]) == len(list(tree.glob("netobs/**/*.py")))
    assert {"usr/bin/netobs", "etc/site/netobs.toml"} <= installed
    assert {f"usr/share/{name}" for name in documentation(tree)} <= installed
    configuration = root / "etc/site/netobs.toml"
    configuration.write_text("# edited\n")
    assert "left as it is" in run("make", "install", *variables, cwd=tree)
    assert configuration.read_text() == "# edited\n"


def test_the_installed_command_runs(tree: Path, tmp_path: Path) -> None:
    prefix = tmp_path / "prefix"
    run("make", "install", f"PREFIX={prefix}", f"SYSCONFDIR={prefix}/etc", f"INSTALL_PYTHON={sys.executable}", cwd=tree)
    version = re.search(r'__version__ = "(.+)"', (ROOT / "netobs/__init__.py").read_text())
    assert version is not None
    assert version[1] in run(prefix / "bin/netobs", "--version", cwd=tmp_path)
