"""The bundle for a support ticket: what is in it, what must not be, and how it comes into its place."""

from __future__ import annotations

import json
import os
import stat
import tarfile
from pathlib import Path

import pytest

from netobs.base.errors import NetobsError
from netobs.doctor import bundle
from netobs.doctor.finding import Finding
from netobs.doctor.mask import HIDDEN, Masker, hosts_in
from netobs.doctor.report import Report

CONFIGURATION = """
# comment with hunter2 and 203.0.113.9
[[collector]]
name = "main"
host = "flows"
source = "2001:db8::7"
key = "KEY"
community = "hunter2"
[[collector]]
host = "192.0.2.10"
[packet_capture]
filter = ["host db-7 and tcp port 443", "net 198.51.100.0/24"]
"""


def members(path: Path) -> dict[str, str]:
    with tarfile.open(path) as archive:
        assert all(member.mode == 0o600 and member.name.startswith("netobs-doctor/") for member in archive)
        files = {member.name.partition("/")[2]: archive.extractfile(member) for member in archive.getmembers()}
        return {name: file.read().decode() for name, file in files.items() if file is not None}


def report(tmp_path: Path) -> Report:
    key = tmp_path / "key.pem"
    key.write_text("-----BEGIN PRIVATE KEY----- hunter2")
    conf = tmp_path / "netobs.toml"
    conf.write_text(CONFIGURATION.replace("KEY", str(key)))
    what = "the collector at 192.0.2.10:4739 is down, and FLOWS does not answer [2001:db8::7]:4739"
    return Report([Finding("collector-down", "problem", what, ('collector "main"',))], [], str(conf))


STATE = {"collectors": [{"name": "main", "address": "192.0.2.10:4739", "host": "flows"}], "daemon": {"pid": 7}}


def test_addresses_and_secrets_are_in_no_file_of_it(tmp_path: Path) -> None:
    path = tmp_path / "bundle.tar.gz"
    before = os.umask(0)
    try:
        size_bytes = bundle.write(path, report(tmp_path), STATE, with_addresses=False)
    finally:
        os.umask(before)
    assert path.stat().st_size == size_bytes
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    found = members(path)
    listed = [line.split()[0] for line in found["README.txt"].splitlines() if "  " in line]
    assert listed == [name for name in found if name != "README.txt"]
    everything = "\n".join(found.values())
    for secret in ("hunter2", "192.0.2.10", "2001:db8::7", "198.51.100", "203.0.113", "db-7", '"flows"', "FLOWS"):
        assert secret not in everything
    settings = json.loads(found["configuration.json"])
    assert settings["collector"][0]["community"] == HIDDEN
    address = settings["collector"][1]["host"]
    assert address == json.loads(found["status.json"])["collectors"][0]["address"].partition(":")[0]
    assert address in json.loads(found["doctor.json"])["findings"][0]["what"]
    assert json.loads(found["versions.json"])["kernel"].startswith(os.uname().release)


def test_with_addresses_they_are_there_and_keys_are_not(tmp_path: Path) -> None:
    path = tmp_path / "bundle.tar.gz"
    bundle.write(path, report(tmp_path), None, with_addresses=True)
    found = members(path)
    assert "status.json" not in found
    assert "192.0.2.10:4739" in found["doctor.json"]
    assert "PRIVATE KEY" not in "\n".join(found.values())
    assert "comment" not in found["configuration.json"]


def test_nothing_is_overwritten_and_nothing_is_left(tmp_path: Path) -> None:
    path = tmp_path / "bundle.tar.gz"
    path.write_text("mine")
    (tmp_path / "link").symlink_to(tmp_path / "elsewhere")
    for name in ("bundle.tar.gz", "link"):
        with pytest.raises(NetobsError, match="there is a file of this name; name another"):
            bundle.write(tmp_path / name, report(tmp_path), None, with_addresses=False)
    with pytest.raises(NetobsError, match="cannot be written: No such file or directory"):
        bundle.write(tmp_path / "none" / "bundle", report(tmp_path), None, with_addresses=False)
    assert path.read_text() == "mine"
    assert {each.name for each in tmp_path.iterdir()} == {"bundle.tar.gz", "link", "key.pem", "netobs.toml"}


def test_a_huge_state_is_left_out_in_part(tmp_path: Path) -> None:
    path = tmp_path / "bundle.tar.gz"
    bundle.write(path, report(tmp_path), {**STATE, "interfaces": ["x" * 1000] * 5000}, with_addresses=True)
    state = json.loads(members(path)["status.json"])
    assert state["daemon"] == {"pid": 7}
    assert state["interfaces"].startswith("left out")


@pytest.mark.parametrize(
    ("text", "masked"),
    [
        ("192.0.2.1:4739 and 192.0.2.1, 192.0.2.2/24", "ipv4-1:4739 and ipv4-1, ipv4-2/24"),
        ("[2001:db8::1]:53 from fe80::1%eth0", "[ipv6-1]:53 from ipv6-2%eth0"),
        ("2001:DB8:0::1 is 2001:db8::1.", "ipv6-1 is ipv6-1."),
        ("::ffff:192.0.2.1 is 192.0.2.1", "ipv4-1 is ipv4-1"),
        ("127.0.0.1, ::1, 0.0.0.0 and [::]:4739", "127.0.0.1, ::1, 0.0.0.0 and [::]:4739"),
        ("02:FC:00:00:00:01 enx02fc00000001 ff:ff:ff:ff:ff:ff", "mac-1 enxmac-1 ff:ff:ff:ff:ff:ff"),
        ("at 03:15:56 tag 0123456789abcdef, tap02fc0000-01", "at 03:15:56 tag 0123456789abcdef, tap02fc0000-01"),
        ("kernel 6.1.0-50-amd64, libbpf 1.1, eth0.100", "kernel 6.1.0-50-amd64, libbpf 1.1, eth0.100"),
        ("see https://a.example.com/x or root@b.example.com", "see https://host-1/x or root@host-2"),
        ("Flow-DB asks flow-db. but not flow-dbx", "host-1 asks host-1 but not flow-dbx"),
        ("/etc/netobs.toml: capture.anchor, netobs.service, net.core.rmem_max netobs.daemon.daemon",
         "/etc/netobs.toml: capture.anchor, netobs.service, net.core.rmem_max netobs.daemon.daemon"),
        ("netobs.example.com and capture.example.com", "host-1 and host-2"),
        ("1.2.3.4.5 300.1.1.1", "1.2.3.4.5 300.1.1.1"),
    ],
)  # fmt: skip
def test_each_address_and_name_has_its_pseudonym(text: str, masked: str) -> None:
    assert Masker(["flow-db", "netobs", ""]).text(text) == masked


def test_trees_are_masked_in_keys_and_values() -> None:
    masker = Masker()
    tree = {
        "a.example.org": ["192.0.2.1", 7, None, {"password": "x", "switch_id": "0c42a1"}],
        "path": ("b.example.org",),
    }
    assert masker.tree(tree) == {
        "host-1": ["ipv4-1", 7, None, {"password": HIDDEN, "switch_id": "switch-1"}],
        "path": ["host-2"],
    }


def test_hosts_of_a_configuration() -> None:
    tables = {"collector": [{"host": "a"}, {"server_name": "b"}], "packet_capture": {"filter": "not host c-1 or net d"}}
    assert hosts_in(tables) == {"a", "b", "c-1", "d"}
