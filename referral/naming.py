"""How people, places and exams are called on a page: one line each, and never an id where a name is on record."""

from datetime import datetime
from zoneinfo import ZoneInfo


def concept_text(concept: object) -> str:
    """A CodeableConcept in words: its text, else the display of a coding, else a code; empty for none of them."""
    if not isinstance(concept, dict):
        return ""
    codings = concept.get("coding", [])
    displays = [coding["display"] for coding in codings if coding.get("display")]
    codes = [coding["code"] for coding in codings if coding.get("code")]
    return next(iter([*filter(None, [concept.get("text")]), *displays, *codes]), "")


def human_name(resource: dict) -> str:
    """`Lindqvist, Ana` of a Patient or Practitioner, the official name before others; empty where there is none."""
    names: list[dict] = resource.get("name", [])
    name: dict = next((n for n in names if n.get("use") == "official"), next(iter(names), {}))
    given = " ".join(name.get("given", []))
    return ", ".join(filter(None, [name.get("family"), given])) or name.get("text", "")


def local_time(moment: datetime, zone: ZoneInfo) -> str:
    """`Thu 26 Nov 2026, 14:30 CET`: always with the zone, since offices may be in another."""
    return f"{moment.astimezone(zone):%a %d %b %Y, %H:%M %Z}"
