"""What the RPM package holds, needs and runs, as Debian's rpmbuild makes it (packaging/rpm/macros.debian)."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

from lab.namespaces import command
from lab.traffic import REPOSITORY
from netobs import __version__
from tests.packages.made import made
from tests.packages.made import package as made_package

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

pytestmark = pytest.mark.packages(tools=("rpmbuild", "rpm", "clang"))

SPEC = REPOSITORY / "packaging" / "rpm" / "netobs.spec"
RPMLINT = REPOSITORY / "packaging" / "rpm" / "rpmlint.toml"
MACROS = REPOSITORY / "packaging" / "rpm" / "macros.debian"
BUILD_TIMEOUT_S = 600
VERSION = command(["/usr/bin/python3", "-Ic", "import sys; print('%d.%d' % sys.version_info[:2])"]).stdout.strip()
PYTHON = f"/usr/lib/python{VERSION}/site-packages"

FILES = {
    "/etc/netobs.toml": "-rw-r--r-- root root",
    "/etc/netobs": "drwxr-xr-x root root",
    "/etc/netobs/templates": "drwxr-xr-x root root",
    "/usr/bin/netobs": "-rwxr-xr-x root root",
    "/usr/lib/systemd/system/netobs.service": "-rw-r--r-- root root",
    "/usr/lib/systemd/system/netobs@.service": "-rw-r--r-- root root",
    "/usr/lib/sysusers.d/netobs.conf": "-rw-r--r-- root root",
    "/usr/lib/tmpfiles.d/netobs.conf": "-rw-r--r-- root root",
    "/usr/share/bash-completion/completions/netobs": "-rw-r--r-- root root",
    "/usr/share/doc/netobs": "drwxr-xr-x root root",
    "/usr/share/doc/netobs/examples": "drwxr-xr-x root root",
    "/usr/share/doc/netobs/prometheus": "drwxr-xr-x root root",
    "/usr/share/fish/vendor_completions.d/netobs.fish": "-rw-r--r-- root root",
    "/usr/share/licenses/netobs": "drwxr-xr-x root root",
    "/usr/share/licenses/netobs/LICENSE": "-rw-r--r-- root root",
    "/usr/share/licenses/netobs/LICENSE.bpf": "-rw-r--r-- root root",
    "/usr/share/man/man5/netobs-templates.5.gz": "-rw-r--r-- root root",
    "/usr/share/man/man5/netobs.toml.5.gz": "-rw-r--r-- root root",
    "/usr/share/man/man8/netobs.8.gz": "-rw-r--r-- root root",
    "/usr/share/netobs": "drwxr-xr-x root root",
    "/usr/share/netobs/templates": "drwxr-xr-x root root",
    "/usr/share/zsh/site-functions/_netobs": "-rw-r--r-- root root",
    "/var/spool/netobs": "drwxr-x--- netobs netobs",
}
DIST_INFO = ("", "/LICENSE", "/LICENSE.bpf", "/METADATA", "/RECORD", "/WHEEL", "/entry_points.txt", "/top_level.txt")


@pytest.fixture(scope="module")
def package() -> Path:
    return made_package("rpm")


@pytest.fixture(scope="module")
def helper() -> Path:
    return made_package("rpm", "netobs-helper")


@pytest.fixture(scope="module")
def source_package() -> Path:
    (source,) = [path for path in made("rpm") if path.name.endswith(".src.rpm")]
    return source


def asked(package: Path, *question: str) -> list[str]:
    return command(["rpm", "-qp", *question, str(package)]).stdout.splitlines()


def listing(package: Path) -> dict[str, str]:
    """Mode and owners by path."""
    lines = asked(package, "--qf", "[%{FILEMODES:perms} %{FILEUSERNAME} %{FILEGROUPNAME} %{FILENAMES}\n]")
    return {line.split(" ", 3)[3]: " ".join(line.split(" ", 3)[:3]) for line in lines}


def shared_files() -> dict[str, str]:
    """Templates, examples and pages of this tree."""
    templates = [f"/usr/share/netobs/templates/{path.name}" for path in REPOSITORY.glob("templates/*.toml")]
    examples = [f"/usr/share/doc/netobs/examples/{path.name}" for path in REPOSITORY.glob("conf/*.toml")]
    examples += [f"/usr/share/doc/netobs/prometheus/{path.name}" for path in REPOSITORY.glob("docs/prometheus/*")]
    pages = [f"/usr/share/doc/netobs/{path.name}" for path in REPOSITORY.glob("docs/*.md")]
    names = {*templates, *examples, *pages, "/usr/share/doc/netobs/README.md"}
    return dict.fromkeys(names - {"/usr/share/doc/netobs/examples/netobs.toml"}, "-rw-r--r-- root root")


def package_files(where: str) -> dict[str, str]:
    """The python package in the folder ``where``."""
    netobs = REPOSITORY / "netobs"
    modules = [f"{where}/{path.relative_to(REPOSITORY)}" for path in netobs.glob("**/*.py")]
    names = (
        "bpf/netobs.bpf.o",
        "bpf/netobs_extra.bpf.o",
        "bpf/netobs_extra_insight.bpf.o",
        "bpf/netobs_insight.bpf.o",
        "bpf/packets.bpf.o",
        "encode/information_elements.csv",
    )
    others = [f"{where}/netobs/{name}" for name in names]
    folders = {str(Path(name).parent) for name in [*modules, *others]}
    return {
        **dict.fromkeys([*modules, *others], "-rw-r--r-- root root"),
        **dict.fromkeys(folders, "drwxr-xr-x root root"),
        f"{where}/netobs/templates": "lrwxrwxrwx root root",
    }


def modules(python: str = VERSION) -> dict[str, str]:
    """The python modules that pyproject.toml asks for, each with its least version."""
    dependencies = tomllib.loads((REPOSITORY / "pyproject.toml").read_text(encoding="utf-8"))["project"]["dependencies"]
    old = [int(part) for part in python.split(".")] < [3, 11]
    return dict(each.split(";")[0].split(">=") for each in dependencies if old or ";" not in each)


def test_every_file(package: Path) -> None:
    dist_info = {f"{PYTHON}/netobs-{__version__}.dist-info{name}": "-rw-r--r-- root root" for name in DIST_INFO[1:]}
    dist_info[f"{PYTHON}/netobs-{__version__}.dist-info"] = "drwxr-xr-x root root"
    assert listing(package) == {**FILES, **shared_files(), **package_files(PYTHON), **dist_info}
    (link,) = [line for line in asked(package, "--qf", "[%{FILELINKTOS}\n]") if line]
    assert link == "../../../../share/netobs/templates"


def test_the_helper_is_a_package_of_its_own(helper: Path) -> None:
    assert listing(helper) == {
        "/etc/netobs-helper.toml": "-rw-r--r-- root root",
        "/usr/bin/netobs-helper": "-rwxr-xr-x root root",
        "/usr/lib/systemd/system/netobs-helper.service": "-rw-r--r-- root root",
        "/usr/lib/systemd/system/netobs-helper.socket": "-rw-r--r-- root root",
        "/usr/lib/tmpfiles.d/netobs-helper.conf": "-rw-r--r-- root root",
        "/usr/share/licenses/netobs-helper": "drwxr-xr-x root root",
        "/usr/share/licenses/netobs-helper/LICENSE": "-rw-r--r-- root root",
        "/usr/share/man/man8/netobs-helper.8.gz": "-rw-r--r-- root root",
    }
    assert f"netobs = {__version__}" in asked(helper, "--requires")


def test_configuration_is_never_replaced(package: Path) -> None:
    flags = asked(package, "--qf", "[%{FILEFLAGS:fflags} %{FILENAMES}\n]")
    assert [line for line in flags if line.split(" ")[0].startswith("c")] == ["cn /etc/netobs.toml"]
    assert {line.split(" ")[1] for line in flags if line.startswith("l ")} == {
        "/usr/share/licenses/netobs/LICENSE",
        "/usr/share/licenses/netobs/LICENSE.bpf",
    }


def test_what_it_depends_on(package: Path) -> None:
    needs = {line for line in asked(package, "--requires") if not line.startswith("rpmlib(")}
    assert needs == {
        "/bin/sh",
        "/usr/bin/python3",
        f"config(netobs) = {__version__}-1",
        "libbpf.so.1()(64bit)",
        f"python(abi) = {VERSION}",
        *(f"python{VERSION}dist({module}) >= {version}" for module, version in modules().items()),
        "shadow-utils",
        "systemd",
    }
    assert asked(package, "--qf", "%{NAME} %{VERSION} %{RELEASE} %{ARCH} %{LICENSE} %{BUILDHOST}\n") == [
        f"netobs {__version__} 1 {os.uname().machine} Apache-2.0 AND (GPL-2.0-only OR BSD-2-Clause) localhost"
    ]


def test_scriptlets_ask_fedoras_macros_for_the_right_units(tmp_path: Path) -> None:
    """The spec with macros that print their own names, as every scriptlet of the package is made of macros."""
    names = ("systemd_post", "systemd_preun", "systemd_postun_with_restart", "sysusers_create_compat")
    shown = tmp_path / "macros"
    shown.write_text(
        MACROS.read_text(encoding="utf-8") + "".join(f"%{name}() <{name} %*>\n" for name in names), encoding="utf-8"
    )
    defines = ["--load", str(shown), "--define", f"_sourcedir {REPOSITORY}/packaging/systemd"]
    lines = command(["rpmspec", *defines, "-P", str(SPEC)]).stdout.splitlines()
    assert [line for line in lines if line.startswith("<")] == [
        f"<sysusers_create_compat {REPOSITORY}/packaging/systemd/netobs.sysusers>",
        "<systemd_post netobs.service>",
        "<systemd_preun netobs.service netobs@.service>",
        "<systemd_postun_with_restart netobs.service netobs@\\*.service>",
        "<systemd_post netobs-helper.socket>",
        "<systemd_preun netobs-helper.socket netobs-helper.service>",
        "<systemd_postun_with_restart netobs-helper.service>",
    ]


def test_rpmlint(package: Path, source_package: Path) -> None:
    files = [str(SPEC), str(source_package), str(package)]
    done = command(["rpmlint", "--config", str(RPMLINT), *files], check=False, timeout=120)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "2 packages and 1 specfiles checked; 0 errors, 0 warnings, 0 badness" in done.stdout


@pytest.mark.skipif(os.geteuid() != 0, reason="root is needed")
def test_it_installs_verifies_and_leaves_nothing(package: Path, tmp_path: Path) -> None:
    root = tmp_path / "root"
    (root / "etc").mkdir(parents=True)
    (root / "etc/passwd").write_text("root:x:0:0::/root:/bin/sh\nnetobs:x:990:990::/:/sbin/nologin\n")
    (root / "etc/group").write_text("root:x:0:\nnetobs:x:990:\n")
    rpm = ["rpm", "--root", str(root), "--nodeps", "--noscripts"]
    command([*rpm, "-i", str(package)])
    assert (root / "var/spool/netobs").stat().st_uid == 990
    assert (root / PYTHON.lstrip("/") / "netobs/templates/default.toml").is_file()
    assert command([*rpm, "-V", "netobs"]).stdout == ""
    (root / "etc/netobs.toml").write_text("# edited\n")
    assert command([*rpm, "-V", "netobs"], check=False).stdout.split()[-1] == "/etc/netobs.toml"
    command([*rpm, "-e", "netobs"])
    left = {path.relative_to(root) for path in root.rglob("*") if path.is_file() and ".rpmdb" not in path.parts}
    assert left == {Path("etc/passwd"), Path("etc/group"), Path("etc/netobs.toml.rpmsave")}


def test_as_el9_builds_it(source_package: Path, tmp_path: Path) -> None:
    """Its setuptools reads no pyproject.toml. From the source package, which so is shown to be whole."""
    defines = ["--load", str(MACROS), "--define", f"_topdir {tmp_path}", "--nodeps", "--without", "pyproject"]
    command(["rpmbuild", *defines, "--rebuild", str(source_package)], timeout=BUILD_TIMEOUT_S)
    (package,) = (tmp_path / "RPMS").glob("*/netobs-[0-9]*.rpm")
    folder = {"/usr/lib/netobs": "drwxr-xr-x root root"}
    assert listing(package) == {**FILES, **shared_files(), **package_files("/usr/lib/netobs"), **folder}
    needs = set(asked(package, "--requires"))
    assert {f"python3dist({name}) >= {least}" for name, least in modules("3.9").items()} <= needs
    assert {"/usr/bin/python3", "libbpf.so.1()(64bit)"} <= needs
