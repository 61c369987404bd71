"""An outage of the collector with a spool: afterwards every flow is there, once."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest

from lab.certificates import Authority
from lab.daemon import Account, Daemon, Table, configuration, netobs
from lab.namespaces import Lab, Link, command
from lab.programs import wait_until
from lab.recording import Collector
from lab.traffic import Traffic
from netobs.encode.template import file as template_file
from netobs.export.spool.index import ENTRY

pytestmark = pytest.mark.e2e(tools=("make", "openssl", "ipfixDump"))

PORT = 4739
FLOWS_PER_S = 20_000
KEY = ("sourceIPv4Address", "destinationIPv4Address", "sourceTransportPort", "destinationTransportPort",
       "protocolIdentifier")  # fmt: skip
HEADER_BYTES = 20  # of a Message and its Set
CAPTURE: Table = {"eviction_interval": "1s", "direction": "ingress"}
METERING: Table = {"active_timeout": "0s"}
RECEIVE_BUFFER_BYTES = 65_536


class Flows:
    """The Data Records in the files of a folder, read as they grow."""

    def __init__(self, files: Path) -> None:
        template, _ = template_file.load("default")
        self._id, self._dtype, self._files = template.id, template.dtype, files
        self._read: dict[Path, int] = {}
        self._parts: list[npt.NDArray[np.void]] = []

    def count(self) -> int:
        """Data Records so far."""
        for path in sorted(self._files.glob("*.ipfix")):
            with path.open("rb") as file:
                file.seek(self._read.get(path, 0))
                data = file.read()
            at = 0
            for start, stop in self._messages(data):
                at = stop
                if int.from_bytes(data[start + 16 : start + 18], "big") == self._id:
                    self._parts.append(np.frombuffer(data[start + HEADER_BYTES : stop], dtype=self._dtype))
            self._read[path] = self._read.get(path, 0) + at
        return sum(map(len, self._parts))

    @staticmethod
    def _messages(data: bytes) -> Iterator[tuple[int, int]]:
        at = 0
        while at + 4 <= len(data):
            stop = at + int.from_bytes(data[at + 2 : at + 4], "big")
            if stop > len(data):
                return
            yield at, stop
            at = stop

    def distinct(self) -> int:
        """5-tuples."""
        self.count()
        rows = np.concatenate(self._parts)
        parts = [np.ascontiguousarray(rows[name]).view(np.uint8).reshape(len(rows), -1) for name in KEY]
        return len({key.tobytes() for key in np.concatenate(parts, 1)})

    def check_sequences(self) -> None:
        """Each connection is a Transport Session: it begins with 0 and templates; the Messages are numbered on."""
        for path in sorted(self._files.glob("*.ipfix")):
            data, expected = path.read_bytes(), 0
            for start, stop in self._messages(data):
                set_id = int.from_bytes(data[start + 16 : start + 18], "big")
                sequence = int.from_bytes(data[start + 8 : start + 12], "big")
                assert start > 0 or set_id in (2, 3)
                # Options records count too: how many there are is not looked at.
                assert sequence == expected or expected < 0
                rows = (stop - start - HEADER_BYTES) // self._dtype.itemsize
                expected = sequence + rows if set_id == self._id else sequence if set_id in (2, 3) else -1


def in_spool(spool: Path) -> int:
    """Flows in all files, whether sent or not."""
    found = 0
    for path in spool.glob("127.0.0.1/*.index"):
        with contextlib.suppress(FileNotFoundError):  # it is through
            found += int(np.frombuffer(path.read_bytes(), dtype=ENTRY)["flows"].sum())
    return found


def collector_table(tmp_path: Path, transport: str) -> tuple[Table, tuple[object, ...]]:
    """The [[collector]], and what the collector needs of it."""
    table: Table = {"transport": transport, "port": PORT, "reconnect_max": "1s", "spool": str(tmp_path / "spool")}
    if transport == "tcp":
        return table, (0,)
    (tmp_path / "pki").mkdir()
    authority = Authority(tmp_path / "pki")
    own = authority.issue("exporter")
    table.update(ca=str(authority.ca), cert=str(own.cert), key=str(own.key))
    return table, (0, authority.issue("collector", "IP:127.0.0.1").both, authority.ca)


def outage(lab: Lab, tmp_path: Path, transport: str, seconds: int, around: int = 3) -> None:
    """Traffic without end; the collector is stopped, away for ``seconds``, and started again."""
    near, far = lab.pair()
    table, more = collector_table(tmp_path, transport)
    flows = Flows(tmp_path / "files")
    traffic = Traffic(flows=FLOWS_PER_S * (seconds + 2 * around))
    with Daemon(lab, far.ns, tmp_path, configuration(CAPTURE, METERING, [table])) as daemon:
        with Collector(lab, far.ns, tmp_path, tmp_path / "files", "first", *more) as first:
            daemon.wait_for(": connected")
            running = traffic.start(lab, near, rate=FLOWS_PER_S)
            wait_until(lambda: flows.count() >= FLOWS_PER_S, "flows arrive")
            first.signal(signal.SIGTERM)
        down_s, before = time.monotonic(), flows.count()
        wait_until(lambda: time.monotonic() >= down_s + seconds, "the outage is over", seconds + 10)
        stored = in_spool(tmp_path / "spool")
        assert stored >= FLOWS_PER_S * (seconds - 3), "what came in the outage is on the disk"
        with Collector(lab, far.ns, tmp_path, tmp_path / "files", "second", *more):
            start_s = time.monotonic()
            wait_until(lambda: in_spool(tmp_path / "spool") == 0, "the spool is sent", 60)
            replay_s = time.monotonic() - start_s
            sent = running.wait()
            assert sent.packets == traffic.flows
            wait_until(lambda: flows.count() >= traffic.flows, "all flows arrive", 30)
            account = daemon.finish()
    arrived = flows.distinct()
    print(f"{before} flows before the outage, {stored} in the spool, replayed within {replay_s:.1f} s; "
          f"{flows.count()} Data Records, {arrived} flows of {traffic.flows}")  # fmt: skip
    print("\n".join(line for line in daemon.log.splitlines() if "collector" in line or "seen" in line))
    assert flows.count() == arrived == traffic.flows
    flows.check_sequences()
    assert account.sent["127.0.0.1"].flows == traffic.flows
    assert account.is_balanced()
    assert account.not_sent == {}


@pytest.mark.parametrize("transport", ["tcp", "tls"])
def test_every_flow_arrives_once_after_an_outage(lab: Lab, tmp_path: Path, transport: str) -> None:
    outage(lab, tmp_path, transport, 10)


@pytest.mark.bench
@pytest.mark.parametrize("transport", ["tcp", "tls"])
def test_outage_of_a_minute(lab: Lab, tmp_path: Path, transport: str) -> None:
    outage(lab, tmp_path, transport, 60)


def test_kill_in_the_outage_loses_nothing_that_was_evicted(lab: Lab, tmp_path: Path) -> None:
    near, far = lab.pair()
    table, more = collector_table(tmp_path, "tcp")
    config = configuration(CAPTURE, METERING, [table])
    flows = Flows(tmp_path / "files")
    with Daemon(lab, far.ns, tmp_path, config) as daemon:
        with Collector(lab, far.ns, tmp_path, tmp_path / "files", "first", *more) as first:
            daemon.wait_for(": connected")
            Traffic(flows=1000).send(lab, near)
            wait_until(lambda: flows.count() == 1000, "flows arrive")
            first.signal(signal.SIGTERM)
        daemon.wait_for("connection lost")
        Traffic(flows=30_000, flow_base=1000).send(lab, near, rate=FLOWS_PER_S)
        wait_until(lambda: in_spool(tmp_path / "spool") == 30_000, "the flows are in the spool")
        daemon.process.kill()
        daemon.process.wait()
    read_by_ipfixdump(tmp_path / "spool", 30_000)
    with Daemon(lab, far.ns, tmp_path, config, "again") as again:
        Traffic(flows=1000, flow_base=31_000).send(lab, near)
        with Collector(lab, far.ns, tmp_path, tmp_path / "files", "second", *more):
            wait_until(lambda: flows.count() >= 32_000, "all flows arrive")
            account = again.finish()
    assert flows.count() == flows.distinct() == 32_000
    flows.check_sequences()
    assert account.taken_over["127.0.0.1"].flows == 30_000
    assert account.sent["127.0.0.1"].flows == 31_000
    assert account.is_balanced()


def read_by_ipfixdump(spool: Path, flows: int) -> None:
    """libfixbuf's strict reader takes each file by itself, and finds nothing wrong with it."""
    records = 0
    for path in sorted(spool.glob("127.0.0.1/*.ipfix")):
        done = command(["ipfixDump", "-i", str(path)])
        assert done.stderr.strip() == ""
        records += done.stdout.count("--- data record ")
    assert records == flows


def test_end_of_the_daemon_in_the_outage(lab: Lab, tmp_path: Path, as_user: bool) -> None:
    near, far = lab.pair()
    table, more = collector_table(tmp_path, "tcp")
    config = configuration(CAPTURE, METERING, [table])
    with Daemon(lab, far.ns, tmp_path, config, as_user=as_user) as daemon:
        Traffic(flows=2000).send(lab, near)
        account = daemon.finish()
    assert account.spooled["127.0.0.1"].flows == 2000
    assert account.is_balanced()
    flows = Flows(tmp_path / "files")
    with (
        Collector(lab, far.ns, tmp_path, tmp_path / "files", "collector", *more),
        Daemon(lab, far.ns, tmp_path, config, "again", as_user=as_user) as again,
    ):
        wait_until(lambda: flows.count() == 2000, "all flows arrive")
        assert again.finish().is_balanced()
    assert flows.distinct() == 2000


@pytest.mark.parametrize("transport", ["tcp", "tls"])
def test_collector_that_is_killed_while_data_flow(lab: Lab, tmp_path: Path, transport: str) -> None:
    """It has read nothing for a while: what is in its buffer is lost with it, nothing else; and nothing is twice."""
    near, far = lab.pair()
    table, more = collector_table(tmp_path, transport)
    total = 100_000
    flows = Flows(tmp_path / "files")
    with Daemon(lab, far.ns, tmp_path, configuration(CAPTURE, METERING, [table])) as daemon:
        with Collector(lab, far.ns, tmp_path, tmp_path / "files", "first", RECEIVE_BUFFER_BYTES, *more[1:]) as first:
            daemon.wait_for(": connected")
            running = Traffic(flows=total).start(lab, near, rate=FLOWS_PER_S)
            wait_until(lambda: flows.count() >= FLOWS_PER_S, "flows arrive")
            first.signal(signal.SIGSTOP)
            wait_until(lambda: blocked(lab, far), "the connection is full")
            first.signal(signal.SIGKILL)
        daemon.wait_for("connection lost")
        with Collector(lab, far.ns, tmp_path, tmp_path / "files", "second", *more):
            running.wait()
            account = finish(daemon, flows)
    print("\n".join(line for line in daemon.log.splitlines() if "collector" in line))
    arrived = flows.distinct()
    assert flows.count() == arrived, "none twice"
    print(f"{total - arrived} flows of {total} were lost with the collector")
    assert (total - arrived) * 96 <= 2 * RECEIVE_BUFFER_BYTES + (1 << 16)
    assert account.sent["127.0.0.1"].flows == total
    assert account.is_balanced()


def blocked(lab: Lab, link: Link) -> bool:
    """Whether the collector's host has no room for what waits in the exporter's socket.

    Then all that the collector has read is acknowledged: newer bytes, which it has not read, are there already.
    """

    def waiting(side: str, column: int) -> int:
        lines = lab.run(link.ns, ["ss", "-tnH", "state", "established", f"{side} = :{PORT}"]).stdout.split()
        return int(lines[column]) if lines else 0

    return waiting("dport", 1) > 100_000 and waiting("sport", 0) > RECEIVE_BUFFER_BYTES // 4


def finish(daemon: Daemon, flows: Flows) -> Account:
    """End it when nothing comes any more."""
    wait_until(lambda: (before := flows.count()) > 0 and quiet(flows, before), "the last flows arrive", 40)
    return daemon.finish()


def quiet(flows: Flows, before: int) -> bool:
    end = time.monotonic() + 2.5
    wait_until(lambda: time.monotonic() > end or flows.count() > before, "time passes")
    return flows.count() == before


def test_dry_run_and_two_daemons(lab: Lab, tmp_path: Path) -> None:
    far = lab.pair()[1]
    table, _ = collector_table(tmp_path, "tcp")
    config = configuration(CAPTURE, METERING, [table])
    conf = tmp_path / "netobs.toml"
    conf.write_text(config, encoding="utf-8")
    folder = tmp_path / "spool" / "127.0.0.1"
    done = netobs(lab, far.ns, "--conf", str(conf), "--dry-run")
    assert f"  spool {folder}: 0.0 MiB used of 1024.0 MiB" in done.stdout.splitlines()
    assert not folder.parent.exists()
    with Daemon(lab, far.ns, tmp_path, config):
        done = netobs(lab, far.ns, "--conf", str(conf))
        assert done.returncode == os.EX_TEMPFAIL
        assert f'collector "127.0.0.1": spool {folder} is used by another process' in done.stderr
        assert netobs(lab, far.ns, "--conf", str(conf), "--dry-run").returncode == 0
    conf.write_text(config.replace(str(tmp_path / "spool"), str(tmp_path / "a" / "b" / "c")), encoding="utf-8")
    done = netobs(lab, far.ns, "--conf", str(conf), "--dry-run")
    said = f'collector "127.0.0.1": spool {tmp_path}/a/b: No such file or directory; flows wait in memory'
    assert f"warning: {said}, and the spool is tried again each minute" in done.stdout.splitlines()


def test_a_spool_that_is_removed_under_the_daemon(lab: Lab, tmp_path: Path) -> None:
    near, far = lab.pair()
    table, more = collector_table(tmp_path, "tcp")
    spool, flows = tmp_path / "spool", Flows(tmp_path / "files")
    with Daemon(lab, far.ns, tmp_path, configuration(CAPTURE, METERING, [table])) as daemon:
        Traffic(flows=2000).send(lab, near)
        wait_until(lambda: in_spool(spool) == 2000, "the flows are in the spool")
        shutil.rmtree(spool)
        Traffic(flows=1000, flow_base=2000).send(lab, near)
        wait_until(lambda: in_spool(spool) == 1000, "the later flows are in a new one")
        assert (
            f"2000 flows are not sent: spool {spool}/127.0.0.1 was removed or replaced; it is made again" in daemon.log
        )
        with Collector(lab, far.ns, tmp_path, tmp_path / "files", "collector", *more):
            wait_until(lambda: flows.count() == 1000, "what is left arrives")
            account = daemon.finish()
    assert account.not_sent["127.0.0.1"]["removed"].flows == 2000
    assert account.is_balanced()


def test_root_leaves_the_spool_of_a_user_alone(lab: Lab, tmp_path: Path) -> None:
    near, far = lab.pair()
    table, _ = collector_table(tmp_path, "tcp")
    folder = tmp_path / "spool" / "127.0.0.1"
    precious = tmp_path / "precious"
    precious.write_text("keep me", encoding="ascii")
    folder.mkdir(parents=True)
    for name in ("cursor", "lock", "0000000001.ipfix", "0000000001.index"):
        (folder / name).symlink_to(precious if name != "lock" else tmp_path / "new")
    for path in (folder.parent, folder):
        os.chown(path, 65534, 65534)
    with Daemon(lab, far.ns, tmp_path, configuration(CAPTURE, METERING, [table]), as_user=False) as daemon:
        Traffic(flows=100).send(lab, near)
        account = daemon.finish()
    assert f"spool {folder}: belongs to the user nobody, and this is root: run netobs as nobody" in daemon.log
    assert account.not_sent["127.0.0.1"]["closed"].flows == 100
    assert account.is_balanced()
    assert precious.read_text("ascii") == "keep me"
    assert not (tmp_path / "new").exists()
