"""Which addresses a credential may be sent to."""

from __future__ import annotations

import pytest

from connectors_grpc.inject.address import allowed_address, allowed_addresses

REFUSED = """
127.0.0.1 127.255.255.254 0.0.0.0 10.0.0.1 100.64.0.1 100.127.255.255 169.254.169.254 172.16.0.1 172.31.255.255
192.168.1.1 192.0.0.8 192.88.99.1 198.18.0.1 224.0.0.1 239.255.255.255 240.0.0.1 255.255.255.255
:: ::1 ::ffff:127.0.0.1 ::ffff:8.8.8.8 ::127.0.0.1 64:ff9b::7f00:1 64:ff9b:1::1 2002:7f00:1::1 2001::1 2001:db8::1
fc00::1 fd12::1 fe80::1 fe80::1%eth0 fec0::1 ff02::1 127.1 2130706433 0x7f000001 localhost
"""


@pytest.mark.parametrize("ip", ["", *REFUSED.split()])
def test_11_an_address_that_is_not_globally_reachable_is_refused(ip: str) -> None:
    """Every special block, every form that embeds one, and everything that is no address at all."""
    assert not allowed_address(ip)


@pytest.mark.parametrize(
    "ip", ["8.8.8.8", "100.63.255.255", "100.128.0.1", "172.32.0.1", "223.255.255.255", "2606:4700::1111"]
)
def test_a_global_address_is_allowed(ip: str) -> None:
    """The neighbours of the refused blocks pass."""
    assert allowed_address(ip)


@pytest.mark.parametrize(
    ("ip", "allowed"),
    [
        ("127.0.0.1", True),
        ("10.1.2.3", True),
        ("::1", True),
        ("fd00::1", True),
        ("::ffff:127.0.0.1", True),
        ("169.254.169.254", False),
        ("::ffff:169.254.169.254", False),
        ("224.0.0.1", False),
        ("0.0.0.0", False),
        ("fe80::1", False),
    ],
)
def test_11_private_opens_private_networks_and_no_more(ip: str, allowed: bool) -> None:
    """A definition that may reach private hosts still does not reach metadata, multicast or the unspecified address."""
    assert allowed_address(ip, private=True) is allowed


def test_12_a_name_with_one_bad_address_gives_none() -> None:
    """All or none, so that nobody picks the address by chance."""
    assert allowed_addresses(["8.8.8.8", "127.0.0.1"]) == []
    assert allowed_addresses(["8.8.8.8", "8.8.8.8", "1.1.1.1"]) == ["8.8.8.8", "1.1.1.1"]
