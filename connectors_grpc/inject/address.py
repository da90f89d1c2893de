"""Which IP addresses a credential may be sent to. Pure: it gets addresses that were resolved already, and never resolves.

An own, explicit list (the registries' special-purpose blocks): `ipaddress.is_private` is False in Python 3.11 for 100.64/10,
NAT64, 6to4 and multicast (attack 11). The caller dials the very address that was checked here, not the name again (attack 12).
Literals such as `127.1` or `2130706433` are names to this module: resolve them, then ask.
"""

from __future__ import annotations

from collections.abc import Iterable
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address

Address = IPv4Address | IPv6Address

_REFUSED_4 = tuple(
    IPv4Network(block)
    for block in (
        "0.0.0.0/8",  # "this network"; 0.0.0.0 reaches loopback on Linux
        "10.0.0.0/8",
        "100.64.0.0/10",  # carrier-grade NAT
        "127.0.0.0/8",
        "169.254.0.0/16",  # link-local, cloud metadata
        "172.16.0.0/12",
        "192.0.0.0/24",  # IETF protocol assignments
        "192.0.2.0/24",
        "192.31.196.0/24",  # AS112
        "192.52.193.0/24",  # AMT
        "192.88.99.0/24",  # 6to4 relays
        "192.168.0.0/16",
        "192.175.48.0/24",  # AS112
        "198.18.0.0/15",  # benchmarks
        "198.51.100.0/24",
        "203.0.113.0/24",
        "224.0.0.0/4",  # multicast
        "240.0.0.0/4",  # reserved, broadcast
    )
)
_GLOBAL_6 = IPv6Network("2000::/3")
"""All of global unicast. ::1, ::, ::ffff:0:0/96, 64:ff9b::/96, fc00::/7, fe80::/10, fec0::/10 and ff00::/8 lie outside."""
_REFUSED_6 = tuple(
    IPv6Network(block)
    for block in (
        "2001::/23",  # IETF protocol assignments, Teredo and ORCHID among them
        "2001:db8::/32",
        "2002::/16",  # 6to4: carries any IPv4 address
        "2620:4f:8000::/48",  # AS112
        "3fff::/20",  # documentation
    )
)
_PRIVATE = tuple(
    IPv4Network(block) for block in ("10.0.0.0/8", "100.64.0.0/10", "127.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16")
)
_PRIVATE_6 = (IPv6Network("::1/128"), IPv6Network("fc00::/7"))
"""What `private=True` opens: loopback and private networks, never link-local (cloud metadata), multicast or tunnels."""


def allowed_address(ip: str | Address, *, private: bool = False) -> bool:
    """Whether a credential may be sent to this address; False for anything that is not an address.

    `private` also opens loopback, RFC 1918, 100.64/10 and fc00::/7, for definitions that say so.
    Source: IANA IPv4 and IPv6 Special-Purpose Address Registries; attack 11.
    """
    if isinstance(ip, str):
        try:
            ip = ip_address(ip)
        except ValueError:
            return False
    if isinstance(ip, IPv6Address) and ip.ipv4_mapped is not None:
        if not private:
            return False  # no resolver gives these but to slip past a list
        ip = ip.ipv4_mapped
    if isinstance(ip, IPv4Address):
        if private and any(ip in block for block in _PRIVATE):
            return True
        return not any(ip in block for block in _REFUSED_4)
    if private and any(ip in block for block in _PRIVATE_6):
        return True
    return ip in _GLOBAL_6 and not any(ip in block for block in _REFUSED_6)


def allowed_addresses(resolved: Iterable[str], *, private: bool = False) -> list[str]:
    """The resolved addresses that may be dialled, in order and without doubles; empty if even one of them may not.

    All or none: a name with both a public and a private address is a rebinding attempt, not a mistake.
    """
    addresses = list(dict.fromkeys(resolved))
    return addresses if all(allowed_address(ip, private=private) for ip in addresses) else []
