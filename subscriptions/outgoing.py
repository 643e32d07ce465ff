"""Calls to addresses that others gave us: where they may go, and what they may cost.

An endpoint is checked when a Subscription is stored and again at each connection; the connection then goes
to the very address that was checked, so a name that changes its mind between the two gains nothing.
"""

import functools
import http.client
import io
import ipaddress
import re
import socket
import ssl
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

MAX_URL = 2048
MAX_HEAD = 16 * 1024  # status line and headers of an answer, in bytes
MAX_ANSWER = 4 * 1024  # of an answer's body; the rest is not read
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


@dataclass(frozen=True, slots=True)
class Answer:
    """What an endpoint answered; `body` is at most MAX_ANSWER bytes, for a diagnostic, never stored."""

    status: int
    body: bytes

    @property
    def accepted(self) -> bool:
        return 200 <= self.status < 300


def resolve(host: str, port: int) -> list[str]:
    """The addresses of a host. Raises EndpointUnavailable when it has none."""
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError):
        raise EndpointUnavailable("the host name is not known") from None
    return list(dict.fromkeys(str(entry[4][0]) for entry in found))


class Outgoing:
    """Calls endpoints. allow: hosts, addresses or networks that may be reached although private, and by http."""

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

    def post(self, url: str, body: bytes, headers: Iterable[tuple[str, str]], timeout_s: float) -> Answer:
        """POST and return the answer. Raises OutgoingRefused, EndpointUnavailable."""
        return self.call("POST", url, body, headers, timeout_s)

    def call(
        self, method: str, url: str, body: bytes, headers: Iterable[tuple[str, str]], timeout_s: float
    ) -> Answer:
        """Call and return the answer, whatever its status; redirects are answers like any other.

        timeout_s: for all of it, from resolving to the last byte read.
        Raises OutgoingRefused, EndpointUnavailable.
        """
        deadline = time.monotonic() + timeout_s
        target = self.check(url)
        connection = http.client.HTTPConnection(target.host, target.port)
        connection.default_port = 443 if target.scheme == "https" else 80  # else Host would name the port
        link: _DeadlineSocket | None = None
        try:
            connection.sock = link = _connect(target, deadline)
            connection.putrequest(method, target.path, skip_accept_encoding=True)
            for name, value in headers:
                connection.putheader(name, value.encode("latin-1"))
            connection.putheader("Content-Length", str(len(body)))
            connection.putheader("Connection", "close")
            connection.endheaders(body)
            response = connection.getresponse()
            return Answer(response.status, _read(response))
        except (OSError, http.client.HTTPException, ValueError) as error:
            raise EndpointUnavailable(_reason(error)) from None
        finally:
            connection.close()
            if link is not None:
                link.hang_up()

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


def _connect(target: Target, deadline: float) -> "_DeadlineSocket":
    trouble: OSError | None = None
    for address in target.addresses:
        try:
            plain = socket.create_connection((address, target.port), timeout=_left(deadline))
        except OSError as error:
            trouble = error
            continue
        try:
            plain.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            if target.scheme == "https":
                plain.settimeout(_left(deadline))
                return _DeadlineSocket(_tls().wrap_socket(plain, server_hostname=target.host), deadline)
            return _DeadlineSocket(plain, deadline)
        except BaseException:
            plain.close()
            raise
    raise trouble or OSError("no address")


@functools.cache
def _tls() -> ssl.SSLContext:
    context = ssl.create_default_context()
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    return context


def _left(deadline: float) -> float:
    left = deadline - time.monotonic()
    if left <= 0:
        raise TimeoutError("timed out")
    return left


def _read(response: http.client.HTTPResponse) -> bytes:
    try:
        return response.read(MAX_ANSWER)
    except (OSError, http.client.HTTPException):
        return b""  # the status line has said it all


def _reason(error: Exception) -> str:
    """Why an endpoint is unavailable, in words that carry nothing of its answer."""
    if isinstance(error, TimeoutError):
        return "no answer in time"
    if isinstance(error, ssl.SSLError):
        return "its TLS certificate or connection was not accepted"
    if isinstance(error, ConnectionRefusedError):
        return "the connection was refused"
    if isinstance(error, OSError):
        return "the connection failed"
    return "its answer is no HTTP"


class _DeadlineSocket:
    """A socket whose operations end together at one moment, so that an answer in drops cannot hold a thread."""

    def __init__(self, plain: socket.socket, deadline: float) -> None:
        self._socket = plain
        self._deadline = deadline

    def sendall(self, data: Any) -> None:
        self._socket.settimeout(_left(self._deadline))
        self._socket.sendall(data)

    def makefile(self, _mode: str = "rb", *_args: Any, **_kwargs: Any) -> io.BufferedReader:
        return io.BufferedReader(_DeadlineReader(self._socket, self._deadline), 2048)

    def close(self) -> None:
        """Nothing: http.client closes before the answer's body is read; `hang_up` is the real end."""

    def hang_up(self) -> None:
        self._socket.close()


class _DeadlineReader(io.RawIOBase):
    def __init__(self, plain: socket.socket, deadline: float) -> None:
        self._socket = plain
        self._deadline = deadline
        self._budget = MAX_HEAD + MAX_ANSWER

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        if self._budget <= 0:
            raise OSError("the answer is too large")
        self._socket.settimeout(_left(self._deadline))
        count = self._socket.recv_into(memoryview(buffer)[: self._budget])
        self._budget -= count
        return count
