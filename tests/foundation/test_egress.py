"""Requests to web servers go to addresses that were checked, whatever form an address or a name has."""

from __future__ import annotations

import pytest

from pdp.foundation.egress import Egress, NotAskedError, is_public


@pytest.mark.parametrize(
    ("address", "public"),
    [
        ("93.184.216.34", True),
        ("2606:2800:220:1::1", True),
        ("64:ff9b::5db8:d822", True),
        ("127.0.0.1", False),
        ("0.0.0.0", False),  # noqa: S104 - an address to be refused
        ("10.1.2.3", False),
        ("172.16.0.1", False),
        ("192.168.0.1", False),
        ("100.64.0.1", False),
        ("169.254.169.254", False),
        ("224.0.1.1", False),
        ("255.255.255.255", False),
        ("::1", False),
        ("fe80::1%eth0", False),
        ("fd00::1", False),
        ("ff02::1", False),
        ("::ffff:169.254.169.254", False),
        ("64:ff9b::a9fe:a9fe", False),
        ("2002:a9fe:a9fe::1", False),
    ],
)
def test_only_the_public_network_is_public(address: str, public: bool) -> None:  # noqa: FBT001 - a column
    """Also where an IPv6 address stands for one of IPv4."""
    assert public == is_public(address)


@pytest.mark.parametrize("host", ["10.1.2.3", "2130706433", "0x7f.1", "[::ffff:127.0.0.1]", "[fd00::1]", "10.1.2.3."])
def test_a_private_address_is_not_asked_unless_its_host_is_named(host: str) -> None:
    """Nothing is sent, however the address is written; another name that is listed does not help."""
    egress = Egress(f"http://{host}:9/x", private_hosts=frozenset({"chat.internal"}), step_seconds=0.1)

    with pytest.raises(NotAskedError, match="is at the private address"):
        egress.ask("POST", {}, lambda answer: answer.status)
