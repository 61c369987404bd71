"""From names to addresses."""

from __future__ import annotations

import socket

import pytest

from netobs.base.errors import ExportError
from netobs.export import resolve
from netobs.export.link.address import is_numeric
from tests.unit.export.support import tcp_config, udp_config


def test_addresses_resolve_to_themselves() -> None:
    (four,) = resolve(udp_config(4739, host="192.0.2.7"))
    assert (four.family, four.sockaddr, str(four)) == (socket.AF_INET, ("192.0.2.7", 4739), "192.0.2.7:4739")
    (six,) = resolve(tcp_config(4739, host="2001:db8::7"))
    assert (six.family, six.sockaddr[:2]) == (socket.AF_INET6, ("2001:db8::7", 4739))
    assert str(six) == "[2001:db8::7]:4739"


def test_names_resolve_to_all_their_addresses_once() -> None:
    found = resolve(udp_config(4739, host="localhost"))
    assert len(found) == len(set(found)) >= 1
    assert {address.sockaddr[0] for address in found} <= {"127.0.0.1", "::1"}


def test_name_without_address_is_an_error_that_names_the_collector() -> None:
    with pytest.raises(ExportError, match=r'collector "main": host "no-such-host\.invalid" has no address') as caught:
        resolve(udp_config(4739, host="no-such-host.invalid"))
    assert "\n" not in str(caught.value)
    assert caught.value.hint
    with pytest.raises(ExportError, match="has no address"):
        resolve(udp_config(4739, host="a" * 70 + ".example"))


def test_source_must_be_an_address_of_the_same_family() -> None:
    with pytest.raises(ExportError, match='no address of the family of source "::1"'):
        resolve(udp_config(4739, host="192.0.2.7", source="::1"))
    with pytest.raises(ExportError, match='source "eth0"'):
        resolve(udp_config(4739, host="192.0.2.7", source="eth0"))
    assert resolve(udp_config(4739, host="192.0.2.7", source="127.0.0.1"))


def test_is_numeric() -> None:
    assert is_numeric("192.0.2.1")
    assert is_numeric("2001:db8::1")
    assert not is_numeric("collector.example")
    assert not is_numeric("a" * 70 + ".example")
