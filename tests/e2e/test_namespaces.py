"""Other network namespaces: as they are there at the start, as they come and go, and without the root helper."""

from __future__ import annotations

import contextlib
import itertools
import os
import re
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from lab.collectors import UdpSink
from lab.daemon import KEPT, Daemon, configuration, netobs
from lab.helper import RunningHelper
from lab.namespaces import PREFIX, Lab, command, in_namespace, namespaces
from lab.programs import wait_until
from lab.routers import TEMPLATE, Reader
from lab.traffic import Traffic
from netobs.cli.control_client import ask
from netobs.config.identity import control_socket
from netobs.kernel.helper_client import HELPER_SOCKET

pytestmark = pytest.mark.e2e(tools=("make", "tc"))

FORCED_END = 4
_numbers = itertools.count(1)


@contextlib.contextmanager
def namespace(label: str) -> Iterator[str]:
    """A network namespace that the test may delete itself."""
    name = f"{PREFIX}{os.getpid()}-{label}-{next(_numbers)}"
    command(["ip", "netns", "add", name])
    try:
        with in_namespace(name):  # silent: no neighbour discovery, no multicast reports
            Path("/proc/sys/net/ipv6/conf/default/disable_ipv6").write_text("1", encoding="ascii")
        yield name
    finally:
        if name in namespaces():
            command(["ip", "netns", "delete", name])


@pytest.fixture
def helper(tmp_path: Path) -> Iterator[RunningHelper]:
    folder = tmp_path / "helper"
    folder.mkdir()
    with RunningHelper(folder, [f"{PREFIX}{os.getpid()}-router-*"]) as running:
        yield running


def configured(tmp_path: Path, attach: str = "auto", metering: dict[str, Any] = KEPT, **capture: Any) -> str:
    """A configuration that also measures the routers' namespaces, and exports with ``TEMPLATE``."""
    template = tmp_path / "namespaces.toml"
    template.write_text(TEMPLATE, encoding="ascii")
    table = {"netns": [f"{PREFIX}{os.getpid()}-router-*/veth*"], "attach": attach, **capture}
    return configuration(table, metering, [{"template": str(template)}])


def measured(daemon: Daemon, name: str) -> bool:
    """Whether the daemon says that it measures veth0 of the namespace."""
    return f"{name}/veth0: attached" in daemon.log


def compared(daemon: Daemon, routers: list[str]) -> dict[str, tuple[int, int] | None]:
    """Of the ingress of each router's veth0: packets by the kernel, and the difference to ours; None: not known."""
    state = ask(control_socket(daemon.conf), "status")["status"]
    found = {each["netns"]: each["directions"]["ingress"] for each in state["interfaces"] if each["netns"] in routers}
    return {
        name: its["kernel"] and (its["kernel"]["packets"], its["difference"]["packets"]) for name, its in found.items()
    }


@pytest.mark.parametrize("attach", ["tcx", "tc"])
def test_equal_flows_of_equal_interfaces_are_told_apart(
    lab: Lab, tmp_path: Path, helper: RunningHelper, attach: str
) -> None:
    host, near = lab.namespace("host"), lab.namespace("near")
    lab.veth(near, host)
    with contextlib.ExitStack() as stack:
        routers = [stack.enter_context(namespace("router")) for _ in range(3)]
        senders = [lab.veth(near, router, names=(f"to{number}", "veth0")) for number, router in enumerate(routers)]
        (ifindex,) = {far.ifindex for _, far in senders}
        reader = Reader(stack.enter_context(UdpSink(host)))
        environment = {HELPER_SOCKET: helper.path}
        config = configured(tmp_path, attach)
        daemon = stack.enter_context(Daemon(lab, host, tmp_path, config, environment=environment))
        wait_until(lambda: all(measured(daemon, router) for router in routers), "the routers are measured")
        wait_until(lambda: all(compared(daemon, routers).values()), "the kernel's counters are known")
        for number, (sender, _) in enumerate(senders, start=1):
            Traffic(packets=100 * number, flows=10).send(lab, sender)
        wait_until(lambda: daemon.account().seen.packets == 600, "all packets are seen")
        assert compared(daemon, routers) == {
            router: (100 * number, 0) for number, router in enumerate(routers, start=1)
        }
        wait_until(lambda: sorted(reader.names().values()) == sorted(routers), "the routers' names are sent")
        account = daemon.finish()
        flows, names = reader.flows(), reader.names()
        for router in routers:
            left = lab.run(router, ["tc", "filter", "show", "dev", "veth0", "ingress"], check=False).stdout
            assert left == ""
    assert account.is_balanced()
    assert len(flows) == 30
    found = {router: sum(flow["packetDeltaCount"] for flow in flows if flow["VRFname"] == router) for router in routers}
    assert found == {router: 100 * number for number, router in enumerate(routers, start=1)}
    assert {(flow["ingressInterface"], flow["interfaceName"], flow["egressVRFID"]) for flow in flows} == {
        (ifindex, "veth0", 0)
    }
    assert {flow["ingressVRFID"]: flow["VRFname"] for flow in flows} == names


def test_namespaces_come_and_go_under_traffic(lab: Lab, tmp_path: Path, helper: RunningHelper) -> None:
    """The last flows of one that is deleted leave under its name, and nothing keeps it alive."""
    host, near = lab.namespace("host"), lab.namespace("near")
    lab.veth(near, host)
    config = configured(tmp_path, eviction_interval="1h")
    with (
        UdpSink(host) as collector,
        Daemon(lab, host, tmp_path, config, environment={HELPER_SOCKET: helper.path}) as daemon,
    ):
        names = []
        for packets in (10, 20):
            with namespace("other"), namespace("router") as router:
                names.append(router)
                sender, _ = lab.veth(near, router, names=("sender", "veth0"))
                wait_until(lambda: measured(daemon, router), "it is measured")
                before = daemon.account().seen.packets
                Traffic(packets=packets).send(lab, sender)
                wait_until(lambda: daemon.account().seen.packets == before + packets, "all are seen")  # noqa: B023
                command(["ip", "netns", "delete", router])
            # The kernel removes the other end of a pair when it frees the namespace, and no earlier.
            wait_until(lambda: "sender" not in _names(lab, near), "the namespace is gone with its interfaces")
            wait_until(lambda: f"network namespace {router}: gone" in daemon.log, "the daemon says so")
        reader = Reader(collector)
        wait_until(lambda: len(reader.flows()) == len(names), "the last flows are sent")
        flows = reader.flows()
        assert [(flow["VRFname"], flow["packetDeltaCount"]) for flow in flows] == list(zip(names, (10, 20)))
        assert {(flow["ingressVRFID"], flow["flowEndReason"]) for flow in flows} == {(1, FORCED_END), (2, FORCED_END)}
        account = daemon.finish()
    assert account.is_balanced()
    assert "other" not in helper.log


def _names(lab: Lab, ns: str) -> list[str]:
    return [str(link["ifname"]) for link in lab.links(ns)]


def test_a_reload_chooses_other_namespaces(lab: Lab, tmp_path: Path, helper: RunningHelper) -> None:
    host, near = lab.namespace("host"), lab.namespace("near")
    lab.veth(near, host)
    with namespace("router-a") as first, namespace("router-b") as second, UdpSink(host) as collector:
        reader = Reader(collector)
        for number, router in enumerate((first, second)):
            lab.veth(near, router, names=(f"to{number}", "veth0"))
        pattern = f"{PREFIX}{os.getpid()}-router-"
        config = configured(tmp_path, netns=[])
        with Daemon(lab, host, tmp_path, config, environment={HELPER_SOCKET: helper.path}) as daemon:
            daemon.reload(configured(tmp_path, netns=[f"{pattern}a*"]))
            wait_until(lambda: measured(daemon, first), "the first is measured")
            wait_until(lambda: [*reader.names().values()] == [first], "its name is sent, behind its Options Template")
            assert not measured(daemon, second)
            daemon.reload(configured(tmp_path, netns=[f"{pattern}b*"]))
            wait_until(lambda: measured(daemon, second), "the second is measured")
            wait_until(lambda: f"network namespace {first}: gone" in daemon.log, "the first is not any more")
            assert daemon.finish().is_balanced()


def test_attach_and_anchor_take_effect_in_a_namespace(lab: Lab, tmp_path: Path, helper: RunningHelper) -> None:
    host, near = lab.namespace("host"), lab.namespace("near")
    with namespace("router") as router, UdpSink(host):
        sender, _ = lab.veth(near, router, names=("sender", "veth0"))
        lab.veth(near, host, names=("idle", "veth0"))
        capture = {"netns": [router], "direction": "ingress"}
        environment = {HELPER_SOCKET: helper.path}
        with Daemon(lab, host, tmp_path, configuration(capture, KEPT), environment=environment) as daemon:
            daemon.wait_for(f"{router}/veth0: attached by")
            sending = Traffic(flows=50, packets=60_000).start(lab, sender, rate=20_000)
            for attach, anchor in (("tc", "first"), ("tc", "last"), ("tcx", "last"), ("tcx", "first")):
                daemon.reload(configuration({**capture, "attach": attach, "anchor": anchor}, KEPT))
                daemon.wait_for(f"{router}/veth0: ingress: now attached by {attach}, {anchor}")
            sent = sending.wait()
            account = daemon.finish()
        assert account.seen.packets == sent.packets
        assert (account.transmitted().flows, account.is_balanced()) == (50, True)
        assert "clsact" not in lab.run(router, ["tc", "qdisc", "show", "dev", "veth0"]).stdout


def test_without_the_helper_one_sentence_says_so(lab: Lab, tmp_path: Path) -> None:
    near, far = lab.pair()
    sentence = "capture.netns: no network namespace is measured, the root helper cannot be asked"
    environment = {HELPER_SOCKET: str(tmp_path / "none.sock")}
    with UdpSink(far.ns), Daemon(lab, far.ns, tmp_path, configured(tmp_path), environment=environment) as daemon:
        Traffic(packets=10).send(lab, near)
        wait_until(lambda: daemon.account().seen.packets == 10, "the host's own interface is measured")
        account = daemon.finish()
        done = netobs(
            lab,
            far.ns,
            "--conf",
            str(daemon.conf),
            "--dry-run",
            prefix=["env", f"{HELPER_SOCKET}={environment[HELPER_SOCKET]}"],
        )
    assert done.stdout.count(sentence) + done.stderr.count(sentence) == 1
    assert daemon.log.count(sentence) == 1
    assert "install the package netobs-helper" in daemon.log
    assert "does not tell network namespaces apart" not in daemon.log + done.stdout
    assert account.is_balanced()


def test_a_reload_moves_links_of_namespaces_without_loss(lab: Lab, tmp_path: Path, helper: RunningHelper) -> None:
    host, near = lab.namespace("host"), lab.namespace("near")
    lab.veth(near, host)
    with namespace("router") as router, UdpSink(host):
        sender, _ = lab.veth(near, router, names=("sender", "veth0"))
        config = configured(tmp_path, "tcx")
        with Daemon(lab, host, tmp_path, config, environment={HELPER_SOCKET: helper.path}) as daemon:
            wait_until(lambda: measured(daemon, router), "it is measured")
            sending = Traffic(packets=40_000, flows=10).start(lab, sender, rate=10_000)
            for anchor in ("last", "first"):
                daemon.reload(configured(tmp_path, "tcx", anchor=anchor))
                for way in ("ingress", "egress"):
                    daemon.wait_for(f"{router}/veth0: {way}: now attached by tcx, {anchor}")
            sent = sending.wait()
            wait_until(lambda: daemon.account().seen.packets >= sent.packets, "all packets are seen")
            account = daemon.finish()
    assert (account.seen.packets, account.is_balanced()) == (sent.packets, True)


def test_a_helper_that_hangs_holds_up_nothing(lab: Lab, tmp_path: Path, helper: RunningHelper) -> None:
    """A namespace appears meanwhile: flows of others leave, one warning names the helper, and then it is measured."""
    near, far = lab.pair()
    beside = lab.namespace("beside")
    with UdpSink(far.ns) as collector:
        reader, environment = Reader(collector), {HELPER_SOCKET: helper.path}
        config = configured(tmp_path, eviction_interval="100ms", metering={"active_timeout": "0s"})
        with Daemon(lab, far.ns, tmp_path, config, environment=environment) as daemon, namespace("router-a") as present:
            wait_until(lambda: f"network namespace {present}: measured" in daemon.log, "the first is measured")
            os.kill(helper.pid, signal.SIGSTOP)
            try:
                with namespace("router-b") as router:
                    sender, _ = lab.veth(beside, router, names=("sender", "veth0"))
                    lab.veth(beside, present, names=("other", "veth0"))
                    Traffic(packets=10).send(lab, near)
                    wait_until(lambda: len(reader.flows()) > 0, "flows leave")
                    daemon.wait_for("the root helper: it does not answer")
                    Traffic(packets=10).send(lab, near)
                    wait_until(lambda: daemon.account().transmitted().packets == 20, "flows leave again")
                    os.kill(helper.pid, signal.SIGCONT)
                    wait_until(lambda: measured(daemon, router) and measured(daemon, present), "all are measured", 40)
                    Traffic(packets=30).send(lab, sender)
                    wait_until(lambda: daemon.account().seen.packets == 50, "all packets are seen")
            finally:
                os.kill(helper.pid, signal.SIGCONT)
            assert daemon.finish().is_balanced()
    assert daemon.log.count("the root helper cannot be asked") == 1
    assert not re.search("the loop was silent for .* in (Namespace|ObservationPoints|Attaching)", daemon.log)
    assert "not measured" not in daemon.log


def test_a_template_without_namespaces_is_warned_of(lab: Lab, tmp_path: Path) -> None:
    conf = tmp_path / "netobs.toml"
    conf.write_text(configuration({"netns": ["router"]}), encoding="ascii")
    done = netobs(lab, lab.pair()[0].ns, "--conf", str(conf), "--dry-run")
    assert 'collector "127.0.0.1": template default does not tell network namespaces apart' in done.stdout
