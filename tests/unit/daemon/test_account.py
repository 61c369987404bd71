"""The account: what the log says of the ledger."""

from __future__ import annotations

from netobs.base.histogram import Histogram
from netobs.daemon.account import Stats, TableStats
from netobs.datapath.ledger import Count, LedgerReading
from netobs.metering.process import Totals


def account(ledger: LedgerReading) -> list[str]:
    """The lines of a daemon without collectors."""
    return list(
        Stats(
            ledger, TableStats("ringbuf", {}, 0, 0, 0, Histogram(), Histogram()), Totals(), Totals(), 0, (0,) * 6, ()
        ).account()
    )


def test_what_is_not_ip_is_listed_by_ethertype() -> None:
    reasons = {"not_ip": Count(19, 1140), "malformed": Count(0, 0)}
    ethertypes = {0x0806: Count(12, 720), 0x88CC: Count(3, 180), 0: Count(2, 120), 0x9B00: Count(1, 60)}
    assert account(LedgerReading(Count(119, 9140), reasons, ethertypes, Count(1, 60))) == [
        "seen: 119 packets, 9140 octets",
        "not in a flow, not_ip: 19 packets, 1140 octets",
        "not IP: ARP 0x0806 12 packets, LLDP 0x88cc 3, 802.3 without EtherType 2, 0x9b00 1, other 1",
    ]


def test_nothing_is_listed_where_all_is_ip() -> None:
    assert account(LedgerReading(Count(1, 28), {"not_ip": Count(0, 0)})) == ["seen: 1 packets, 28 octets"]


def test_which_reasons_are_losses() -> None:
    names = ("not_ip", "malformed", "ext_headers", "not_sampled", "ring_full")
    reading = LedgerReading(Count(31, 31), {name: Count(1 << i, 1 << i) for i, name in enumerate(names)})
    assert reading.not_in_flows == Count(31, 31)
    assert reading.lost == Count(2 + 4 + 16, 2 + 4 + 16)
