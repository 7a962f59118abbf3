"""The client address of a request, with and without proxies in front."""

from ipaddress import ip_network

import pytest

from proxy.client.address import client_address, is_from_private_network

LOOPBACK = [ip_network("127.0.0.0/8"), ip_network("::1/128")]


def meta(peer: str, forwarded_for: str = "") -> dict[str, str]:
    return {"REMOTE_ADDR": peer, "HTTP_X_FORWARDED_FOR": forwarded_for}


@pytest.mark.parametrize(
    ("peer", "forwarded_for", "expected"),
    [
        ("203.0.113.9", "", "203.0.113.9"),
        ("203.0.113.9", "10.0.0.1", "203.0.113.9"),  # a stranger's word counts for nothing
        ("127.0.0.1", "203.0.113.9", "203.0.113.9"),
        ("127.0.0.1", "10.0.0.1, 203.0.113.9", "203.0.113.9"),  # the client wrote the first one
        ("127.0.0.1", "203.0.113.9, 127.0.0.2", "203.0.113.9"),
        ("127.0.0.1", "203.0.113.9:1234", "203.0.113.9"),
        ("::1", "[2001:db8::1]:443", "2001:db8::1"),
        ("127.0.0.1", "unknown", "127.0.0.1"),
        ("::ffff:203.0.113.9", "", "203.0.113.9"),
        ("", "203.0.113.9", "203.0.113.9"),
    ],
)
def test_a_forwarded_address_counts_only_behind_a_trusted_proxy(peer: str, forwarded_for: str, expected: str) -> None:
    assert str(client_address(meta(peer, forwarded_for), LOOPBACK)) == expected


def test_a_unix_socket_has_no_address() -> None:
    assert client_address(meta(""), LOOPBACK) is None


@pytest.mark.parametrize(
    ("peer", "forwarded_for", "expected"),
    [
        ("127.0.0.1", "", True),
        ("192.168.1.7", "", True),
        ("172.17.0.1", "", True),
        ("fe80::1%eth0", "", True),
        ("", "", True),
        ("203.0.113.9", "", False),
        ("172.32.0.1", "", False),
        ("127.0.0.1", "203.0.113.9", False),
        ("127.0.0.1", "10.0.0.7, 203.0.113.9", False),
        ("127.0.0.1", "10.0.0.7, 192.168.0.2", True),
        ("127.0.0.1", "unknown", False),
        ("203.0.113.9", "127.0.0.1", False),
    ],
)
def test_a_request_is_private_only_if_every_hop_is(peer: str, forwarded_for: str, expected: bool) -> None:
    assert is_from_private_network(meta(peer, forwarded_for)) is expected
