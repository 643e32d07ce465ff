"""FHIR JSON in and out, decimals kept digit for digit. https://hl7.org/fhir/R4/json.html

FHIR gives `1.10` a meaning of its own, so a decimal never becomes a float on the way to the store.
"""

import json
from decimal import Decimal
from typing import Any

import orjson

from fhir_server.errors import BadRequest


def loads(data: bytes | str) -> Any:
    """Parse JSON; numbers with a point or an exponent become Decimal. Raises BadRequest on anything else."""
    try:
        return json.loads(data, parse_float=Decimal, parse_constant=_refuse_constant)
    except RecursionError:
        raise BadRequest("the JSON is nested too deeply") from None
    except (ValueError, UnicodeDecodeError) as error:
        raise BadRequest(f"this is no valid JSON: {error}") from None


def dumps(value: Any) -> bytes:
    """Serialize compactly. Raises BadRequest for what JSON in UTF-8 cannot carry (lone surrogates, huge integers)."""
    try:
        return orjson.dumps(value, default=_fragment)
    except (TypeError, RecursionError) as error:
        raise BadRequest(f"this cannot be written as JSON: {error}") from None


def _fragment(value: object) -> Any:
    if isinstance(value, Decimal):
        return orjson.Fragment(str(value).encode())
    raise TypeError(f"{type(value).__name__} is no JSON type")


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is no JSON number")
