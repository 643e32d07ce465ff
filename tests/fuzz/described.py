"""Requests that schemathesis makes of the OpenAPI description: what it allows, and what it does not."""

from typing import Any
from urllib.parse import urlsplit

import requests
import schemathesis.openapi
from hypothesis import strategies as st
from schemathesis.generation import GenerationMode

ORIGIN = "http://127.0.0.1:8080"
# Of each kind of address that every type has, those of a few types.
SOME = {"Patient", "Binary", "Observation", "Subscription", "ValueSet", "any type", "bulk data"}


def described(description: dict) -> st.SearchStrategy[dict]:
    """Requests as `werkzeug` opens them."""
    schema = schemathesis.openapi.from_dict(description)
    schema.config.generation.update(modes=[GenerationMode.POSITIVE, GenerationMode.NEGATIVE])
    operations = [found.ok() for found in schema.get_all_operations()]
    chosen = [one for one in operations if SOME.intersection(one.tags or ["any type"])]
    return st.sampled_from(chosen).flatmap(_cases)


def _cases(operation: Any) -> st.SearchStrategy[dict]:
    return st.one_of([operation.as_strategy(generation_mode=mode).map(_opened) for mode in GenerationMode])


def _opened(case: Any) -> dict:
    prepared = requests.Request(**case.as_transport_kwargs(base_url=f"{ORIGIN}/fhir")).prepare()
    address = urlsplit(prepared.url)
    headers = dict(prepared.headers)
    return {
        "method": prepared.method,
        "path": address.path,
        "query_string": address.query,
        "headers": headers,
        "content_type": headers.pop("Content-Type", None),
        "data": prepared.body,
    }
