"""Calls to the other servers: bounded in time and size, no redirects, no .netrc, errors without addresses."""

import time
from collections.abc import Mapping
from typing import Any

import requests

from fhir_server import fhir_json
from fhir_server.errors import BadRequest

MAX_BYTES = 2 * 1024 * 1024
TIMEOUT_S = (3.05, 10)  # to connect, to read
_DEADLINE_S = 20.0


class NoAnswer(Exception):
    """The other server gave no answer that can be used. The text is ours and names no address."""


def get_json(url: str, headers: Mapping[str, str] | None = None) -> Any:
    """The JSON at an address. Raises NoAnswer."""
    return _call("GET", url, {"Accept": "application/fhir+json, application/json", **(headers or {})}, None)


def post_form(url: str, form: Mapping[str, str], headers: Mapping[str, str] | None = None) -> Any:
    """The JSON that answers a form. Raises NoAnswer."""
    return _call("POST", url, {"Accept": "application/json", **(headers or {})}, form)


def _call(method: str, url: str, headers: dict[str, str], form: Mapping[str, str] | None) -> Any:
    deadline = time.monotonic() + _DEADLINE_S
    try:
        with requests.request(
            method,
            url,
            data=form,
            headers=headers,
            timeout=TIMEOUT_S,
            stream=True,
            allow_redirects=False,
            auth=lambda request: request,
        ) as answer:
            if answer.status_code != 200:
                raise NoAnswer(f"it answers {answer.status_code}")
            body = b""
            for chunk in answer.iter_content(16_384):
                body += chunk
                if len(body) > MAX_BYTES or time.monotonic() > deadline:
                    raise NoAnswer("its answer is too large or too slow")
    except (requests.RequestException, UnicodeError) as error:
        raise NoAnswer(f"it cannot be reached: {type(error).__name__}") from None
    try:
        return fhir_json.loads(body)
    except BadRequest:
        raise NoAnswer("its answer is no JSON") from None
