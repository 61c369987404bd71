"""Who may connect."""

from __future__ import annotations

from ipaddress import ip_address, ip_network

import pytest

from netobs.pcap.server.peer import address_of, endpoint_of, is_allowed


@pytest.mark.parametrize(
    ("host", "prefixes", "allowed"),
    [
        ("192.0.2.7", (), True),
        ("192.0.2.7", ("192.0.2.0/24",), True),
        ("192.0.3.7", ("192.0.2.0/24",), False),
        ("192.0.3.7", ("192.0.2.0/24", "192.0.3.7/32"), True),
        ("::ffff:192.0.2.7", ("192.0.2.0/24",), True),  # of a dual-stack socket
        ("::ffff:192.0.3.7", ("192.0.2.0/24",), False),
        ("2001:db8::1", ("192.0.2.0/24",), False),
        ("2001:db8::1", ("2001:db8::/32",), True),
        ("fe80::1%eth0", ("fe80::/10",), True),
    ],
)
def test_who_may_connect(host: str, prefixes: tuple[str, ...], allowed: bool) -> None:
    assert is_allowed(address_of(host), [ip_network(prefix) for prefix in prefixes]) is allowed


def test_a_mapped_address_is_an_ipv4_address() -> None:
    assert address_of("::ffff:192.0.2.7") == ip_address("192.0.2.7")
    assert str(endpoint_of(("::ffff:192.0.2.7", 5000, 0, 0))) == "192.0.2.7:5000"
    assert str(endpoint_of(("2001:db8::1", 5000, 0, 0))) == "[2001:db8::1]:5000"
