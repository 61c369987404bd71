"""The registry of Information Elements against the ids, types and lengths that RFCs give, typed in here again."""

from __future__ import annotations

import pytest

from netobs.encode.columns import COLUMNS
from netobs.encode.layout import VARIABLE_LENGTH
from netobs.encode.registry import TYPES, InformationElement, abstract_type, by_id, by_name, elements

# name: id, abstract data type, octets
KNOWN = {
    "octetDeltaCount": (1, "unsigned64", 8),
    "packetDeltaCount": (2, "unsigned64", 8),
    "protocolIdentifier": (4, "unsigned8", 1),
    "ipClassOfService": (5, "unsigned8", 1),
    "tcpControlBits": (6, "unsigned16", 2),
    "sourceTransportPort": (7, "unsigned16", 2),
    "sourceIPv4Address": (8, "ipv4Address", 4),
    "ingressInterface": (10, "unsigned32", 4),
    "destinationTransportPort": (11, "unsigned16", 2),
    "destinationIPv4Address": (12, "ipv4Address", 4),
    "egressInterface": (14, "unsigned32", 4),
    "minimumIpTotalLength": (25, "unsigned64", 8),
    "maximumIpTotalLength": (26, "unsigned64", 8),
    "sourceIPv6Address": (27, "ipv6Address", 16),
    "destinationIPv6Address": (28, "ipv6Address", 16),
    "icmpTypeCodeIPv4": (32, "unsigned16", 2),
    "samplingInterval": (34, "unsigned32", 4),
    "minimumTTL": (52, "unsigned8", 1),
    "maximumTTL": (53, "unsigned8", 1),
    "sourceMacAddress": (56, "macAddress", 6),
    "vlanId": (58, "unsigned16", 2),
    "postVlanId": (59, "unsigned16", 2),
    "ipVersion": (60, "unsigned8", 1),
    "flowDirection": (61, "unsigned8", 1),
    "destinationMacAddress": (80, "macAddress", 6),
    "interfaceName": (82, "string", VARIABLE_LENGTH),
    "interfaceDescription": (83, "string", VARIABLE_LENGTH),
    "flowEndReason": (136, "unsigned8", 1),
    "observationPointId": (138, "unsigned64", 8),
    "icmpTypeCodeIPv6": (139, "unsigned16", 2),
    "flowStartSeconds": (150, "dateTimeSeconds", 4),
    "flowEndSeconds": (151, "dateTimeSeconds", 4),
    "flowStartMilliseconds": (152, "dateTimeMilliseconds", 8),
    "flowEndMilliseconds": (153, "dateTimeMilliseconds", 8),
    "flowStartMicroseconds": (154, "dateTimeMicroseconds", 8),
    "flowEndMicroseconds": (155, "dateTimeMicroseconds", 8),
    "flowStartNanoseconds": (156, "dateTimeNanoseconds", 8),
    "flowEndNanoseconds": (157, "dateTimeNanoseconds", 8),
    "flowDurationMilliseconds": (161, "unsigned32", 4),
    "icmpTypeIPv4": (176, "unsigned8", 1),
    "icmpCodeIPv4": (177, "unsigned8", 1),
    "icmpTypeIPv6": (178, "unsigned8", 1),
    "icmpCodeIPv6": (179, "unsigned8", 1),
    "ipDiffServCodePoint": (195, "unsigned8", 1),
    "ipPrecedence": (196, "unsigned8", 1),
    "mplsTopLabelStackSection": (70, "octetArray", VARIABLE_LENGTH),
    "mplsLabelStackSection2": (71, "octetArray", VARIABLE_LENGTH),
    "mplsLabelStackSection3": (72, "octetArray", VARIABLE_LENGTH),
    "flowLabelIPv6": (31, "unsigned32", 4),
    "tcpWindowSize": (186, "unsigned16", 2),
    "fragmentFlags": (197, "unsigned8", 1),
    "mplsLabelStackDepth": (202, "unsigned32", 4),
    "dot1qCustomerVlanId": (245, "unsigned16", 2),
    "dot1qCustomerPriority": (246, "unsigned8", 1),
    "layer2OctetDeltaCount": (352, "unsigned64", 8),
    "ipv6ExtensionHeadersFull": (515, "unsigned256", 32),
    "tcpOptionsFull": (520, "unsigned256", 32),
    "ingressVRFID": (234, "unsigned32", 4),
    "egressVRFID": (235, "unsigned32", 4),
    "VRFname": (236, "string", VARIABLE_LENGTH),
    "dot1qVlanId": (243, "unsigned16", 2),
    "dot1qPriority": (244, "unsigned8", 1),
    "ethernetType": (256, "unsigned16", 2),
}


def test_every_element_that_can_be_filled_is_compared() -> None:
    assert set(COLUMNS) == set(KNOWN)


@pytest.mark.parametrize("name", KNOWN)
def test_element(name: str) -> None:
    element = by_name(name)
    assert element is not None
    assert (element.id, element.type, element.octets) == KNOWN[name]
    assert by_id(element.id) is element
    assert COLUMNS[name].least_octets <= element.octets


def test_all_rows_are_read_in_order() -> None:
    ids = [element.id for element in elements()]
    assert len(ids) == 502
    assert ids == sorted(set(ids))
    assert len({element.name for element in elements()}) == len(ids)


def test_row_with_semantics_and_units() -> None:
    assert by_name("octetDeltaCount") == InformationElement(
        "octetDeltaCount", 1, "unsigned64", 8, "deltaCounter", "octets", 0
    )
    text = by_name("interfaceName")
    assert text is not None
    assert text.octets == VARIABLE_LENGTH


def test_the_newest_elements() -> None:
    # RFC 9740 and 9870 (unsigned256), RFC 9951
    for number, name in ((515, "ipv6ExtensionHeadersFull"), (520, "tcpOptionsFull"), (525, "udpSafeOptions")):
        element = by_id(number)
        assert element is not None
        assert (element.name, element.type, element.octets) == (name, "unsigned256", 32)
    delays = [by_name(f"pathDelay{what}DeltaMicroseconds") for what in ("Mean", "Min", "Max", "Sum")]
    assert [(each.id, each.octets) for each in delays if each] == [(530, 4), (531, 4), (532, 4), (533, 8)]
    assert by_id(97) is None  # assigned for NetFlow v9, without a meaning


def test_unknown_elements_are_none() -> None:
    assert by_name("octetDeltaCounter") is None
    assert by_id(0xFFFF) is None
    assert by_id(1, enterprise=32473) is None


def test_what_may_be_reduced() -> None:
    # RFC 7011, 6.2: integers of more than one octet, and float64
    reducible = {name for name, form in TYPES.items() if form.reducible}
    integers = {f"{sign}signed{bits}" for sign in ("", "un") for bits in (16, 32, 64)} | {"unsigned256"}
    assert reducible == integers | {"float64"}
    assert abstract_type("ipv4Address") == ("b", False)
