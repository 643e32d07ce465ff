"""How text is compared: without case, accents and runs of space. https://hl7.org/fhir/R4/search.html#string"""

import hashlib
import re
import unicodedata

MAX_KEY = 400  # characters of a search key; more is cut, and told apart by a digest
_SPACE = re.compile(r"\s+")
# Letters that differ from plain ones by a mark that Unicode does not take apart: it collates them as those.
# https://www.unicode.org/reports/tr10/
_MARKED = str.maketrans({"ø": "o", "đ": "d", "ł": "l", "ħ": "h", "ŧ": "t", "ı": "i", "æ": "ae", "œ": "oe"})


def fold(text: str) -> str:
    """`José  MÜLLER-Strauß` -> `jose muller-strauss`"""
    text = text.casefold()
    if not text.isascii():
        text = "".join(sign for sign in unicodedata.normalize("NFKD", text) if not unicodedata.combining(sign))
        text = text.casefold().translate(_MARKED)
    return _SPACE.sub(" ", text).strip()


def bounded(key: str) -> str:
    """The key itself, or its beginning and a digest of the whole: equal keys stay equal, others stay apart."""
    if len(key) <= MAX_KEY:
        return key
    return f"{key[:MAX_KEY]}~{hashlib.sha256(key.encode(errors='surrogatepass')).hexdigest()[:32]}"


def escaped(part: str) -> str:
    """A part of a token, so that a | in it is not taken for the one between system and code."""
    return part.replace("\\", "\\\\").replace("|", "\\|") if "|" in part or "\\" in part else part
