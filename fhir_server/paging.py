"""What the links between pages carry: where a page goes on, sealed. https://hl7.org/fhir/R4/http.html#paging

A link has the query as it was asked, and in `_page` a token that only this server can read and make: positions have
values of patients in them. No page is kept on the server, so any process can follow a link, for a day; what the
caller may see is looked up anew on each page.
"""

import json
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta
from hashlib import sha256
from urllib.parse import urlencode

from cryptography.fernet import Fernet, InvalidToken

from fhir_server.access import Access
from fhir_server.errors import BadRequest, Gone, Issue

PARAMETER = "_page"
LIFETIME = timedelta(days=1)
MAX_TOKEN = 4000  # characters
_NOT_BOUND = (PARAMETER, "_format", "_pretty", "_explain")

Query = Iterable[tuple[str, str]]


@dataclass(frozen=True, slots=True)
class Mark:
    """Where a page begins. position: of the entry before it; backward: of the entry after it, the page precedes it.

    total: as the first page gave it, to the callers that see the same as `audience` says.
    """

    position: str
    backward: bool = False
    total: int | None = None
    audience: str = ""


class Seal:
    """Makes and reads the tokens; those of one address and query do for no other."""

    def __init__(self, key: Callable[[], bytes], clock: Callable[[], datetime]) -> None:
        """key: gives the key that all processes of the server share, when it is first needed."""
        self._key = key
        self._clock = clock
        self._made: Fernet | None = None

    def link(self, address: str, query: Query, mark: Mark) -> str:
        """The query of the page that the mark begins. address: what is read, such as `Task` or `Task/1/_history`."""
        kept = [pair for pair in query if pair[0] != PARAMETER]
        content = [_bound(address, kept), mark.position, mark.backward, mark.total, mark.audience]
        token = self._fernet().encrypt_at_time(json.dumps(content).encode(), int(self._clock().timestamp()))
        return urlencode([*kept, (PARAMETER, token.decode())])

    def open(self, address: str, query: Query, token: str) -> Mark:
        """The mark of a link. Raises Gone when its day is over, BadRequest unless it was made for this query."""
        if len(token) > MAX_TOKEN or not token.isascii():
            raise _altered()
        try:
            made = self._fernet().extract_timestamp(token)
            bound, *content = json.loads(self._fernet().decrypt(token))
        except InvalidToken:
            raise _altered() from None
        if self._clock().timestamp() - made > LIFETIME.total_seconds():
            text = f"a link to a page is good for {LIFETIME.days * 24} hours; begin again with the first page"
            raise Gone(text, issues=[Issue("expired", text)])
        if bound != _bound(address, query):
            raise BadRequest(f"{PARAMETER} belongs to another query; follow the links of a page as they are")
        return Mark(*content)

    def _fernet(self) -> Fernet:
        if self._made is None:
            self._made = Fernet(self._key())
        return self._made


def audience_of(access: Access, resource_type: str) -> str:
    """A short name for what a caller sees of a type: callers with the same name see the same."""
    sees = " & ".join(" ".join(sorted(keys)) for keys in access.sights) or "*"
    scopes = " ".join(sorted(map(str, access.scopes)))
    return sha256(f"{resource_type} {sees} {scopes}".encode()).hexdigest()[:32]


def _bound(address: str, query: Query) -> str:
    pairs = sorted(pair for pair in query if pair[0] not in _NOT_BOUND)
    return sha256(f"{address}?{urlencode(pairs)}".encode()).hexdigest()[:32]


def _altered() -> BadRequest:
    return BadRequest(f"{PARAMETER} is not as this server made it; follow the links of a page as they are")
