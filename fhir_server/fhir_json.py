"""FHIR JSON in and out, decimals kept digit for digit. https://hl7.org/fhir/R4/json.html

FHIR gives `1.10` a meaning of its own, so a decimal never becomes a float on the way to the store.
"""

import json
from decimal import Decimal
from typing import Any

import orjson

from fhir_server.errors import BadRequest


class Number(Decimal):
    """A decimal that remembers how it was written; a Decimal alone makes `1E-8` of `0.00000001`."""

    __slots__ = ("text",)
    text: str

    def __new__(cls, text: str) -> "Number":
        number = super().__new__(cls, text)
        number.text = text
        return number


def loads(data: bytes | str) -> Any:
    """Parse JSON; numbers with a point or an exponent become Number. Raises BadRequest on anything else."""
    try:
        return json.loads(data, parse_float=Number, parse_constant=_refuse_constant)
    except RecursionError:
        raise BadRequest("the JSON is nested too deeply") from None
    except (ValueError, ArithmeticError) as error:
        raise BadRequest(f"this is no valid JSON: {error}") from None


def dumps(value: Any, *, pretty: bool = False) -> bytes:
    """Serialize compactly, or indented. Raises BadRequest for what JSON in UTF-8 cannot carry (lone surrogates, huge
    integers)."""
    try:
        return orjson.dumps(value, default=_fragment, option=orjson.OPT_INDENT_2 if pretty else None)
    except (TypeError, RecursionError) as error:
        raise BadRequest(f"this cannot be written as JSON: {error}") from None


def _fragment(value: object) -> Any:
    if isinstance(value, Number):
        return orjson.Fragment(value.text.encode())
    if isinstance(value, Decimal):
        return orjson.Fragment(str(value).encode())
    raise TypeError(f"{type(value).__name__} is no JSON type")


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is no JSON number")
