"""The command line as an operator uses it: the built-in collector, help, version, completion."""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from lab.daemon import KEPT, NETOBS, Daemon, configuration, netobs
from lab.namespaces import Lab
from lab.programs import WAIT_S, bound_socket, wait_until
from lab.traffic import REPOSITORY, Traffic
from netobs import __version__
from netobs.encode.registry import by_name

pytestmark = pytest.mark.e2e(tools=("make",))


@contextmanager
def listening(lab: Lab, ns: str, *options: str) -> Iterator[subprocess.Popen[Any]]:
    """``netobs listen`` in ``ns``, ready."""
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True, "cwd": REPOSITORY}
    process = lab.popen(ns, [*NETOBS, "listen", *options], **pipes)
    wait_until(lambda: bound_socket(ns, 4739, "tcp") is not None, "netobs listen gets ready")
    yield process


@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
@pytest.mark.parametrize("transport", ["udp", "tcp"])
def test_flows_as_json(lab: Lab, tmp_path: Path, transport: str, host: str) -> None:
    plan = Traffic(flows=200, packets=1000, ipv6=host == "::1", size=100)
    near, far = lab.pair()
    config = configuration(metering=KEPT, collectors=[{"transport": transport, "host": host, "name": "main"}])
    with listening(lab, far.ns, "--json", "--once", "200") as process:
        with Daemon(lab, far.ns, tmp_path, config) as daemon:
            plan.send(lab, near)
            account = daemon.finish()
        output, said = process.communicate(timeout=WAIT_S)
    assert process.returncode == 0
    flows = [json.loads(line) for line in output.splitlines()]
    assert len(flows) == 200
    assert all(by_name(name) for flow in flows for name in flow)
    assert sum(flow["packetDeltaCount"] for flow in flows) == 1000
    counts = {flow["sourceTransportPort"]: flow["octetDeltaCount"] for flow in flows}
    assert counts == {int(row["src_port"]): int(row["octets"]) for row in plan.expected()}
    assert {flow[f"exporterIPv{6 if host == '::1' else 4}Address"] for flow in flows} == {host}
    assert "200 flows in " in said
    assert " 0 records lost" in said
    assert account.is_balanced("main")


def test_flows_as_a_table(lab: Lab, tmp_path: Path) -> None:
    near, far = lab.pair()
    with listening(lab, far.ns) as process:
        with Daemon(lab, far.ns, tmp_path, configuration(metering=KEPT)) as daemon:
            Traffic(flows=3, packets=30).send(lab, near)
            daemon.finish()
        process.terminate()
        output, said = process.communicate(timeout=WAIT_S)
    assert process.returncode == 0
    assert len(output.splitlines()) == 4
    assert "198.18.0.2" in output
    assert "3 flows in " in said


@pytest.mark.parametrize(
    "collector",
    [
        {"protocol": "ipfix"},
        {"protocol": "ipfix", "transport": "tcp", "template": "strict"},
        {"protocol": "netflow9", "port": 4739},
        {"protocol": "netflow5", "port": 4739},
    ],
    ids=["ipfix", "tcp-strict", "netflow9", "netflow5"],
)
def test_nothing_is_odd_in_what_netobs_sends(lab: Lab, tmp_path: Path, collector: dict[str, Any]) -> None:
    near, far = lab.pair()
    with listening(lab, far.ns, "--check") as process:
        with Daemon(lab, far.ns, tmp_path, configuration(metering=KEPT, collectors=[collector])) as daemon:
            Traffic(flows=50, packets=200).send(lab, near)
            daemon.finish()
        process.terminate()
        output, said = process.communicate(timeout=WAIT_S)
    assert (output, process.returncode) == ("nothing odd\n", 0)
    assert "50 flows in " in said


def test_the_example_for_the_lab(lab: Lab, tmp_path: Path) -> None:
    """Flows come while both are running: nobody has to end netobs to see them."""
    near, far = lab.pair()
    config = (REPOSITORY / "conf" / "lab.toml").read_text("utf-8")
    with listening(lab, far.ns, "--json", "--once", "3") as process, Daemon(lab, far.ns, tmp_path, config):
        Traffic(flows=3, packets=30).send(lab, near)
        output, _ = process.communicate(timeout=WAIT_S)
    flows = [json.loads(line) for line in output.splitlines()]
    assert [flow["interfaceName"] for flow in flows] == [far.name] * 3
    assert sum(flow["packetDeltaCount"] for flow in flows) == 30


def test_help_and_version(lab: Lab) -> None:
    ns = lab.namespace()
    assert netobs(lab, ns, "--version").stdout == f"netobs, version {__version__}\n"
    for arguments, words in (
        (["--help"], ["--conf", "--dry-run", "/etc/netobs.toml", "listen", "SIGTERM", "CAP_BPF", "_NETOBS_COMPLETE"]),
        (["-h"], ["--conf"]),
        (["listen", "--help"], ["--host", "--port", "--json", "--once"]),
    ):
        done = netobs(lab, ns, *arguments)
        assert done.returncode == 0
        assert [word for word in words if word not in done.stdout] == []
    usage = netobs(lab, ns, "--dryrun")
    assert usage.returncode == 2
    assert re.search("No such option:? '?--dryrun'?", usage.stderr)


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_of_the_shell(lab: Lab, shell: str) -> None:
    """The name of the program is part of the variable, so a program of that name is made."""
    environment = ("env", f"_NETOBS_COMPLETE={shell}_source")
    program = "import sys; sys.argv[0] = 'netobs'; from netobs.cli.main import main; main()"
    done = lab.run(lab.namespace(), [*environment, f"PYTHONPATH={REPOSITORY}", NETOBS[0], "-c", program])
    assert done.returncode == 0
    assert "_NETOBS_COMPLETE=" in done.stdout
    complete = ("env", "_NETOBS_COMPLETE=bash_complete", "COMP_WORDS=netobs li", "COMP_CWORD=1")
    done = lab.run(lab.namespace(), [*complete, f"PYTHONPATH={REPOSITORY}", NETOBS[0], "-c", program])
    assert done.stdout.split(",") == ["plain", "listen\n"]
