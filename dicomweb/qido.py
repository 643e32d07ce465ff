"""QIDO-RS: query parameters to typed conditions, and matches to answers. PS3.18 sections 8.3.4 and 10.6."""

import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import partial

from dicomweb.accept import DICOM_XML
from dicomweb.attributes import (
    ATTRIBUTES,
    INSTANCE_UID,
    MODALITIES,
    RETRIEVE_URL,
    SERIES_UID,
    STUDY_UID,
    Attribute,
    Level,
    find,
    keyword_of,
    of_level,
    value,
)
from dicomweb.content import Content, Part, multipart
from dicomweb.dicom_json import Attributes, text
from dicomweb.matching_keys import date, field_of, fold, time
from dicomweb.native_xml import as_xml
from dicomweb.records import Condition
from dicomweb.store import DicomStore
from dicomweb.uids import is_uid
from fhir_server.access import Access
from fhir_server.errors import BadRequest

DEFAULT_LIMIT = 1000
MAX_LIMIT = 10_000  # a series of a long perfusion study has this many instances
MAX_OFFSET = 10_000_000
MAX_VALUES = 500
MAX_VALUE_LENGTH = 324  # five components of 64 characters are the longest value, a person name, with its wildcards
MAX_WHOLE = 1000  # answers with whole data sets, which are held in memory together
AVAILABILITY = "00080056"
CHARACTER_SET = "00080005"
_SEVERAL = {"UI": r"[,\\]", "CS": r"[,\\]"}  # neither sign can be part of such a value
MOMENTS = (("00080020", "00080030"), ("00400244", "00400245"))  # dates with their times: of study, procedure step
_BETWEEN_WORDS = re.compile(r"[\^= ,.'-]+")
_WILDCARDS = re.compile(r"[*?]")
_RANGES = {"DA": (date, re.compile(r"\d{8}")), "TM": (time, re.compile(r"\d{2}(\d{2}(\d{2}(\.\d{1,6})?)?)?"))}
_NUMBER = re.compile(r"\d{1,9}")


@dataclass(slots=True)
class Query:
    """A search on one level. include: tags asked for beside the default ones; everything: includefield=all.

    warnings: what was not done as asked, for the Warning header.
    """

    level: Level
    conditions: list[Condition] = field(default_factory=list)
    include: set[str] = field(default_factory=set)
    everything: bool = False
    limit: int = DEFAULT_LIMIT
    offset: int = 0
    warnings: list[str] = field(default_factory=list)


def parse_query(
    level: Level, parameters: Iterable[tuple[str, str]], study: str | None = None, series: str | None = None
) -> Query:
    """Read the (decoded) query parameters; study and series come from the address.

    Raises BadRequest for what is unknown or malformed: never a wider answer than was asked for.
    """
    # A list below one study is not cut, as viewers take it for the whole; one over all studies has to end somewhere.
    query = Query(level, limit=MAX_LIMIT if study else DEFAULT_LIMIT)
    for tag, uid in ((STUDY_UID, study), (SERIES_UID, series)):
        if uid is not None:
            query.conditions.append(Condition(tag, "one_of", (uid,)))
    matched = {attribute.path: attribute for attribute in of_level(level) if attribute.matched}
    if level != "study":
        matched.pop(MODALITIES, None)  # of a study; a series has its own Modality
    parameters = list(parameters)
    fuzzy = _fuzzy(parameters)
    for name, given in parameters:
        match name.lower():
            case "fuzzymatching" | "charset":  # read above; all text is UTF-8
                continue
            case "":  # `studies?&includefield=...` is sent by a viewer
                continue
            case "limit":
                query.limit = _count(name, given, MAX_LIMIT) or query.limit
            case "offset":
                query.offset = _count(name, given, MAX_OFFSET)
            case "includefield":
                _include(query, given)
            case _:
                path = find(name)
                if path not in matched:
                    raise BadRequest(_unknown(name, path, level))
                if fuzzy and matched[path].vr == "PN":
                    query.conditions += _fuzzy_conditions(matched[path], given)
                elif (condition := _condition(matched[path], given)) is not None:
                    query.conditions.append(condition)
    query.conditions = _with_moments(query.conditions)
    return query


def search(store: DicomStore, access: Access, query: Query, base_url: str) -> list[Attributes]:
    """The matches as DICOM JSON; one more than `query.limit` is looked for, and a warning says that there is more."""
    kept = {attribute.tag for attribute in ATTRIBUTES}
    whole = query.level == "instance" and (query.everything or not query.include <= kept)
    if whole:
        query.limit = min(query.limit, MAX_WHOLE)
    found = store.search(query.level, access, query.conditions, query.limit + 1, query.offset, with_metadata=whole)
    if len(found) > query.limit:
        query.warnings.append("there are more results than were asked for or are given at once; page with offset")
    defaults = {attribute.tag for attribute in of_level(query.level) if attribute.default}
    wanted = defaults | query.include | {CHARACTER_SET}
    return [
        _answer(match if query.everything else {t: match[t] for t in match if t in wanted}, query.level, base_url)
        for match in found[: query.limit]
    ]


def in_xml(found: list[Attributes]) -> Content:
    """Each match in a part of its own. PS3.18 section 10.6.3.3."""
    bodies = [as_xml(match) for match in found]
    return multipart(DICOM_XML, [Part({"Content-Type": DICOM_XML}, partial(list, [b]), len(b)) for b in bodies])


def _answer(attributes: Attributes, level: Level, base_url: str) -> Attributes:
    address = f"{base_url}/studies/{text(attributes, STUDY_UID)}"
    if level != "study":
        address += f"/series/{text(attributes, SERIES_UID)}"
    if level == "instance":
        address += f"/instances/{text(attributes, INSTANCE_UID)}"
    for tag, attribute in attributes.items():
        if "BulkDataURI" in attribute:
            attributes[tag] = attribute | {"BulkDataURI": base_url + attribute["BulkDataURI"]}
    complete = attributes | {
        CHARACTER_SET: value("CS", "ISO_IR 192"),
        AVAILABILITY: value("CS", "ONLINE"),
        RETRIEVE_URL: value("UR", address),
    }
    return dict(sorted(complete.items()))


def _condition(attribute: Attribute, given: str) -> Condition | None:
    """The condition of one key; None where every value matches. PS3.4 section C.2.2.2."""
    vr, name = attribute.vr, field_of(attribute.path)
    if "\0" in given or (len(given) > MAX_VALUE_LENGTH and vr not in _SEVERAL):
        raise BadRequest(f"{attribute.keyword} has no such values")
    if not given.strip("* "):
        return None
    if vr in _RANGES:
        return _range(attribute, name, given.strip())
    if vr in _SEVERAL:
        values = [part.strip() for part in re.split(_SEVERAL[vr], given) if part.strip()]
        if len(values) > MAX_VALUES:
            raise BadRequest(f"{attribute.keyword} takes {MAX_VALUES} values at once")
        if vr == "UI":
            if not all(is_uid(part) for part in values):
                raise BadRequest(f"{attribute.keyword} takes UIDs, separated by commas")
            return Condition(name, "one_of", tuple(values))
        if any(_WILDCARDS.search(part) for part in values):
            return Condition(name, "like", ("|".join(f"(?:{_pattern(part)})" for part in values),))
        return Condition(name, "one_of", tuple(values))
    if vr in ("IS", "US"):
        if not re.fullmatch(r"[+-]?\d{1,12}", given.strip()):
            raise BadRequest(f"{attribute.keyword} takes a whole number")
        return Condition(name, "one_of", (str(int(given)),))
    wanted = fold(given) if vr == "PN" else given.strip()
    if _WILDCARDS.search(wanted):
        return Condition(name, "like", (_pattern(wanted),))
    return Condition(name, "one_of", (wanted,))


def _fuzzy(parameters: list[tuple[str, str]]) -> bool:
    given = [value.strip().lower() for name, value in parameters if name.lower() == "fuzzymatching"]
    if not set(given) <= {"true", "false", ""}:
        raise BadRequest("fuzzymatching is true or false")
    return "true" in given


def _fuzzy_conditions(attribute: Attribute, given: str) -> list[Condition]:
    """Each word of the question begins a word of the name, in any order: `jo ber` finds `Berg^Johanna`."""
    if "\0" in given or len(given) > MAX_VALUE_LENGTH:
        raise BadRequest(f"{attribute.keyword} has no such values")
    words = [word for word in _BETWEEN_WORDS.split(fold(given)) if word.strip("*?")]
    name = field_of(attribute.path)
    return [Condition(name, "like", (f"(^|{_BETWEEN_WORDS.pattern}){_signs(word.rstrip('*'))}",)) for word in words]


def _with_moments(conditions: list[Condition]) -> list[Condition]:
    """A range of dates together with a range of times is one of moments: from the one time on the first day to the
    other time on the last. PS3.4 section C.2.2.2.5.4."""
    by_field = {condition.field: condition for condition in conditions if condition.kind == "between"}
    for day, clock in MOMENTS:
        dates, times = by_field.get(day), by_field.get(clock)
        if dates and times and _has_two_ends(dates) and _has_two_ends(times):
            moment = Condition(f"{day} {clock}", "moments", (*dates.values, *times.values))
            conditions = [*(c for c in conditions if c not in (dates, times)), moment]
    return conditions


def _has_two_ends(between: Condition) -> bool:
    """Whether it is a range, and not one value (which stands for all that begins like it)."""
    low, high = between.values
    return low is None or high is None or low != high.rstrip("~")


def _pattern(wildcards: str) -> str:
    """`*` any number of characters, `?` one of them, all others themselves; the whole value."""
    return f"^{_signs(wildcards)}$"


def _signs(wildcards: str) -> str:
    parts = {"*": ".*", "?": "."}
    # Several stars in a row mean what one means, and would make the matching slow.
    signs = re.sub(r"\*+", "*", wildcards)
    return "".join(parts.get(sign, re.escape(sign)) for sign in signs)


def _range(attribute: Attribute, name: str, given: str) -> Condition:
    fold_one, form = _RANGES[attribute.vr]
    low, dash, high = given.partition("-")
    low, high = fold_one(low.strip()), fold_one(high.strip())
    if not all(form.fullmatch(end) for end in (low, high) if end) or not (low or high):
        example = "20240131 or 20240101-20240131" if attribute.vr == "DA" else "1015 or 080000-120000"
        raise BadRequest(f"{attribute.keyword} takes {example}, and one end of a range may be left out")
    if not dash:
        # Times are kept as sent: 10:15 stands for the whole minute, 10:15:59.9 included.
        high = low
    return Condition(name, "between", (low or None, high + "~" if high else None))


def _include(query: Query, given: str) -> None:
    for name in filter(None, (part.strip() for part in given.split(","))):
        if name.lower() == "all":
            query.everything = True
            continue
        path = find(name)
        if path is None:
            raise BadRequest(f"includefield: {name[:64]!r} is neither a keyword nor a tag")
        query.include.add(path.partition(".")[0])


def _count(name: str, given: str, most: int) -> int:
    if not given.strip():
        return 0
    if not _NUMBER.fullmatch(given.strip()):
        raise BadRequest(f"{name} takes a whole number")
    return min(int(given), most)


def _unknown(name: str, path: str | None, level: Level) -> str:
    known = ", ".join(a.keyword for a in of_level(level) if a.matched and (level == "study" or a.path != MODALITIES))
    if path is None:
        return f"{name[:64]!r} is neither a keyword nor a tag; these are matched: {known}"
    return f"{keyword_of(path)} is not matched on this level; these are: {known}"
