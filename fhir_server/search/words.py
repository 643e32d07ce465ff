"""`_text` and `_content`: resources with these words. https://hl7.org/fhir/R4/search.html#content"""

from fhir_server.index import CONTENT, TEXT
from fhir_server.index.words import words_of
from fhir_server.search.terms import KEYS, Condition
from fhir_server.search.values import alternatives, bad_value, unescape

MAX_WORDS = 20  # of a value


def worded(parameter: str, value: str) -> Condition:
    """Every word of one of the values is there, wherever and in whatever order."""
    found = [_words(parameter, unescape(one)) for one in alternatives(parameter, value)]
    return found[0] if len(found) == 1 else Condition({"$or": [one.filter for one in found]}, KEYS)


def _words(parameter: str, text: str) -> Condition:
    words = list(dict.fromkeys(words_of(text)))
    if not 1 <= len(words) <= MAX_WORDS:
        raise bad_value(parameter, f"1 to {MAX_WORDS} words")
    # The words of the narrative are content too, and are not stored twice.
    places = (TEXT,) if parameter == TEXT else (TEXT, CONTENT)
    each: list[dict] = [{"keys": {"$in": [f"{place}={word}" for place in places]}} for word in words]
    return Condition(each[0] if len(each) == 1 else {"$and": each}, KEYS)
