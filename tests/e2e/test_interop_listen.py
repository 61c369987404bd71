"""``netobs listen``, which all other collectors are compared with: each element is what was sent."""

from __future__ import annotations

from typing import Any

import pytest

from tests.e2e.conversations import source_of
from tests.e2e.exchange import REFERENCE, Exchange
from tests.e2e.interop import (
    TIME_TOLERANCE_NS,
    Columns,
    Shows,
    differences,
    element,
    elements,
    moment,
    not_compared,
    totals,
)

pytestmark = pytest.mark.e2e(tools=("make", "tcpdump"))

MS_NS = 1_000_000
TIMES = ("flowStartMilliseconds", "flowEndMilliseconds")
DURATION = "flowDurationMilliseconds"


def duration_ns(milliseconds: Any) -> int:
    return int(milliseconds * MS_NS)


COLUMNS: Columns = {
    **{name: element(name) for name in elements("ipfix", "full")},
    **{name: moment(name, int) for name in TIMES},
    DURATION: Shows(DURATION, lambda flow: duration_ns(flow[DURATION]), duration_ns, 2 * TIME_TOLERANCE_NS),
}


KEYS = (
    *("sourceIPv4Address", "destinationIPv4Address", "sourceIPv6Address", "destinationIPv6Address"),
    *("sourceTransportPort", "destinationTransportPort", "protocolIdentifier", "icmpTypeCodeIPv4", "icmpTypeCodeIPv6"),
    *("ingressInterface", "egressInterface", "flowDirection", "ethernetType", "ipVersion", "vlanId", "postVlanId"),
    *("dot1qVlanId", "dot1qPriority", "sourceMacAddress", "destinationMacAddress", "interfaceName"),
)
"""What does not depend on the packets that are taken."""


def test_every_field(exchange: Exchange) -> None:
    account = exchange.account
    assert account.is_balanced(REFERENCE)
    assert account.not_sent == {}
    assert totals(exchange.flows) == account.sent[REFERENCE]
    assert not_compared(elements("ipfix", "full"), COLUMNS) == set()
    if exchange.sampling == 1:
        assert account.ledger == {}
        shown = [(source_of(flow), flow) for flow in exchange.flows]
        assert differences(exchange.sent, shown, COLUMNS) == []
    else:
        assert set(account.ledger) == {"not_sampled"}
        shown = [(source_of(flow), {name: flow[name] for name in KEYS if name in flow}) for flow in exchange.flows]
        assert differences(exchange.sent, shown, {name: element(name) for name in KEYS}) == []
