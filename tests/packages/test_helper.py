"""The root helper under its unit, for the daemon under its own: sandboxes, restarts, crashes, an upgrade, a removal."""

from __future__ import annotations

import contextlib
from collections import defaultdict
from pathlib import Path

from lab.collectors import UdpSink
from lab.namespaces import LabError, Link
from lab.programs import wait_until
from lab.routers import TEMPLATE, Reader
from lab.traffic import Traffic
from tests.packages.host import AT_ONCE, BOOTED, UNIT, Host, Site
from tests.packages.listing import listing
from tests.packages.made import renumbered

pytestmark = BOOTED

SOCKET, SERVICE = "netobs-helper.socket", "netobs-helper.service"
HELPER_CONF = "/etc/netobs-helper.toml"
PATH = "/run/netobs/helper.sock"
CAPABILITIES = 1 << 12 | 1 << 21  # CAP_NET_ADMIN, CAP_SYS_ADMIN
RATE, TIMEOUT_S = 4_000, 60.0
CONNECT = f"""
import socket
sock = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
sock.connect("{PATH}")
print(sock.recv(4096).decode())
"""
Flows = dict[tuple[str, int], tuple[int, int]]


def load(packets: int) -> Traffic:
    """The same flows in every namespace: addresses, ports, and the index of the interface; but other sums."""
    return Traffic(flows=50, packets=packets, size=(60, 1514))


class Routers:
    """Network namespaces of the host, each with an interface ``veth0`` whose other end the host has."""

    def __init__(self, site: Site) -> None:
        self._site, self._host = site, site.host
        self.senders: dict[str, Link] = {}

    def add(self, name: str) -> None:
        """Makes one; as soon as it has a name, netobs may look at it."""
        run, sender = self._host.run, f"to-{name}"
        run("ip", "netns", "add", name)
        run("ip", "link", "add", sender, "type", "veth", "peer", "veth0", "netns", name)
        run("ip", "-n", name, "link", "set", "veth0", "addrgenmode", "none", "up")  # silent
        run("ip", "link", "set", sender, "up")
        self.senders[name] = self._site.lab.link(self._site.far.ns, sender)

    def wait_measured(self, *names: str) -> None:
        """Until the present daemon says so."""
        for name in names:
            wait_until(lambda: f"{name}/veth0: attached" in self._host.logs()[-1], f"{name} is measured", TIMEOUT_S)  # noqa: B023

    def are_there(self) -> set[str]:
        """By their interfaces in the host, which go with the last that holds a namespace."""
        present = {str(link["ifname"]) for link in self._site.lab.links(self._site.far.ns)}
        return {name for name, sender in self.senders.items() if sender.name in present}


def flows_by_namespace(reader: Reader) -> dict[str, Flows]:
    """Packets and octets of each flow by source address and port; by the name of the namespace."""
    found: dict[str, Flows] = defaultdict(dict)
    for flow in reader.flows():
        flows, key = found[flow["VRFname"]], (flow["sourceIPv4Address"], flow["sourceTransportPort"])
        packets, octets = flows.get(key, (0, 0))
        flows[key] = packets + flow["packetDeltaCount"], octets + flow["octetDeltaCount"]
    return found


def expected(packets: int) -> Flows:
    rows = load(packets).expected()
    addresses = (".".join(map(str, address[12:])) for address in rows["src_addr"].tolist())
    counts = zip(rows["packets"].tolist(), rows["octets"].tolist())
    return dict(zip(zip(addresses, rows["src_port"].tolist()), counts))


def set_up(site: Site, *packages: Path) -> None:
    """Installed and configured, not started."""
    host = site.host
    host.apt("install", *(host.copy(package) for package in packages))
    host.path("/etc/netobs/templates/namespaces.toml").write_text(TEMPLATE, encoding="ascii")
    host.configure(host="127.0.0.1", template="namespaces", **AT_ONCE)
    host.configure(netns=["qrouter-*/veth*", "blue"], interfaces=[site.far.name], direction="ingress")


def access(host: Host) -> str:
    return host.run("stat", "--format=%U:%G %a", PATH).stdout.strip()


def confined(host: Host) -> None:
    """What the kernel says of the helper's process."""
    (process,) = host.processes(SERVICE)
    status = process.status()
    assert process.uid == 0
    assert [int(status[name], 16) for name in ("CapEff", "CapBnd")] == [CAPABILITIES, CAPABILITIES]
    assert (status["NoNewPrivs"], status["Seccomp"]) == ("1", "2")


def refuses_others(host: Host) -> None:
    """The mode of the socket keeps other users away, and so does the helper, whatever the mode."""
    as_nobody = ("setpriv", "--reuid=nobody", "--regid=nogroup", "--clear-groups", "python3", "-c", CONNECT)
    assert "PermissionError" in host.run(*as_nobody, check=False).stderr
    host.run("chmod", "666", PATH)
    assert "uid 65534 is not served" in host.run(*as_nobody).stdout
    host.run("chmod", "660", PATH)
    assert "uid 65534, process" in host.journal(f"--unit={SERVICE}")


def test_namespaces_by_the_helper_under_its_unit(
    prepared: Site, suite: str, deb: Path, helper_deb: Path, tmp_path: Path, report: list[str]
) -> None:
    host, routers = prepared.host, Routers(prepared)
    set_up(prepared, deb, helper_deb)
    assert (host.state(SOCKET), host.systemctl("is-enabled", SOCKET), host.state(SERVICE)) == (
        "active", "enabled", "inactive",
    )  # fmt: skip
    wanted = {"qrouter-1": 20_000, "qrouter-2": 30_000, "qrouter-3": 40_000}
    with UdpSink(prepared.far.ns) as sink:
        reader = Reader(sink)
        host.systemctl("enable", "--now", UNIT, check=False)
        if host.state() != "active":
            print(host.journal(f"--unit={UNIT}"), host.run("ls", "-laR", "/etc/netobs").stdout)
        assert host.state() == "active"
        for name in wanted:
            routers.add(name)
        routers.wait_measured(*wanted)
        assert access(host) == "root:netobs 660"
        confined(host)
        sending = [load(wanted[name]).start(prepared.lab, routers.senders[name], rate=RATE) for name in wanted]
        host.systemctl("restart", UNIT)
        host.systemctl("restart", SERVICE)
        routers.add("qrouter-4")
        routers.wait_measured("qrouter-4")
        (helper,) = host.processes(SERVICE)
        helper.send(9)
        routers.add("qrouter-5")
        routers.wait_measured("qrouter-5")
        daemon = host.daemon()
        daemon.send(9)
        wait_until(lambda: host.state() == "active" and host.processes(UNIT) not in ([], [daemon]), "it is back", 60)
        for each in sending:
            each.wait()
        host.wait_sent(sum(wanted.values()), "127.0.0.1")
        found = flows_by_namespace(reader)
        assert found == {name: expected(packets) for name, packets in wanted.items()}
        assert [line for log in host.logs() for line in log.splitlines() if "cannot be asked" in line] == []
        allowed_later(host, routers)
        ends_under_traffic(prepared, routers, "qrouter-1")
        refuses_others(host)
        log, exposures = host.journal(f"--unit={SERVICE}"), {unit: exposure(host, unit) for unit in (SERVICE, UNIT)}
        for name in wanted:  # the links of the first daemon go on
            assert log.count(f"link {name} 2 ingress tcx: done") == 1
        upgraded_and_removed(prepared, routers, helper_deb, tmp_path)
        host.systemctl("stop", UNIT)
    report += [f"{suite}: {unit}: {said}" for unit, said in exposures.items()]


def allowed_later(host: Host, routers: Routers) -> None:
    """As netobs-helper(8) says."""
    routers.add("blue")
    wait_until(lambda: "network namespace blue: not measured" in host.logs()[-1], "it is not allowed")
    host.configure(HELPER_CONF, netns=["qrouter-*", "blue"])
    host.systemctl("restart", SOCKET)
    host.systemctl("reload", UNIT)
    routers.wait_measured("blue")


def exposure(host: Host, unit: str) -> str:
    """What ``systemd-analyze security`` comes to."""
    return host.run("systemd-analyze", "--no-pager", "security", unit).stdout.splitlines()[-1]


def ends_under_traffic(site: Site, routers: Routers, name: str) -> None:
    """It is deleted while packets arrive: gone with its interfaces, and what was measured is exported."""
    host = site.host
    before = host.account().seen.packets
    running = load(100_000_000).start(site.lab, routers.senders[name], rate=RATE)
    wait_until(lambda: host.account().seen.packets > before, "its packets are seen")
    host.run("ip", "netns", "del", name)
    wait_until(lambda: f"network namespace {name}: gone" in host.logs()[-1], "netobs lets it go")
    wait_until(lambda: name not in routers.are_there(), "the kernel lets it go")
    with contextlib.suppress(LabError):  # its interface went away
        running.stop()
    account = host.account()
    assert account.is_balanced()
    assert account.transmitted().packets == account.seen.packets


def upgraded_and_removed(site: Site, routers: Routers, helper_deb: Path, tmp_path: Path) -> None:
    """An upgrade replaces the running helper; what a removal leaves is the configuration, a purge nothing."""
    host = site.host
    (former,) = host.processes(SERVICE)
    host.upgrade(renumbered(helper_deb, tmp_path, "+next"))
    assert (host.state(SOCKET), access(host)) == ("active", "root:netobs 660")
    assert host.processes(SERVICE) != [former]
    routers.add("qrouter-6")
    routers.wait_measured("qrouter-6")
    host.apt("purge", "netobs-helper")
    for unit in (SERVICE, SOCKET):
        assert (host.state(unit), host.show(unit, "LoadState")) == ("inactive", "not-found")
    left = [path for path in listing(host) if "netobs-helper" in path]
    assert left == []
    assert not host.path(PATH).exists()
