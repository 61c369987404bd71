"""What netobs counts on an interface beside the kernel's own counters: nothing is missing that is not explained."""

from __future__ import annotations

import contextlib
import fcntl
import mmap
import os
import socket
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from lab import frames as f
from lab.daemon import KEPT, Daemon, configuration
from lab.keeping import ServiceStore
from lab.namespaces import Lab, Link, in_namespace
from lab.programs import wait_until
from lab.wire import TUNSETIFF, Sender
from netobs.cli.control_client import ask
from netobs.config.identity import control_socket
from netobs.datapath.interface_counts import LEAST_ROWS, count_key
from netobs.datapath.layout import INTERFACE_COUNT
from netobs.kernel.libbpf import possible_cpus
from tests.e2e.test_going_on import Kept, store  # noqa: F401  (a fixture)
from tests.e2e.test_gso import Route, route, send_tcp  # noqa: F401  (a fixture)

pytestmark = pytest.mark.e2e(tools=("ethtool", "nfcapd", "nfdump", "tcpdump"))

IFF_TAP, IFF_NO_PI = 2, 0x1000
PACKET_QDISC_BYPASS = 20
MULTICAST = f.ethernet(f.IPV4, f.ipv4(f.UDP, f.udp(bytes(200)), dst="239.1.2.3"), dst="01:00:5e:01:02:03")
TAGGED = f.ethernet(*f.tag(f.Q, 7, f.IPV4, f.ipv4(f.UDP, f.udp(bytes(50)))))
ARP = f.ethernet(f.ARP, bytes(28).ljust(46, b"\0"))
PLAIN = f.ethernet(f.IPV4, f.ipv4(f.UDP, f.udp(bytes(100))))
MIXED = [MULTICAST] * 3 + [TAGGED] * 5 + [ARP] * 4 + [PLAIN] * 10
FAST: dict[str, Any] = {"eviction_interval": "100ms"}
NONE = {"packets": 0, "octets": 0, "dropped_after": 0}


class Tap:
    """A tap interface: what is sent arrives on it, ``read`` takes what the host sent."""

    def __init__(self, lab: Lab, ns: str, name: str = "tap0", queue: int = 1000) -> None:
        with in_namespace(ns):
            self._fd = os.open("/dev/net/tun", os.O_RDWR | os.O_CLOEXEC | os.O_NONBLOCK)
            fcntl.ioctl(self._fd, TUNSETIFF, struct.pack("16sH22x", name.encode(), IFF_TAP | IFF_NO_PI))
        lab.run(ns, ["ip", "link", "set", name, "txqueuelen", str(queue), "up"])
        self.link = lab.link(ns, name)

    def __enter__(self) -> Tap:
        return self

    def __exit__(self, *exc: object) -> None:
        os.close(self._fd)

    def send(self, *frames: bytes) -> None:
        for frame in frames:
            assert os.write(self._fd, frame) == len(frame)

    def read(self) -> int:
        """All that waits; how many frames."""
        frames = 0
        with contextlib.suppress(BlockingIOError):
            while os.read(self._fd, 1 << 16):
                frames += 1
        return frames


class Counted:
    """The state document of a running daemon, seen as the counts of its interfaces."""

    def __init__(self, daemon: Daemon, *links: Link) -> None:
        self._path = control_socket(daemon.conf)
        self._before = {link: self._kernel(link) for link in links}
        for link in links:
            wait_until(lambda: self.of(link, "egress")["difference"] is not None, f"{link.name} has a baseline")  # noqa: B023
            self._before[link] = self._kernel(link)

    def of(self, link: Link, direction: str) -> dict[str, Any]:
        (found,) = [
            each for each in ask(self._path, "status")["status"]["interfaces"] if each["name"] == link.name
        ]  # fmt: skip
        counted: dict[str, Any] = found["directions"][direction]
        return counted

    def _kernel(self, link: Link) -> dict[str, dict[str, int]]:
        with in_namespace(link.ns):
            lines = Path("/proc/thread-self/net/dev").read_text(encoding="ascii").splitlines()
        (line,) = [line for line in lines if line.strip().startswith(f"{link.name}:")]
        numbers = [int(word) for word in line.split(":")[1].split()]
        return {
            name: {"packets": numbers[at + 1], "octets": numbers[at]} for name, at in (("ingress", 0), ("egress", 8))
        }

    def check(self, link: Link, least_packets: int) -> None:
        """Nothing is different in both directions, and what netobs shows of the kernel is what the kernel shows."""
        for direction in ("ingress", "egress"):
            counted = self.of(link, direction)
            kernel, before = self._kernel(link)[direction], self._before[link][direction]
            assert counted["kernel"] == {unit: kernel[unit] - before[unit] for unit in kernel}
            assert counted["kernel"]["packets"] >= least_packets
            assert counted["difference"] == NONE, direction


@contextlib.contextmanager
def running(lab: Lab, tmp_path: Path, *links: Link, **capture: Any) -> Iterator[tuple[Daemon, Counted]]:
    capture = {"interfaces": [link.name for link in links], **FAST, **capture}
    config = configuration(capture, metering=KEPT)
    with Daemon(lab, links[0].ns, tmp_path, config, f"netobs-{links[0].ns}") as daemon:
        yield daemon, Counted(daemon, *links)


def test_mixed_traffic_with_super_packets(lab: Lab, route: Route, tmp_path: Path) -> None:  # noqa: F811
    """Super-packets leave host a; packets arrive at host b one by one, and GRO joins them before the programs."""
    with Tap(lab, route.a.ns) as tap, running(lab, tmp_path, route.a, tap.link) as (_, at_a):
        lab.offload(route.b, True, "gro")
        with running(lab, tmp_path, route.b) as (_, at_b):
            send_tcp(route, 1 << 20)
            send_tcp(route, 1 << 20, socket.AF_INET6)
            for link in (route.a, route.b, route.wire, tap.link):
                with Sender(link) as sender:
                    sender.send(*MIXED)
            tap.send(*MIXED)
            assert tap.read() == len(MIXED)
            merged = at_b.of(route.b, "ingress")
            assert merged["skbs"]["packets"] < merged["seen"]["packets"] / 2
            leaving = at_a.of(route.a, "egress")
            assert leaving["skbs"]["packets"] < leaving["seen"]["packets"] / 2
            at_b.check(route.b, len(MIXED))
            at_a.check(route.a, len(MIXED))
            at_a.check(tap.link, len(MIXED))


def test_sampling_does_not_matter_and_keeps_its_share(lab: Lab, tmp_path: Path) -> None:
    """Each frame is chosen with a probability of 1 in 100: five standard deviations are never left."""
    near, far = lab.pair()
    with running(lab, tmp_path, near, sampling=100) as (daemon, counted), Sender(far) as sender:
        frames = 20_000
        for _ in range(frames // 20):
            sender.send(*[PLAIN] * 18, TAGGED, ARP)
        ingress = counted.of(near, "ingress")
        assert ingress["difference"] == NONE
        assert ingress["kernel"]["packets"] == ingress["skbs"]["packets"] == frames
        account = daemon.account()
        chosen = account.seen.packets - account.ledger["not_sampled"].packets
        assert abs(100 * chosen - frames) < 5 * 100 * (frames / 100) ** 0.5


def test_what_a_device_drops_behind_netobs_is_explained(lab: Lab, tmp_path: Path) -> None:
    ns = lab.namespace()
    with Tap(lab, ns, queue=16) as tap, running(lab, tmp_path, tap.link) as (_, counted):
        with Sender(tap.link) as sender:
            sender.send(*[PLAIN] * 400)
        waiting = counted.of(tap.link, "egress")
        taken = tap.read()
        assert 0 < taken < 400
        assert waiting["kernel"]["packets"] == 0
        assert waiting["difference"] == {"packets": -taken, "octets": None, "dropped_after": 400 - taken}
        egress = counted.of(tap.link, "egress")
        assert egress["skbs"]["packets"] == 400
        assert egress["kernel"]["packets"] == taken
        assert egress["difference"] == {"packets": 0, "octets": None, "dropped_after": 400 - taken}


def test_what_an_ifb_drops_because_nothing_redirected_it_is_explained(lab: Lab, tmp_path: Path) -> None:
    ns = lab.namespace()
    lab.run(ns, ["ip", "link", "add", "ifb9", "type", "ifb"])
    lab.run(ns, ["ip", "link", "set", "ifb9", "up"])
    ifb = lab.link(ns, "ifb9")
    with running(lab, tmp_path, ifb) as (_, counted), Sender(ifb) as sender:
        sender.send(*[PLAIN] * 400)
        egress = counted.of(ifb, "egress")
        assert egress["skbs"]["packets"] == 400
        assert egress["kernel"]["packets"] == 0
        assert egress["difference"] == {"packets": 0, "octets": None, "dropped_after": 400}


def test_what_goes_round_netobs_is_a_difference_and_a_warning(lab: Lab, tmp_path: Path) -> None:
    near, _ = lab.pair()
    with running(lab, tmp_path, near) as (daemon, counted), Sender(near) as sender:
        sender._socket.setsockopt(263, PACKET_QDISC_BYPASS, 1)  # SOL_PACKET
        sent = 0

        def is_said() -> bool:
            nonlocal sent
            sender.send(*[PLAIN] * 100)
            sent += 100
            return "veth0 egress: the kernel counts packets there that netobs does not see" in daemon.log

        wait_until(is_said, "a warning")
        assert "see netobs(8), INTERFACE COUNTERS" in daemon.log
        egress = counted.of(near, "egress")
        assert egress["skbs"] == {"packets": 0, "octets": 0}
        assert egress["difference"] == {"packets": sent, "octets": sent * len(PLAIN), "dropped_after": 0}
        assert egress["kernel"]["packets"] == sent


AGAIN = 10 + LEAST_ROWS // 2
"""The first place of this ifindex is that of 10, too."""


def rows_of(store: ServiceStore, key: int) -> int:  # noqa: F811
    """How many rows have this key, in the map that the store keeps."""
    store.read()
    (fd,) = [fd for name, fd in store.fds.items() if "-interface-" in name]
    memory = mmap.mmap(fd, possible_cpus() * LEAST_ROWS * INTERFACE_COUNT.itemsize, mmap.MAP_SHARED, mmap.PROT_READ)
    return int((np.frombuffer(memory, INTERFACE_COUNT)["key"] == key).sum())


def test_counts_go_on_over_restarts_and_rows_of_removed_interfaces_are_used_again(
    lab: Lab,
    tmp_path: Path,
    store: ServiceStore,  # noqa: F811
) -> None:
    near, far = lab.pair()
    config = configuration({"interfaces": ["veth*"], **FAST}, KEPT)

    def send(link: Link, frames: int) -> None:
        with Sender(link) as sender:
            sender.send(*[PLAIN] * frames)

    def check(daemon: Daemon, link: Link, frames: int) -> None:
        counted = Counted(daemon).of(link, "ingress")
        assert (counted["kernel"]["packets"], counted["seen"]["packets"], counted["difference"]) == (
            frames,
            frames,
            NONE,
        )

    def other(index: int) -> tuple[Link, Link]:
        made = ["ip", "link", "add", "veth9", "index", str(index), "type", "veth", "peer", "name", "out9"]
        for argv in (made, *(["ip", "link", "set", name, "up"] for name in ("veth9", "out9"))):
            lab.run(near.ns, argv)
        return lab.link(near.ns, "veth9"), lab.link(near.ns, "out9")

    with Kept(store, lab, near.ns, tmp_path, config, label="first") as daemon:
        Counted(daemon, near)
        send(far, 100)
        veth9, out9 = other(10)
        Counted(daemon, veth9)
        send(out9, 70)
        check(daemon, near, 100)
        check(daemon, veth9, 70)
        assert rows_of(store, count_key(0, 10, 0)) > 0
        lab.run(near.ns, ["ip", "link", "delete", "veth9"])
        wait_until(lambda: rows_of(store, count_key(0, 10, 0)) == 0, "the row is given away")
        veth9, out9 = other(AGAIN)
        Counted(daemon, veth9)
        send(out9, 30)
        check(daemon, veth9, 30)
        daemon.restart()
    send(far, 50)
    send(out9, 3)
    with Kept(store, lab, near.ns, tmp_path, config, label="second") as daemon:
        wait_until(lambda: Counted(daemon).of(near, "ingress")["difference"] is not None, "a reading")
        check(daemon, near, 150)
        check(daemon, veth9, 33)
        daemon.restart()
    lab.run(near.ns, ["ip", "link", "delete", "veth9"])
    veth9, out9 = other(AGAIN)
    with Kept(store, lab, near.ns, tmp_path, config, label="third") as daemon:
        Counted(daemon, veth9)
        send(out9, 4)
        check(daemon, near, 150)
        check(daemon, veth9, 4)
        daemon.finish()
