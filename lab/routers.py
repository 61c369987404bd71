"""What a collector sees of the network namespaces of routers, which flows are told apart by."""

from __future__ import annotations

from typing import Any

from lab.collectors import UdpSink
from netobs.collector.decode import Decoder

TEMPLATE = """
options = ["interfaces", "namespaces"]

[[template]]
family = "ipv4"
elements = [
    "sourceIPv4Address", "destinationIPv4Address", "sourceTransportPort", "destinationTransportPort",
    "protocolIdentifier", "ingressInterface", "ingressVRFID", "egressVRFID", "VRFname", "interfaceName",
    "octetDeltaCount", "packetDeltaCount", "flowEndReason",
]
"""


class Reader:
    """Data Records and options records of all Messages, as they arrive."""

    def __init__(self, collector: UdpSink) -> None:
        self._collector, self._decoder = collector, Decoder()
        self._flows: list[dict[str, Any]] = []
        self._names: dict[int, str] = {}

    def _read(self) -> None:
        for message in self._collector.drain():
            decoded = self._decoder.decode(message)
            self._flows += decoded.flows
            named = [record for record in decoded.options or () if "VRFname" in record]
            self._names.update({record["ingressVRFID"]: record["VRFname"] for record in named})
        stats = self._decoder.stats
        assert (stats.sets_without_template, stats.malformed) == (0, 0)

    def flows(self) -> list[dict[str, Any]]:
        """All so far."""
        self._read()
        return self._flows

    def names(self) -> dict[int, str]:
        """The name of each namespace, by number, as options records say last."""
        self._read()
        return self._names
