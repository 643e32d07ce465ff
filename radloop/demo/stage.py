"""What every player needs: the addresses, a time line on the screen, waiting, and HTTP that insists on success."""

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, TypeVar

import requests

from fhir_server import fhir_json

T = TypeVar("T")
WAIT_S = 60  # a worker that was killed just before keeps its leases for 10 s, and begins anew on a busy machine
RETRY_S = 60  # a server that is starting again answers 503, or not at all, for a moment


class StepFailed(Exception):
    """A step of the play did not give what it should."""


@dataclass(slots=True)
class TimeLine:
    """Prints each step with the seconds since the start."""

    say: Callable[[str], None] = print
    began: float = field(default_factory=time.monotonic)

    def __call__(self, who: str, what: str) -> None:
        self.say(f"{time.monotonic() - self.began:7.2f} s  {who:<12} {what}")


def wait_for(what: str, look: Callable[[], T | None], timeout_s: float = WAIT_S) -> T:
    """The first result of `look` that is not None or False. Raises StepFailed when none comes in time."""
    deadline = time.monotonic() + timeout_s
    while time.monotonic() < deadline:
        found = look()
        if found is not None and found is not False:
            return found
        time.sleep(0.05)
    raise StepFailed(f"{what}: not within {timeout_s:.0f} s")


def patiently(call: Callable[[], T]) -> T:
    """The result of `call`, which is made again while the server is away, as any good client does.

    So what it does must be harmless to repeat. Raises StepFailed when the server does not come back.
    """
    deadline = time.monotonic() + RETRY_S
    while True:
        try:
            return call()
        except (requests.ConnectionError, requests.Timeout):
            pass  # no server there, or its answer was lost
        except requests.HTTPError as error:
            if error.response is None or error.response.status_code != 503:
                raise StepFailed(
                    f"{error}: {error.response.text[:300] if error.response is not None else ''}"
                ) from None
        if time.monotonic() > deadline:
            raise StepFailed("the server does not come back")
        time.sleep(0.3)


@dataclass(slots=True)
class Caller:
    """One authenticated party. Repeats a request while the server is away, as any good client does."""

    fhir: str
    token: Callable[[], str]
    http: requests.Session = field(default_factory=requests.Session)

    def get(self, address: str, **query: str) -> dict:
        """GET below the FHIR base (or of an absolute address); the JSON of a 200."""
        return self._call("GET", address, params=query)

    def create(self, resource: dict) -> dict:
        """POST to the resource's type; the stored resource."""
        return self._call("POST", resource["resourceType"], resource)

    def update(self, resource: dict) -> dict:
        """PUT under If-Match; the stored resource."""
        headers = {"If-Match": f'W/"{resource["meta"]["versionId"]}"'}
        return self._call("PUT", f"{resource['resourceType']}/{resource['id']}", resource, headers=headers)

    def post(self, address: str, body: dict) -> dict:
        """POST below the FHIR base (or to an absolute address); the JSON of the answer."""
        return self._call("POST", address, body)

    def find(self, resource_type: str, **query: str) -> list[dict]:
        """The matches of a search."""
        bundle = self.get(resource_type, **{name.replace("_", "-"): value for name, value in query.items()})
        return [e["resource"] for e in bundle.get("entry", []) if e.get("search", {}).get("mode") == "match"]

    def _call(self, method: str, address: str, body: dict | None = None, **options: Any) -> dict:
        url = address if address.startswith("http") else f"{self.fhir}/{address}".rstrip("/")
        headers = {"Content-Type": "application/fhir+json", "Accept": "application/fhir+json"}
        headers |= options.pop("headers", {})
        data = None if body is None else fhir_json.dumps(body)  # keeps decimals as they are

        def call() -> requests.Response:
            headers["Authorization"] = f"Bearer {self.token()}"
            answer = self.http.request(method, url, headers=headers, data=data, timeout=30, **options)
            answer.raise_for_status()
            return answer

        answer = patiently(call)
        return answer.json() if answer.content else {}
