"""A real daemon's metrics: by HTTP and in a file, with the numbers of its account, over reloads."""

from __future__ import annotations

import http.client
import socket
from pathlib import Path

import pytest

from lab.collectors import UdpSink
from lab.daemon import Daemon, Table, configuration, netobs
from lab.namespaces import Lab, in_namespace
from lab.programs import bound_socket, wait_until
from lab.traffic import Traffic

pytestmark = pytest.mark.e2e(tools=("make",))

PORT = 9469
LISTEN = f"127.0.0.1:{PORT}"
OPENMETRICS = "application/openmetrics-text; version=1.0.0; charset=utf-8"
AT_ONCE: Table = {"active_timeout": "0s"}
OFTEN: Table = {"eviction_interval": "200ms", "direction": "ingress"}


class Client:
    """A connection to the daemon in ``ns``."""

    def __init__(self, ns: str, port: int = PORT) -> None:
        with in_namespace(ns):
            self._sock = socket.create_connection(("127.0.0.1", port), 5)
        self._connection = http.client.HTTPConnection("127.0.0.1", port)
        self._connection.sock = self._sock
        self._connection.auto_open = 0

    def ask(self, method: str = "GET", path: str = "/metrics", accept: str = "text/plain") -> tuple[int, str, str]:
        """Status, content type and body."""
        self._connection.request(method, path, headers={"Accept": accept})
        response = self._connection.getresponse()
        return response.status, response.headers["Content-Type"], response.read().decode()

    def say(self, data: bytes) -> bytes:
        """Whatever comes back for ``data``, to its end."""
        self._sock.sendall(data)
        found = b""
        while part := self._sock.recv(65536):
            found += part
        return found

    def close(self) -> None:
        self._sock.close()


def scrape(ns: str, port: int = PORT) -> dict[str, float]:
    """The samples."""
    client = Client(ns, port)
    status, _, body = client.ask()
    client.close()
    assert status == 200
    return samples(body)


def samples(body: str) -> dict[str, float]:
    lines = [line.rpartition(" ") for line in body.splitlines() if not line.startswith("#")]
    return {name: float(value) for name, _, value in lines}


def listens(ns: str, port: int) -> bool:
    return bound_socket(ns, port, "tcp") is not None


def _ask_everything(ns: str) -> None:
    """What a client may ask for, and what it may not."""
    client = Client(ns)
    wanted = "application/openmetrics-text;version=1.0.0,text/plain;version=0.0.4;q=0.5,*/*;q=0.1"
    status, kind, body = client.ask(accept=wanted)
    assert (status, kind, body[-6:]) == (200, OPENMETRICS, "# EOF\n")
    assert "# UNIT netobs_account_seen_octets octets\n" in body
    status, kind, body = client.ask("HEAD")  # in the same connection
    assert (status, kind, body) == (200, "text/plain; version=0.0.4; charset=utf-8", "")
    assert client.ask("GET", "/metrics?a=1")[0] == 200
    assert client.ask("GET", "/")[:2] == (404, "text/plain; charset=utf-8")
    client.close()
    for method in ("POST", "DELETE"):
        client = Client(ns)
        assert client.ask(method)[0] == 405
        client.close()
    for data, status in ((b"\x16\x03\x01\r\n\r\n", 400), (b"GET / HTTP/2.0\r\n\r\n", 505), (b"a" * 8192, 431)):
        client = Client(ns)
        assert client.say(data).startswith(f"HTTP/1.1 {status} ".encode())
        client.close()


def test_the_numbers_are_those_of_the_account_whatever_clients_ask_for(lab: Lab, tmp_path: Path) -> None:
    near, far = lab.pair()
    config = configuration(OFTEN, AT_ONCE, metrics={"listen": LISTEN})
    with UdpSink(far.ns), Daemon(lab, far.ns, tmp_path, config) as daemon:
        Traffic(flows=100, packets=1000).send(lab, near)
        exported = 'netobs_exported_packets_total{collector="127.0.0.1"}'
        wait_until(lambda: scrape(far.ns)[exported] == 1000, "all flows are exported")
        _ask_everything(far.ns)
        found, account = scrape(far.ns), daemon.account()
    assert found["netobs_account_seen_packets_total"] == account.seen.packets == 1000
    assert found["netobs_account_seen_octets_total"] == account.seen.octets
    assert found['netobs_exported_octets_total{collector="127.0.0.1"}'] == account.sent["127.0.0.1"].octets
    assert found['netobs_exported_flows_total{collector="127.0.0.1"}'] == account.sent["127.0.0.1"].flows
    assert found['netobs_collector_up{collector="127.0.0.1"}'] == 1
    rates = [name for name in found if name.startswith("netobs_flow_packets_total")]
    assert sum(found[name] for name in rates) == 1000
    assert all(name.startswith('netobs_flow_packets_total{interface="veth0",direction="ingress"') for name in rates)
    assert (
        found['netobs_interface_info{interface="veth0",direction="ingress",method="tcx"}'] == 1
        or found['netobs_interface_info{interface="veth0",direction="ingress",method="tc"}']
    )
    assert found["netobs_evictions_total"] == found["netobs_eviction_seconds_count"] > 0
    assert found["process_open_fds"] > 5


def test_a_reload_moves_the_address_and_a_bad_one_changes_nothing(lab: Lab, tmp_path: Path) -> None:
    _, far = lab.pair()
    with Daemon(lab, far.ns, tmp_path, configuration()) as daemon:
        assert not listens(far.ns, PORT)
        daemon.reload(configuration(metrics={"listen": LISTEN}))
        assert "netobs_start_time_seconds" in scrape(far.ns)
        said = daemon.reload(configuration(metrics={"listen": "127.0.0.1:9470"}))
        assert "reload: done" in said
        assert not listens(far.ns, PORT)
        assert scrape(far.ns, 9470)["netobs_reload_failed"] == 0
        said = daemon.reload(configuration(metrics={"listen": "192.0.2.77:9469"}))
        assert 'metrics.listen "192.0.2.77:9469": not an address of this host' in said
        assert scrape(far.ns, 9470)["netobs_reload_failed"] == 1
        with in_namespace(far.ns):
            other = socket.create_server(("127.0.0.1", PORT))
        with other:
            assert "another program listens there" in daemon.reload(configuration(metrics={"listen": LISTEN}))
        daemon.reload(configuration())
        assert not listens(far.ns, 9470)


def test_what_does_not_work_at_the_start_keeps_nothing_from_being_measured(lab: Lab, tmp_path: Path) -> None:
    _, far = lab.pair()
    file, again = tmp_path / "out" / "netobs.prom", tmp_path / "again.prom"
    with in_namespace(far.ns):
        other = socket.create_server(("127.0.0.1", PORT))
    config = configuration(metrics={"listen": LISTEN, "textfile": str(file)})
    with other, Daemon(lab, far.ns, tmp_path, config) as daemon:
        daemon.wait_for(f"WARNING metrics.textfile {file}: No such file or directory; it is tried again")
        assert daemon.log.count(f'ERROR metrics.listen "{LISTEN}": another program listens there') == 1
        said = daemon.reload(configuration(metrics={"textfile": f"{tmp_path}/no/netobs.prom"}))
        assert f"there is no folder {tmp_path}/no" in said
        assert "reload: failed" in said
        daemon.reload(configuration(metrics={"textfile": str(again)}))
        wait_until(again.exists, "the file is written")
        assert daemon.finish().seen.packets == 0
    found = samples(again.read_text("utf-8"))
    assert "netobs_start_time_seconds" in found
    assert not [name for name in found if name.startswith("process_")]


def test_the_plan(lab: Lab, tmp_path: Path) -> None:
    _, far = lab.pair()
    file = tmp_path / "netobs.toml"
    file.write_text(configuration(metrics={"listen": "192.0.2.77:9469", "textfile": f"{tmp_path}/no/a.prom"}), "utf-8")
    done = netobs(lab, far.ns, "--conf", str(file), "--dry-run")
    assert done.returncode == 0
    assert "\nmetrics: http://192.0.2.77:9469/metrics\n" in done.stdout
    assert f"\nmetrics: file {tmp_path}/no/a.prom\n" in done.stdout
    assert '\nwarning: metrics.listen "192.0.2.77:9469": not an address of this host' in done.stdout
    assert f"\nwarning: metrics.textfile {tmp_path}/no/a.prom: there is no folder {tmp_path}/no" in done.stdout
