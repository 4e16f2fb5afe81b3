"""Where an upstream may be: public addresses over https, and what the operator has allowed besides.

Whoever may edit a provider must not be able to point the gateway at the metadata service of its cloud, or at a
database next door. So a base URL is judged when it is written and again when the catalogue is loaded, and every
address is judged when a connection to it is made: a name can mean another address by then.
"""

import ipaddress
import socket
from collections.abc import Sequence
from functools import lru_cache
from urllib.parse import urlsplit

from django.conf import settings

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
Network = ipaddress.IPv4Network | ipaddress.IPv6Network

_NAT64 = ipaddress.IPv6Network("64:ff9b::/96")


class UnsafeAddressError(ValueError):
    """The gateway does not connect there; the message says why, and what would allow it."""


def judge_base_url(url: str) -> None:
    """Raises UnsafeAddressError where a provider may not be at this URL, as far as the URL alone says."""
    try:
        parts = urlsplit(url)
        host, _port = parts.hostname or "", parts.port
    except ValueError:
        raise UnsafeAddressError("this is not a URL") from None
    if parts.scheme not in ("http", "https") or not host or any(char.isspace() for char in url):
        raise UnsafeAddressError("it must read https://host/path")
    if parts.username is not None or parts.query or parts.fragment or url.endswith(("?", "#")):
        raise UnsafeAddressError("it must have neither a user, nor a query, nor a fragment")
    is_plain = parts.scheme == "http"
    if is_plain and not private_networks():
        raise UnsafeAddressError(
            "plain http is only allowed to networks in UPSTREAM_PRIVATE_NETWORKS; use https"
        )
    address = _literal(host)
    if address is not None:
        judge_address(address, is_plain=is_plain)
    elif host == "localhost" or host.endswith(".localhost"):
        judge_address(ipaddress.IPv4Address("127.0.0.1"), is_plain=is_plain)


def judge_address(address: Address, *, is_plain: bool) -> None:
    """Raises UnsafeAddressError where the gateway may not connect to the address; `is_plain` means without TLS."""
    address = _meant(address)
    if any(address in network for network in private_networks()):
        return
    if is_plain:
        raise UnsafeAddressError(
            f"plain http is only allowed to networks in UPSTREAM_PRIVATE_NETWORKS, and {address} is in none of them"
        )
    is_site_local = isinstance(address, ipaddress.IPv6Address) and address.is_site_local
    if not address.is_global or address.is_multicast or address.is_reserved or is_site_local:
        raise UnsafeAddressError(
            f"{address} is not a public address; UPSTREAM_PRIVATE_NETWORKS can allow its network"
        )


def private_networks() -> tuple[Network, ...]:
    """The networks of the operator's own in which upstreams may be."""
    return parse_networks(tuple(settings.UPSTREAM_PRIVATE_NETWORKS))


@lru_cache(maxsize=8)
def parse_networks(blocks: Sequence[str]) -> tuple[Network, ...]:
    """CIDR blocks as networks. Raises ValueError where one is malformed."""
    return tuple(ipaddress.ip_network(block) for block in blocks)


def _literal(host: str) -> Address | None:
    """The address that a host is written as, in any of the forms that a resolver would take; None for a name."""
    try:
        return ipaddress.ip_address(host.partition("%")[0])
    except ValueError:
        pass
    try:
        # 127.1, 0x7f000001, 2130706433: all of them are taken for 127.0.0.1.
        return ipaddress.IPv4Address(socket.inet_aton(host))
    except OSError:
        return None


def _meant(address: Address) -> Address:
    """The IPv4 address inside an IPv6 one that only wraps it: mapped, 6to4 or NAT64."""
    if isinstance(address, ipaddress.IPv4Address):
        return address
    if address in _NAT64:
        return ipaddress.IPv4Address(int(address) & 0xFFFFFFFF)
    return address.ipv4_mapped or address.sixtofour or address
