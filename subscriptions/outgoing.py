"""Calls to addresses that others gave us: where they may go.

An endpoint is checked when a Subscription is stored and again at each connection; the connection then goes
to the very address that was checked, so a name that changes its mind between the two gains nothing.
"""

import ipaddress
import re
import socket
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from urllib.parse import urlsplit

MAX_URL = 2048
RESERVED_HEADERS = frozenset({
    "host", "content-length", "transfer-encoding", "content-type", "connection", "keep-alive", "te",
    "trailer", "upgrade", "expect", "proxy-authorization", "proxy-connection",
})  # fmt: skip
# Public by number, yet the inside of a cloud: the Azure host agent. The others' (169.254.169.254 and the like)
# are link-local or shared address space, which no address that is_global has.
NEVER = frozenset({ipaddress.ip_address("168.63.129.16")})
TUNNELS = tuple(ipaddress.ip_network(net) for net in ("64:ff9b::/96", "64:ff9b:1::/48", "2002::/16", "2001::/32"))

_TOKEN = re.compile(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]{1,128}")
_HOST = re.compile(r"[A-Za-z0-9._-]{1,253}|\[[0-9A-Fa-f:.]{2,45}\]")
_FORBIDDEN = re.compile(r"[\x00-\x20\x7f-\U0010ffff\\]")
_HEADER_VALUE = re.compile(r"[\t\x20-\x7e\x80-\xff]{0,4096}")

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
Network = ipaddress.IPv4Network | ipaddress.IPv6Network
Resolve = Callable[[str, int], list[str]]


class OutgoingRefused(Exception):
    """Our own rules forbid the call; the text names the rule and may be told to who asked for the call."""


class EndpointUnavailable(Exception):
    """No usable answer: not resolved, not connected, too slow, or no HTTP. Trying again later may help."""


@dataclass(frozen=True, slots=True)
class Target:
    """A checked endpoint: `addresses` are those its host had when it was checked."""

    scheme: str
    host: str
    port: int
    path: str
    addresses: tuple[str, ...]


def resolve(host: str, port: int) -> list[str]:
    """The addresses of a host. Raises EndpointUnavailable when it has none."""
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError):
        raise EndpointUnavailable("the host name is not known") from None
    return list(dict.fromkeys(str(entry[4][0]) for entry in found))


class Outgoing:
    """Says which endpoints may be called. allow: hosts, addresses or networks that may be reached although private,
    and by http."""

    def __init__(self, allow: Iterable[str] = (), resolve: Resolve = resolve) -> None:
        self._resolve = resolve
        self._hosts: set[str] = set()
        self._networks: list[Network] = []
        for entry in allow:
            try:
                self._networks.append(ipaddress.ip_network(entry.strip(), strict=False))
            except ValueError:
                self._hosts.add(entry.strip().lower())

    def check(self, url: str) -> Target:
        """The target of an http(s) address. Raises OutgoingRefused, or EndpointUnavailable for an unknown host."""
        scheme, host, port, path = parse(url)
        addresses = self._resolve(host, port)
        allowed = [self._allowed(host, text) for text in addresses]
        if scheme == "http" and not (allowed and all(allowed)):
            raise OutgoingRefused("only https is allowed, http just to hosts this server's operator has listed")
        for text, listed in zip(addresses, allowed, strict=True):
            if not listed and not is_public(text):
                raise OutgoingRefused("the host is not a public one")
        if not addresses:
            raise EndpointUnavailable("the host name is not known")
        return Target(scheme, host, port, path, tuple(addresses))

    def _allowed(self, host: str, address: str) -> bool:
        if host.lower() in self._hosts:
            return True
        parsed = _parsed(address)
        return any(parsed.version == net.version and parsed in net for net in self._networks)


def parse(url: str) -> tuple[str, str, int, str]:
    """Scheme, host, port and path with query of an http(s) address. Raises OutgoingRefused."""
    if len(url) > MAX_URL or _FORBIDDEN.search(url):
        raise OutgoingRefused("the address has characters that are not allowed, or is too long")
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        raise OutgoingRefused("this is no address") from None
    if parts.scheme not in ("http", "https"):
        raise OutgoingRefused("the address must begin with https://")
    if "@" in parts.netloc:
        raise OutgoingRefused("the address must not carry a user name or password; use a header")
    host = parts.hostname or ""
    if not _HOST.fullmatch(f"[{host}]" if ":" in host else host) or port == 0:
        raise OutgoingRefused("the address names no host")
    path = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    return parts.scheme, host, port or (443 if parts.scheme == "https" else 80), path


def below(url: str, path: str) -> str:
    """`https://a/b?c` and `Task/1` -> `https://a/b/Task/1?c`"""
    base, mark, query = url.partition("?")
    return f"{base.rstrip('/')}/{path}{mark}{query}"


def is_public(text: str) -> bool:
    """Whether an address is one of the public internet, and no way around to one that is not."""
    address = _parsed(text)
    if address in NEVER or not address.is_global or address.is_multicast or address.is_reserved:
        return False
    return not any(address.version == net.version and address in net for net in TUNNELS)


def check_header(line: str) -> tuple[str, str]:
    """Name and value of a `Name: value` line. Raises OutgoingRefused for what could change the request itself."""
    name, colon, value = line.partition(":")
    value = value.strip(" \t")
    if not colon or not _TOKEN.fullmatch(name):
        raise OutgoingRefused("a header reads `Name: value`")
    if name.lower() in RESERVED_HEADERS:
        raise OutgoingRefused(f"the header {name} is set by this server alone")
    if not _HEADER_VALUE.fullmatch(value):
        raise OutgoingRefused("a header's value must be one line of at most 4096 characters")
    return name, value


def _parsed(text: str) -> Address:
    address = ipaddress.ip_address(text.partition("%")[0])
    mapped = getattr(address, "ipv4_mapped", None)
    return mapped if mapped is not None else address
