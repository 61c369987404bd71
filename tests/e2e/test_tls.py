"""IPFIX over TLS with certificates on both sides, into libfixbuf's reader behind socat."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from lab.certificates import Authority, Certificate
from lab.daemon import KEPT, Daemon, Table, configuration, netobs
from lab.namespaces import Lab
from lab.streams import TlsIpfixDump
from lab.traffic import Traffic

pytestmark = pytest.mark.e2e(tools=("make", "openssl", "socat", "ipfixDump"))


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    (tmp_path / "pki").mkdir()
    return Authority(tmp_path / "pki")


@pytest.fixture
def collector_certificate(authority: Authority) -> Certificate:
    return authority.issue("collector", "IP:127.0.0.1")


def tls(authority: Authority, own: Certificate, **more: object) -> Table:
    files = {"ca": str(authority.ca), "cert": str(own.cert), "key": str(own.key)}
    return {"transport": "tls", "reconnect_max": "1s", **files, **more}


@pytest.mark.parametrize("version", ["TLS1.2", "TLS1.3"])
def test_every_flow_arrives(
    lab: Lab, tmp_path: Path, authority: Authority, collector_certificate: Certificate, version: str
) -> None:
    near, far = lab.pair()
    config = configuration(metering=KEPT, collectors=[tls(authority, authority.issue("exporter"))])
    with TlsIpfixDump(lab, far.ns, tmp_path, collector_certificate, authority.ca, version) as dump:
        with Daemon(lab, far.ns, tmp_path, config) as daemon:
            daemon.wait_for(": connected")
            Traffic(flows=2000, packets=10_000).send(lab, near)
            account = daemon.finish()
        assert dump.faults() == []
        records = dump.flows()
    packets, octets = (sum(int(record[name]) for record in records) for name in ("packetDeltaCount", "octetDeltaCount"))
    assert (packets, octets) == account.seen.measured
    assert (len(records), packets) == (2000, 10_000)
    assert account.is_balanced()
    assert account.not_sent == {}


def test_a_refused_certificate_is_counted_and_harms_no_other(
    lab: Lab, tmp_path: Path, authority: Authority, collector_certificate: Certificate
) -> None:
    """TLS 1.3: the daemon's handshake succeeds, and the refusal comes after it."""
    near, far = lab.pair()
    (tmp_path / "stranger").mkdir()
    stranger = Authority(tmp_path / "stranger").issue("exporter")
    refused = tls(authority, stranger, name="refused")
    accepted = tls(authority, authority.issue("exporter"), name="accepted", port=4741)
    config = configuration(metering=KEPT, collectors=[refused, accepted])
    strict = TlsIpfixDump(lab, far.ns, tmp_path, collector_certificate, authority.ca)
    other = TlsIpfixDump(lab, far.ns, tmp_path, collector_certificate, authority.ca, port=4741)
    with strict, other, Daemon(lab, far.ns, tmp_path, config) as daemon:
        daemon.wait_for('"refused" (tls 127.0.0.1:4740): not reachable: 127.0.0.1:4740: refused by the collector')
        daemon.wait_for('"accepted" (tls 127.0.0.1:4741): connected')
        Traffic(flows=500).send(lab, near)
        account = daemon.finish()
        assert len(other.flows()) == 500
        assert other.faults() == []
        assert strict.records() == []
    assert daemon.log.count("not reachable") == 1
    assert re.search(r'"refused" \(.*\): [1-9]\d* times not reached, or refused$', daemon.log, re.MULTILINE)
    assert account.sent["refused"].flows == 0
    assert account.not_sent["refused"].keys() == {"closed"}
    assert account.sent["accepted"].flows == 500
    for name in ("refused", "accepted"):
        assert account.is_balanced(name)


def test_a_collector_that_is_not_verified_gets_nothing(lab: Lab, tmp_path: Path, authority: Authority) -> None:
    near, far = lab.pair()
    (tmp_path / "stranger").mkdir()
    other = Authority(tmp_path / "stranger").issue("collector", "IP:127.0.0.1")
    config = configuration(metering=KEPT, collectors=[tls(authority, authority.issue("exporter"))])
    with TlsIpfixDump(lab, far.ns, tmp_path, other, authority.ca) as dump:
        with Daemon(lab, far.ns, tmp_path, config) as daemon:
            daemon.wait_for("its certificate is not accepted")
            Traffic(flows=100).send(lab, near)
            account = daemon.finish()
        assert dump.records() == []
    assert account.sent["127.0.0.1"].flows == 0
    assert account.is_balanced()


def test_dry_run_reads_the_certificates(lab: Lab, tmp_path: Path, authority: Authority) -> None:
    far = lab.pair()[1]
    own = authority.issue("exporter")
    conf = tmp_path / "netobs.toml"
    conf.write_text(configuration(collectors=[tls(authority, own)]), encoding="utf-8")
    done = netobs(lab, far.ns, "--conf", str(conf), "--dry-run")
    assert (done.returncode, done.stderr) == (0, "")
    assert "  address 127.0.0.1:4740" in done.stdout.splitlines()
    assert f'  TLS: verified as "127.0.0.1" by {authority.ca}; own certificate: {own.cert}' in done.stdout.splitlines()
    own.key.write_text("nonsense", encoding="utf-8")
    said = f'collector "127.0.0.1": cert "{own.cert}": it or key "{own.key}" is not a PEM file of its kind'
    done = netobs(lab, far.ns, "--conf", str(conf), "--dry-run")
    assert done.returncode == 1
    assert f"problem: {said}" in done.stdout
    done = netobs(lab, far.ns, "--conf", str(conf))
    assert done.returncode == 1
    assert said in done.stderr
