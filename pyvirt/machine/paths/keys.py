"""What teams of NICs hash: keys of MAC addresses and of pairs of IP addresses."""

from __future__ import annotations

import ipaddress
import re

from pyvirt.errors import InvalidValueError

__all__ = ["ip_key", "mac_key"]

_MAC = re.compile(r"[0-9a-fA-F]{2}([:-][0-9a-fA-F]{2}){5}", re.ASCII)


def mac_key(address: str) -> int:
    """Give the key of a MAC address: its last byte (a choice; VMware says only that it is hashed).

    Examples
    --------
    >>> mac_key("00:50:56:9a:00:1f")
    31
    """
    if not _MAC.fullmatch(str(address)):
        raise InvalidValueError(
            f"address must be six bytes such as '00:50:56:9a:00:1f', got {address!r:.80}"
        )
    return int(address[-2:], 16)


def ip_key(source: str, destination: str) -> int:
    """Give the key of a pair of IP addresses: their last octets, one XOR the other.

    vSphere Networking 6.7, "Route Based on IP Hash".

    Examples
    --------
    >>> ip_key("10.0.0.10", "10.0.0.20")
    30
    """
    last = []
    for name, value in (("source", source), ("destination", destination)):
        try:
            last.append(ipaddress.ip_address(value).packed[-1])
        except ValueError:
            raise InvalidValueError(f"{name} must be an IP address, got {value!r:.80}") from None
    return last[0] ^ last[1]
