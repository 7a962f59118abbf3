"""The address of a client: the peer of its connection, or the address given by a trusted proxy. Pure functions."""

from collections.abc import Mapping, Sequence
from functools import lru_cache
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address
from typing import Any

Address = IPv4Address | IPv6Address
Network = IPv4Network | IPv6Network


def client_address(meta: Mapping[str, Any], trusted_proxies: Sequence[Network]) -> Address | None:
    """Return the address of the client behind a request; None for a Unix socket.

    meta: HttpRequest.META. X-Forwarded-For counts only if the peer is a trusted proxy. It is read from the right up to
    the first address that is not a trusted proxy, since the client may have written everything to the left of it.
    """
    address = read_address(meta.get("REMOTE_ADDR", ""))
    for text in reversed(_forwarded_for(meta)):
        if address is not None and not is_in(address, trusted_proxies):
            break
        if (before := read_address(text)) is None:
            break
        address = before
    return address


def is_from_trusted_proxy(meta: Mapping[str, Any], trusted_proxies: Sequence[Network]) -> bool:
    """Tell whether the peer of a request is a trusted proxy, as every Unix socket is."""
    peer = str(meta.get("REMOTE_ADDR", ""))
    address = read_address(peer)
    return not peer or (address is not None and is_in(address, trusted_proxies))


def is_from_private_network(meta: Mapping[str, Any]) -> bool:
    """Tell whether the peer and all forwarded addresses are loopback or private.

    A malformed address is not private. A Unix socket is.
    """
    peer = str(meta.get("REMOTE_ADDR", ""))
    found = [read_address(text) for text in ([peer] if peer else []) + _forwarded_for(meta)]
    return all(address is not None and is_private(address) for address in found)


@lru_cache(maxsize=4096)
def is_private(address: Address) -> bool:
    """Tell whether an address is loopback, link-local or in a private network (RFC 1918, RFC 4193)."""
    return any(address in network for network in _PRIVATE[address.version])


def is_in(address: Address, networks: Sequence[Network]) -> bool:
    """Tell whether one of the networks contains the address."""
    return any(address in network for network in networks)


# The standard library's `is_private` also includes ranges for documentation and tests.
_PRIVATE: dict[int, list[Network]] = {
    4: [
        IPv4Network(text) for text in ("127.0.0.0/8", "10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "169.254.0.0/16")
    ],
    6: [IPv6Network(text) for text in ("::1/128", "fc00::/7", "fe80::/10")],
}


def _forwarded_for(meta: Mapping[str, Any]) -> list[str]:
    return [text for text in str(meta.get("HTTP_X_FORWARDED_FOR", "")).split(",") if text.strip()]


@lru_cache(maxsize=4096)
def read_address(text: str) -> Address | None:
    """Return the address in `text`, which may have brackets or a port; None if there is none."""
    text = text.strip()
    if text.startswith("["):
        text = text[1:].partition("]")[0]
    elif text.count(":") == 1:
        text = text.partition(":")[0]
    try:
        address = ip_address(text.partition("%")[0])
    except ValueError:
        return None
    return getattr(address, "ipv4_mapped", None) or address
