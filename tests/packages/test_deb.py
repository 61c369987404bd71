"""What the Debian package holds, needs and runs. The tests in containers say what it does."""

from __future__ import annotations

import io
import os
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest

from lab.namespaces import command
from lab.traffic import REPOSITORY
from netobs import __version__
from tests.packages.made import package as made_package

pytestmark = pytest.mark.packages(tools=("dpkg-buildpackage", "dh", "clang", "lintian"))

PYTHON = "usr/lib/python3/dist-packages"
FILES = {
    "etc/netobs.toml",
    "lib/systemd/system/netobs.service",
    "lib/systemd/system/netobs@.service",
    "usr/bin/netobs",
    f"{PYTHON}/netobs/bpf/netobs.bpf.o",
    f"{PYTHON}/netobs/bpf/netobs_extra.bpf.o",
    f"{PYTHON}/netobs/bpf/netobs_extra_insight.bpf.o",
    f"{PYTHON}/netobs/bpf/netobs_insight.bpf.o",
    f"{PYTHON}/netobs/bpf/packets.bpf.o",
    f"{PYTHON}/netobs/encode/information_elements.csv",
    *(
        f"{PYTHON}/netobs-{__version__}.dist-info/{name}"
        for name in ("METADATA", "RECORD", "WHEEL", "entry_points.txt")
    ),
    f"{PYTHON}/netobs-{__version__}.dist-info/top_level.txt",
    "usr/lib/sysusers.d/netobs.conf",
    "usr/lib/tmpfiles.d/netobs.conf",
    "usr/share/bash-completion/completions/netobs",
    "usr/share/doc/netobs/changelog.Debian.gz",
    "usr/share/doc/netobs/changelog.gz",
    "usr/share/doc/netobs/copyright",
    "usr/share/fish/vendor_completions.d/netobs.fish",
    "usr/share/lintian/overrides/netobs",
    "usr/share/man/man5/netobs-templates.5.gz",
    "usr/share/man/man5/netobs.toml.5.gz",
    "usr/share/man/man8/netobs.8.gz",
    "usr/share/zsh/vendor-completions/_netobs",
}
FOLDERS_WITHOUT_FILES = {"etc/netobs", "etc/netobs/templates"}


@pytest.fixture(scope="module")
def package() -> Path:
    return made_package("deb")


@pytest.fixture(scope="module")
def helper() -> Path:
    return made_package("deb", "netobs-helper")


@pytest.fixture(scope="module")
def members(package: Path) -> dict[str, tarfile.TarInfo]:
    """What it installs, by path without a slash in front."""
    data = subprocess.run(["dpkg-deb", "--fsys-tarfile", package], capture_output=True, check=True).stdout
    with tarfile.open(fileobj=io.BytesIO(data)) as archive:
        return {member.name.removeprefix("./").rstrip("/"): member for member in archive if member.name != "."}


@pytest.fixture(scope="module")
def control(package: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of its control files."""
    folder = tmp_path_factory.mktemp("deb") / "control"
    command(["dpkg-deb", "--control", str(package), str(folder)])
    return folder


def field(package: Path, name: str) -> str:
    return command(["dpkg-deb", "--field", str(package), name]).stdout.strip()


def test_every_file(members: dict[str, tarfile.TarInfo]) -> None:
    modules = {f"{PYTHON}/{path.relative_to(REPOSITORY)}" for path in (REPOSITORY / "netobs").glob("**/*.py")}
    templates = {f"usr/share/netobs/{path.relative_to(REPOSITORY)}" for path in REPOSITORY.glob("templates/*.toml")}
    examples = {
        f"usr/share/doc/netobs/examples/{path.name}"
        for path in REPOSITORY.glob("conf/*.toml")
        if path.name != "netobs.toml"
    }
    examples |= {f"usr/share/doc/netobs/prometheus/{path.name}" for path in REPOSITORY.glob("docs/prometheus/*")}
    pages = {
        # dh_compress compresses files of more than 4 KiB.
        f"usr/share/doc/netobs/{path.name}{'.gz' if path.stat().st_size > 4096 else ''}"
        for path in (REPOSITORY / "README.md", *REPOSITORY.glob("docs/*.md"))
    }
    # Newer releases of debhelper put units below usr.
    files = {name.replace("usr/lib/systemd", "lib/systemd") for name, member in members.items() if member.isfile()}
    assert files == FILES | modules | templates | examples | pages


def test_links_and_folders(members: dict[str, tarfile.TarInfo]) -> None:
    links = {name: member.linkname for name, member in members.items() if member.issym()}
    assert links == {f"{PYTHON}/netobs/templates": "../../../../share/netobs/templates"}
    folders = {name for name, member in members.items() if member.isdir() and name}
    used = {str(folder) for name, member in members.items() if not member.isdir() for folder in Path(name).parents}
    assert folders - used == FOLDERS_WITHOUT_FILES
    assert all(member.isfile() or member.issym() or member.isdir() for member in members.values())


def test_modes_and_owners(members: dict[str, tarfile.TarInfo]) -> None:
    modes = {name: member.mode for name, member in members.items() if not member.issym()}
    executable = {name for name, member in members.items() if member.isdir()} | {"usr/bin/netobs"}
    assert {name: mode for name, mode in modes.items() if mode != (0o755 if name in executable else 0o644)} == {}
    assert {(member.uname, member.gname, member.uid, member.gid) for member in members.values()} == {
        ("root", "root", 0, 0)
    }


def test_the_only_configuration_file(control: Path) -> None:
    assert (control / "conffiles").read_text(encoding="utf-8") == "/etc/netobs.toml\n"


def test_what_it_depends_on(package: Path) -> None:
    assert sorted(field(package, "Depends").split(", ")) == [
        "libbpf1 (>= 1:1.0)",
        "python3-click",
        "python3-construct",
        "python3-numpy",
        "python3-tomli | python3 (>> 3.11)",
        "python3:any (>= 3.9~)",
        "systemd | systemd-standalone-sysusers | systemd-sysusers",
    ]
    assert field(package, "Architecture") == command(["dpkg", "--print-architecture"]).stdout.strip()
    assert field(package, "Version") == f"{__version__}-1"
    assert field(package, "Suggests") == "libpcap0.8"  # recommended, it would bring the dbus daemon to hosts without
    assert field(package, "Recommends") == "netobs-helper"
    for name in ("Pre-Depends", "Conflicts"):
        assert field(package, name) == ""


def test_the_helper_is_a_package_of_its_own(helper: Path) -> None:
    lines = command(["dpkg-deb", "--contents", str(helper)]).stdout.splitlines()
    files = {line.split()[-1].removeprefix(".").replace("/usr/lib/systemd", "/lib/systemd") for line in lines}
    assert {name for name in files if not name.endswith("/")} == {
        "/etc/netobs-helper.toml",
        "/lib/systemd/system/netobs-helper.service",
        "/lib/systemd/system/netobs-helper.socket",
        "/usr/bin/netobs-helper",
        "/usr/lib/tmpfiles.d/netobs-helper.conf",
        "/usr/share/doc/netobs-helper/changelog.Debian.gz",
        "/usr/share/doc/netobs-helper/changelog.gz",
        "/usr/share/doc/netobs-helper/copyright",
        "/usr/share/lintian/overrides/netobs-helper",
        "/usr/share/man/man8/netobs-helper.8.gz",
    }
    assert field(helper, "Depends") == f"netobs (>= {__version__}-1), python3:any (>= 3.9~)"
    assert field(helper, "Architecture") == "all"


def test_maintainer_scripts(control: Path) -> None:
    names = {path.name for path in control.iterdir()} - {"conffiles", "control", "md5sums"}
    assert names == {"postinst", "prerm", "postrm"}
    for name in names:
        command(["sh", "-n", str(control / name)])
    text = {name: (control / name).read_text(encoding="utf-8") for name in names}
    # The user, the folder that belongs to it, then the units.
    order = [
        'systemd-sysusers ${DPKG_ROOT:+--root="$DPKG_ROOT"} netobs.conf',
        "--create netobs.conf",
        "deb-systemd-invoke try-restart 'netobs.service'",
        "deb-systemd-invoke try-restart 'netobs@*.service'",
    ]
    places = [text["postinst"].index(each) for each in order]
    assert places == sorted(places)
    assert "deb-systemd-invoke start" not in text["postinst"]
    assert "was-enabled 'netobs.service'" in text["postinst"]
    assert text["prerm"].index("stop netobs.service 'netobs@*.service'") < text["prerm"].index("py3clean")
    assert "deb-systemd-helper purge 'netobs.service'" in text["postrm"]


def test_lintian(package: Path, helper: Path) -> None:
    done = command(
        ["lintian", "--pedantic", "--display-info", "--fail-on", "error,warning", str(package), str(helper)],
        check=False,
        timeout=120,
    )
    assert (done.returncode, done.stdout) == (0, ""), done.stderr


@pytest.mark.parametrize(
    ("typed", "offered"),
    [("netobs te", "template"), ("netobs template ch", "check"), ("netobs --dry", "--dry-run"), ("netobs xy", "")],
)
def test_completion_in_bash(package: Path, tmp_path: Path, typed: str, offered: str) -> None:
    command(["dpkg-deb", "--extract", str(package), str(tmp_path / "root")])
    script = tmp_path / "root/usr/share/bash-completion/completions/netobs"
    program = tmp_path / "bin" / "netobs"
    program.parent.mkdir()
    # click takes the name of the program from here, and the environment variable from the name
    start = "import sys; sys.argv[0] = 'netobs'; from netobs.cli.main import main; main()"
    program.write_text(f'#!/bin/sh\nPYTHONPATH={REPOSITORY} exec {sys.executable} -c "{start}" "$@"\n')
    program.chmod(0o755)
    lines = [
        f'source "{script}"',
        f"COMP_WORDS=({typed}); COMP_CWORD=$((${{#COMP_WORDS[@]}} - 1))",
        "_netobs_completion netobs",
        'echo "${COMPREPLY[*]}"',
    ]
    done = subprocess.run(
        ["bash", "-c", "\n".join(lines)],
        env={**os.environ, "PATH": f"{program.parent}:{os.environ['PATH']}"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.stdout.strip(), done.stderr) == (offered, "")
