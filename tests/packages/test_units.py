"""The units, as systemd itself sees them: what they say, and how much they leave to the daemon."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from lab.namespaces import command
from lab.traffic import REPOSITORY

pytestmark = pytest.mark.packages(tools=("systemd-analyze", "clang"))

MOST_EXPOSURE = 20  # tenths
MOST_EXPOSURE_OF_HELPER = 25
CAPABILITIES = {"CAP_BPF", "CAP_NET_ADMIN", "CAP_PERFMON"}


@pytest.fixture(scope="module")
def units(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of the units of a `make install`: what they start is there."""
    prefix = tmp_path_factory.mktemp("units") / "usr"
    command(["make", "-C", str(REPOSITORY), "install", f"PREFIX={prefix}", f"SYSCONFDIR={prefix.parent}/etc"])
    return prefix / "lib" / "systemd" / "system"


@pytest.fixture(params=["netobs.service", "netobs@storage.service"])
def unit(request: pytest.FixtureRequest, units: Path, tmp_path: Path) -> Path:
    """A unit; that of an instance has its name."""
    name: str = request.param
    if "@" not in name:
        return units / name
    instance = tmp_path / name
    instance.write_text((units / "netobs@.service").read_text(encoding="utf-8"), encoding="utf-8")
    return instance


def settings(unit: Path) -> list[str]:
    return [line for line in unit.read_text(encoding="utf-8").splitlines() if line and not line.startswith("#")]


def test_systemd_finds_nothing_to_complain_about(unit: Path) -> None:
    done = command(["systemd-analyze", "verify", "--man=no", str(unit)], check=False)
    assert (done.returncode, done.stdout + done.stderr) == (0, "")


def test_exposure(unit: Path) -> None:
    """It ends with 1 for a unit above the threshold."""
    offline = ["systemd-analyze", "security", "--offline=true", f"--threshold={MOST_EXPOSURE}"]
    done = command([*offline, str(unit)], check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    (overall,) = [line for line in done.stdout.splitlines() if "Overall exposure level" in line]
    exposure = float(overall.split(":")[1].split()[0])
    assert 0 < exposure <= MOST_EXPOSURE / 10


def test_what_an_exposure_test_counts_as_left_open(unit: Path) -> None:
    """Each with its reason: a new one is to be thought about."""
    done = command(["systemd-analyze", "security", "--offline=true", "--json=short", str(unit)])
    open_ = {entry["json_field"] for entry in json.loads(done.stdout) if entry["exposure"] not in (None, "0.0", 0)}
    assert open_ == {
        # what netobs is there for
        *(f"CapabilityBoundingSet_{name}" for name in ("CAP_BPF", "CAP_NET_ADMIN")),
        "AmbientCapabilities",
        "SystemCallFilter_privileged",  # bpf, and capset to have less
        "SystemCallFilter_resources",  # set_mempolicy, for the flow table on hosts with several NUMA nodes
        "PrivateNetwork",
        "IPAddressDeny",  # the collectors are the operator's
        "RestrictAddressFamilies_AF_INET_INET6",
        "RestrictAddressFamilies_AF_NETLINK",
        "RestrictAddressFamilies_AF_UNIX",
        "PrivateUsers",
        "ProcSubset",
        "RootDirectoryOrRootImage",  # it uses the distribution's python
        "DeviceAllow",  # ProtectClock= adds one that can be read
    }


def test_capabilities_of_the_daemon(unit: Path) -> None:
    for key in ("AmbientCapabilities", "CapabilityBoundingSet"):
        (line,) = [line for line in settings(unit) if line.startswith(f"{key}=")]
        assert set(line.partition("=")[2].split()) == CAPABILITIES
    assert "NoNewPrivileges=yes" in settings(unit)


def test_the_helper_is_root_with_little(units: Path) -> None:
    """Two capabilities, no IP, one kind of namespace, and what systemd thinks of it."""
    service = units / "netobs-helper.service"
    done = command(["systemd-analyze", "verify", "--man=no", str(service)], check=False)
    assert (done.returncode, done.stdout + done.stderr) == (0, "")
    offline = ["systemd-analyze", "security", "--offline=true", f"--threshold={MOST_EXPOSURE_OF_HELPER}"]
    assert command([*offline, str(service)], check=False).returncode == 0
    said = settings(service)
    assert "CapabilityBoundingSet=CAP_NET_ADMIN CAP_SYS_ADMIN" in said
    assert {"RestrictAddressFamilies=AF_UNIX AF_NETLINK", "RestrictNamespaces=net", "NoNewPrivileges=yes"} <= {*said}
    socket = settings(units / "netobs-helper.socket")
    assert {"SocketMode=0660", "SocketUser=root", "SocketGroup=netobs"} <= {*socket}


def test_an_instance_differs_in_its_file_only(units: Path) -> None:
    one, template = settings(units / "netobs.service"), settings(units / "netobs@.service")
    assert len(one) == len(template)
    differences = [pair for pair in zip(one, template) if pair[0] != pair[1]]
    etc = units.parents[3] / "etc"
    command_ = f"{units.parents[2]}/bin/netobs --conf {etc}"
    assert differences == [
        ("Description=Network flow exporter", "Description=Network flow exporter (%i)"),
        (f"ExecStart={command_}/netobs.toml", f"ExecStart={command_}/netobs/%i.toml"),
        (f"ExecReload={command_}/netobs.toml reload $MAINPID", f"ExecReload={command_}/netobs/%i.toml reload $MAINPID"),
    ]
