"""Read addresses, and decide which only this machine can reach."""

from __future__ import annotations

import ipaddress
import re
from urllib.parse import SplitResult

_HOST_AND_PORT = re.compile(r"(?:\[(?P<six>[0-9a-fA-F:.]+)\]|(?P<host>[^\[\]:/,\s]+)):(?P<port>[0-9]{1,5})")
_LARGEST_PORT = 65535


def host_and_port(address: str) -> tuple[str, int] | None:
    """Return host (without brackets) and port of `host:port` or `[v6]:port`; None for other text."""
    match = _HOST_AND_PORT.fullmatch(address)
    if match is None or int(match["port"]) > _LARGEST_PORT:
        return None
    return match["six"] or match["host"], int(match["port"])


def is_address(host: str) -> bool:
    """Say whether a host is an address (IPv6 without brackets), and no name that must be looked up."""
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True


def is_loopback(host: str) -> bool:
    """Say whether a host is `localhost` or a loopback address (IPv6 without brackets)."""
    return host == "localhost" or (is_address(host) and ipaddress.ip_address(host).is_loopback)


def is_secure(url: SplitResult) -> bool:
    """Say whether nobody else reads what is sent to a URL: https, or http on loopback."""
    return url.scheme == "https" or (url.scheme == "http" and is_loopback(url.hostname or ""))


def is_loopback_address(address: str) -> bool:
    """Say whether an address is a `host:port` that only this machine reaches."""
    found = host_and_port(address)
    return found is not None and is_loopback(found[0])
