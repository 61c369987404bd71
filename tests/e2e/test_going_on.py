"""Daemons that follow each other on the same programs and maps: a socket of the test plays systemd's store."""

from __future__ import annotations

import shutil
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from lab.collectors import UdpSink
from lab.daemon import KEPT, Daemon, alive, bpf_objects, configuration, read_account, traffic_control
from lab.helper import RunningHelper
from lab.keeping import ServiceStore
from lab.namespaces import Lab, Link
from lab.privileges import give
from lab.programs import wait_until
from lab.recording import Received, expected
from lab.traffic import Sent, Traffic
from netobs.kernel.helper_client import HELPER_SOCKET
from netobs.kernel.pins import MEMORY
from tests.kernel.foreign import ours, tcx_programs

pytestmark = pytest.mark.e2e(tools=("make",))

AT_ONCE = {"active_timeout": "0s"}
RARELY = {"eviction_interval": "1h", "max_flows": 4096}
TRAFFIC = Traffic(flows=50, packets=20_000)


class Kept(Daemon):
    """A daemon that gets what ``store`` has, and leaves there what it keeps."""

    def __init__(self, store: ServiceStore, lab: Lab, ns: str, directory: Path, config: str, label: str) -> None:
        store.read()
        self._store = store
        super().__init__(lab, ns, directory, config, label, store.environment, prefix=store.prefix())

    def _run(self, argv: list[str], **options: Any) -> Any:
        return super()._run(argv, pass_fds=[*self._store.fds.values()], **options)

    def kill(self, link: Link) -> None:
        """As a crash, once systemd has all."""
        last = "manifest-" if '"tc"' in self.conf.read_text(encoding="utf-8") else f"l-0-{link.ifindex}-i"
        wait_until(lambda: any(name.startswith(last) for name in [*self._store.fds]), "all is kept")
        self.process.kill()
        self.process.wait()

    def restart(self) -> None:
        """The end of a process before the next one, as the unit has it."""
        self.process.send_signal(signal.SIGURG)
        assert self.stop() == 0
        self._store.read()

    def seen(self) -> int:
        return self.account().seen.packets

    def finish_with_all(self, sent: Sent) -> None:
        """The last daemon: all that was ``sent`` is seen and exported, and its end leaves nothing in the store."""
        wait_until(lambda: self.seen() >= sent.packets, "the last packets are seen")
        account = self.finish()
        assert account.seen.packets == sent.packets == account.transmitted().packets
        self._store.read()
        assert self._store.fds == {}


@pytest.fixture
def store(tmp_path: Path) -> Iterator[ServiceStore]:
    with ServiceStore(tmp_path / "notify") as made, made.serving():
        yield made


@pytest.mark.parametrize("method", ["tcx", "tc"])
def test_no_packet_is_missed_over_restarts_and_kills(
    lab: Lab, tmp_path: Path, store: ServiceStore, method: str
) -> None:
    near, far = lab.pair()
    config = configuration({**RARELY, "attach": method, "direction": "ingress"}, AT_ONCE)
    with UdpSink(far.ns):
        with Kept(store, lab, far.ns, tmp_path, config, label="first") as daemon:
            objects = bpf_objects(daemon.process)
            daemon.kill(far)
        sending = TRAFFIC.start(lab, near, rate=20_000)
        for number in range(1):
            with Kept(store, lab, far.ns, tmp_path, config, label=f"killed{number}") as daemon:
                assert "the programs are new" not in daemon.log
                assert {each for each in bpf_objects(daemon.process) if each[0] == "map"} <= objects
                daemon.kill(far)
        with Kept(store, lab, far.ns, tmp_path, config, label="restarted") as daemon:
            daemon.restart()
        assert alive(objects) != frozenset()
        sent = sending.wait()
        with Kept(store, lab, far.ns, tmp_path, config, label="last") as daemon:
            daemon.finish_with_all(sent)
        wait_until(lambda: alive(objects) == frozenset(), "nothing is left in the kernel")
        assert "netobs" not in traffic_control(lab, far.ns)


@pytest.mark.parametrize("method", ["tcx", "tc"])
def test_no_packet_of_a_namespace_is_missed_over_a_restart_and_a_kill(
    lab: Lab, tmp_path: Path, store: ServiceStore, monkeypatch: pytest.MonkeyPatch, method: str
) -> None:
    """Its number, which flows in the kernel have, stays the same, and so does its link, or its one filter."""
    near, host, router = (lab.namespace(label) for label in ("near", "host", "router"))
    _, far = lab.veth(near, host)
    sender, veth = lab.veth(near, router, names=("sender", "veth0"))
    config = configuration({**RARELY, "direction": "ingress", "attach": method, "netns": [router]}, AT_ONCE)
    (tmp_path / "helper").mkdir()
    with RunningHelper(tmp_path / "helper", [router]) as helper, UdpSink(host):
        monkeypatch.setenv(HELPER_SOCKET, helper.path)
        with Kept(store, lab, host, tmp_path, config, label="first") as daemon:
            wait_until(lambda: f"{router}/veth0: attached" in daemon.log, "it is attached to")
            sending = TRAFFIC.start(lab, sender, rate=20_000)
            daemon.restart()
        for number in range(2):
            with Kept(store, lab, host, tmp_path, config, label=f"next{number}") as daemon:
                wait_until(lambda: f"{router}/veth0: attached" in daemon.log, "it is attached to")
                assert len(tcx_programs(veth, "ingress")) + ours(lab, veth) == 1
                daemon.kill(far)
        sent = sending.wait()
        assert helper.log.count(" link ") == (1 if method == "tcx" else 3)
        with Kept(store, lab, host, tmp_path, config, label="last") as daemon:
            wait_until(lambda: f"{router}/veth0: attached" in daemon.log, "it is attached to")
            daemon.finish_with_all(sent)
        assert "netobs" not in traffic_control(lab, router)
        assert "clsact" not in traffic_control(lab, router)


@pytest.mark.parametrize(("method", "netns"), [("tcx", ["another"]), ("tc", [])])
def test_a_namespace_that_is_not_wanted_after_a_restart(
    lab: Lab, tmp_path: Path, store: ServiceStore, monkeypatch: pytest.MonkeyPatch, method: str, netns: list[str]
) -> None:
    """Its programs go, and it is not counted any more; its flows so far are exported."""
    near, host, router = (lab.namespace(label) for label in ("near", "host", "router"))
    lab.veth(near, host)
    sender, veth = lab.veth(near, router, names=("sender", "veth0"))
    wanted = {**RARELY, "direction": "ingress", "attach": method}
    (tmp_path / "helper").mkdir()
    with RunningHelper(tmp_path / "helper", [router]) as helper, UdpSink(host):
        monkeypatch.setenv(HELPER_SOCKET, helper.path)
        config = configuration({**wanted, "netns": [router]}, KEPT)
        with Kept(store, lab, host, tmp_path, config, label="first") as daemon:
            wait_until(lambda: f"{router}/veth0: attached" in daemon.log, "it is attached to")
            sent = TRAFFIC.send(lab, sender)
            daemon.restart()
        config = configuration({**wanted, "netns": netns}, KEPT)
        with Kept(store, lab, host, tmp_path, config, label="second") as daemon:
            wait_until(lambda: len(tcx_programs(veth, "ingress")) + ours(lab, veth) == 0, "its programs are gone")
            wait_until(lambda: daemon.account().transmitted().packets == sent.packets, "its flows are exported")
            assert "clsact" not in traffic_control(lab, router)
            TRAFFIC.send(lab, sender)
            assert daemon.finish().seen.packets == sent.packets


def test_another_method_in_a_namespace_after_a_restart(
    lab: Lab, tmp_path: Path, store: ServiceStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    near, host, router = (lab.namespace(label) for label in ("near", "host", "router"))
    lab.veth(near, host)
    sender, veth = lab.veth(near, router, names=("sender", "veth0"))
    (tmp_path / "helper").mkdir()
    with RunningHelper(tmp_path / "helper", [router]) as helper, UdpSink(host):
        monkeypatch.setenv(HELPER_SOCKET, helper.path)
        for number, method in enumerate(("tc", "tcx", "tc")):
            capture = {**RARELY, "direction": "ingress", "attach": method, "netns": [router]}
            with Kept(store, lab, host, tmp_path, configuration(capture), label=f"n{number}") as daemon:
                wait_until(lambda: f"{router}/veth0: attached by {method}" in daemon.log, "it is attached to")  # noqa: B023
                there = (1, 0) if method == "tcx" else (0, 1)
                wait_until(lambda: (len(tcx_programs(veth, "ingress")), ours(lab, veth)) == there, "only there")  # noqa: B023
                TRAFFIC.send(lab, sender)
                if number < 2:
                    daemon.restart()
                else:
                    assert daemon.finish().seen.packets == 3 * TRAFFIC.packets
        assert "clsact" not in traffic_control(lab, router)


def test_a_collector_sees_one_session_over_restarts(lab: Lab, tmp_path: Path, store: ServiceStore) -> None:
    near, far = lab.pair()
    capture = {"eviction_interval": "100ms", "max_flows": 4096, "direction": "ingress"}
    config = configuration(capture, AT_ONCE, [{"observation_domain": 7}])  # else it follows from the file's path
    received = Received()
    with UdpSink(far.ns) as sink:
        with Kept(store, lab, far.ns, tmp_path, config, label="n0") as daemon:
            daemon.restart()
        sending = Traffic(flows=50, packets=100_000).start(lab, near, rate=20_000)
        for number in range(1, 3):
            with Kept(store, lab, far.ns, tmp_path, config, label=f"n{number}") as daemon:
                daemon.restart()
        sent = sending.wait()
        with Kept(store, lab, far.ns, tmp_path, config, label="last") as daemon:
            wait_until(lambda: daemon.seen() >= sent.packets, "the last packets are seen")
            assert daemon.finish().seen.packets == sent.packets
        datagrams = sink.drain_from()
    assert len({address for _, address in datagrams}) == 1
    received.add_session(message for message, _ in datagrams)
    assert (received.gaps, received.doubles) == (0, 0)
    assert received.flows == expected(Traffic(flows=50, packets=100_000).expected(ifindex=far.ifindex))


def test_another_table_after_a_restart(lab: Lab, tmp_path: Path, store: ServiceStore) -> None:
    near, far = lab.pair()
    with UdpSink(far.ns):
        for number, table in enumerate(("percpu_array", "percpu_hash")):
            capture = {**RARELY, "flow_table": table, "direction": "ingress"}
            with Kept(store, lab, far.ns, tmp_path, configuration(capture, AT_ONCE), label=f"n{number}") as daemon:
                TRAFFIC.send(lab, near)
                if number < 1:
                    daemon.restart()
                else:
                    wait_until(lambda: daemon.seen() >= 2 * TRAFFIC.packets, "the last packets are seen")
                    daemon.finish()
            account = read_account(daemon.log)
        assert account.seen.packets == 2 * TRAFFIC.packets == account.transmitted().packets


def test_another_place_on_the_hook_after_a_restart_and_a_kill(lab: Lab, tmp_path: Path, store: ServiceStore) -> None:
    """The file has changed meanwhile: links become filters, or go behind the programs of others."""
    near, far = lab.pair()
    capture = {**RARELY, "direction": "ingress"}
    with UdpSink(far.ns):
        with Kept(store, lab, far.ns, tmp_path, configuration(capture, AT_ONCE), label="first") as daemon:
            daemon.restart()
        sending = Traffic(flows=50, packets=60_000).start(lab, near, rate=20_000)
        ways = [("tc", "first"), ("tcx", "last"), ("tcx", "first")]
        for number, (attach, anchor) in enumerate(ways):
            config = configuration({**capture, "attach": attach, "anchor": anchor}, AT_ONCE)
            with Kept(store, lab, far.ns, tmp_path, config, label=f"n{number}") as daemon:
                assert f"veth0: ingress: now attached by {attach}, {anchor}" in daemon.log
                store.read()
                name = f"l-0-{far.ifindex}-{'i' if anchor == 'first' else 'I'}"
                assert {each for each in store.fds if each.startswith("l-0-")} == ({name} if attach == "tcx" else set())
                if number == 1:
                    daemon.process.kill()
                    daemon.process.wait()
                else:
                    daemon.restart()
        sent = sending.wait()
        with Kept(store, lab, far.ns, tmp_path, config, label="last") as daemon:
            daemon.finish_with_all(sent)
        assert "clsact" not in traffic_control(lab, far.ns)


def test_an_index_that_another_interface_gets_between_two_daemons(
    lab: Lab, tmp_path: Path, store: ServiceStore
) -> None:
    _, far = lab.pair()
    _, tap = lab.veth(far.ns, far.ns, names=("sender", "tap1"))
    config = configuration({**RARELY, "interfaces": ["tap*"]}, AT_ONCE)
    with UdpSink(far.ns):
        with Kept(store, lab, far.ns, tmp_path, config, label="first") as daemon:
            daemon.kill(tap)
        sent = TRAFFIC.send(lab, lab.link(far.ns, "sender"))
        lab.run(far.ns, ["ip", "link", "delete", "tap1"])
        again = ["ip", "link", "add", "tap2", "index", str(tap.ifindex), "type", "veth", "peer", "name", "other"]
        lab.run(far.ns, again)
        with Kept(store, lab, far.ns, tmp_path, config, label="second") as daemon:
            assert "tap2: attached by" in daemon.log
            wait_until(lambda: daemon.account().transmitted().packets == sent.packets, "the flows of tap1 are out")
            assert daemon.finish().is_balanced()


def test_what_is_left_of_a_stop(lab: Lab, tmp_path: Path, store: ServiceStore) -> None:
    _, far = lab.pair()
    with UdpSink(far.ns), Kept(store, lab, far.ns, tmp_path, configuration(RARELY), label="one") as daemon:
        objects = bpf_objects(daemon.process)
        links = {f"l-0-{far.ifindex}-{direction}" for direction in "ie"}
        wait_until(lambda: {name for name in [*store.fds] if name.startswith("l-0-")} == links, "the links are kept")
        daemon.finish()
        store.read()
        assert store.fds == {}
    wait_until(lambda: alive(objects) == frozenset(), "nothing is left in the kernel")


@pytest.mark.parametrize("as_user", [False, True], ids=["root", "user"])
def test_pins_in_the_place_of_systemd(lab: Lab, tmp_path: Path, bpf_fs: Path, as_user: bool) -> None:
    """Root makes the folders itself; another user has to be given them."""
    near, far = lab.pair()
    pins = bpf_fs / "netobs"
    config = configuration({**RARELY, "direction": "ingress", "pin": str(pins)}, AT_ONCE)
    memory = MEMORY / str(pins).strip("/").replace("/", "-")
    if as_user:
        for folder in (pins, memory):
            folder.mkdir(parents=True)
            give(folder)
    try:
        with UdpSink(far.ns):
            with Daemon(lab, far.ns, tmp_path, config, label="first", as_user=as_user) as daemon:
                daemon.process.kill()
                daemon.process.wait()
            sent = TRAFFIC.send(lab, near)
            with Daemon(lab, far.ns, tmp_path, config, label="second", as_user=as_user) as daemon:
                wait_until(lambda: daemon.account().seen.packets >= sent.packets, "the last packets are seen")
                assert daemon.finish().seen.packets == sent.packets
        assert [*pins.iterdir(), *memory.iterdir()] == []
    finally:
        shutil.rmtree(memory, ignore_errors=True)
