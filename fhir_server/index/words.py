"""The words of a resource: what `_text` and `_content` find it by. https://hl7.org/fhir/R4/search.html#content

Folded as strings are; addresses, references, dates and binary content say nothing in words.
"""

import html
import re
from collections.abc import Iterator
from typing import Any

from fhir_server.index.text import fold

MAX_WORD = 40  # characters; longer runs of letters are found by their beginning
MAX_WORDS = 20_000  # of a resource; what is said beyond is not found by its words
_WORD = re.compile(r"\w+")
_TAG = re.compile(r"<[^>]*>")
_INLINE = re.compile(r"</?(?:a|abbr|b|big|code|em|i|small|span|strong|sub|sup|tt)(?:\s[^>]*)?>", re.IGNORECASE)
_SILENT = frozenset(
    """
    resourceType id meta reference url system uri data hash fullUrl contentType implicitRules language profile
    instantiatesUri instantiatesCanonical
    """.split()
)
_NO_WORDS = re.compile(r"-?\d{4}-\d\d.*|[A-Za-z][A-Za-z0-9+.\-]*:\S+", re.DOTALL)  # a date, an address


def words_of(text: str) -> list[str]:
    """`Fracture of the 5th rib` -> fracture, of, the, 5th, rib."""
    return [word[:MAX_WORD] for word in _WORD.findall(fold(text))]


def narrative_words(resource: dict) -> list[str]:
    """The words of the narrative of a resource."""
    text = resource.get("text")
    div = text.get("div") if isinstance(text, dict) else None
    return words_of(html.unescape(_TAG.sub(" ", _INLINE.sub("", div)))) if isinstance(div, str) else []


def content_words(resource: dict) -> Iterator[str]:
    """The words of all that a resource says, its narrative aside."""
    waiting: list[Any] = [value for name, value in resource.items() if name not in _SILENT and name != "text"]
    while waiting:
        value = waiting.pop()
        if isinstance(value, str):
            if not _NO_WORDS.fullmatch(value):
                yield from words_of(value)
        elif isinstance(value, dict):
            waiting += [part for name, part in value.items() if name not in _SILENT]
        elif isinstance(value, list):
            waiting += value
