"""A QuestionnaireResponse against its Questionnaire, told with every fault and the item it is in.
https://hl7.org/fhir/R4/questionnaireresponse.html, https://hl7.org/fhir/R4/questionnaire.html#enableWhen
"""

from collections.abc import Iterable, Iterator, Mapping
from decimal import Decimal
from typing import Any

from fhir_server import references
from fhir_server.access import Access
from fhir_server.admission import Write
from fhir_server.errors import Issue, Unprocessable
from fhir_server.index.spans import date_span
from fhir_server.validation.run import MAX_ISSUES

FINAL = frozenset({"completed", "amended"})
CHECKED = FINAL | {"in-progress"}
_READER = Access.system("answers")
_EXTENSION = "http://hl7.org/fhir/StructureDefinition/"
# Type of a question -> the member of the answer; a choice has what its options have.
_MEMBERS: Mapping[object, str] = {
    "boolean": "valueBoolean",
    "decimal": "valueDecimal",
    "integer": "valueInteger",
    "date": "valueDate",
    "dateTime": "valueDateTime",
    "time": "valueTime",
    "string": "valueString",
    "text": "valueString",
    "url": "valueUri",
    "attachment": "valueAttachment",
    "reference": "valueReference",
    "quantity": "valueQuantity",
}
# What a comparison with the answer may give, by the operator of enableWhen.
_WANTED: Mapping[object, tuple[int, ...]] = {">": (1,), "<": (-1,), ">=": (0, 1), "<=": (0, -1)}


def fits_its_questionnaire(write: Write) -> dict | None:
    """Admission of a QuestionnaireResponse. Raises Unprocessable with one issue for each fault.

    One that is in progress may lack required answers, and nothing else; one that was stopped or entered in error is
    not looked at, nor one that names no Questionnaire.
    """
    response = write.after
    if response is None or response.get("status") not in CHECKED or "questionnaire" not in response:
        return response
    questionnaire = _questionnaire(write, response)
    if questionnaire is None:
        raise Unprocessable("this Questionnaire is not known here", "QuestionnaireResponse.questionnaire")
    found = faults(questionnaire, response, write.before, _value_sets(write, questionnaire))
    if found:
        raise Unprocessable("the answers do not fit the Questionnaire", issues=found[:MAX_ISSUES])
    return response


def faults(
    questionnaire: dict, response: dict, before: dict | None = None, codes: Mapping[str, frozenset] | None = None
) -> list[Issue]:
    """Every fault of the answers. before: the version that this one replaces; codes: (system, code) by value set."""
    check = _Check(questionnaire, response, before, codes or {})
    check.items(questionnaire.get("item", []), response.get("item", []), "QuestionnaireResponse")
    return check.issues


class _Check:
    """One walk over the items of both, side by side."""

    def __init__(
        self, questionnaire: dict, response: dict, before: dict | None, codes: Mapping[str, frozenset]
    ) -> None:
        self.issues: list[Issue] = []
        self._known = {item.get("linkId") for item in _all_items(questionnaire)}
        self._answers = _answers(response)
        self._before = _answers(before) if before else None
        self._final = response.get("status") in FINAL
        self._codes = codes

    def items(self, defined: list[dict], given: list[dict], path: str) -> None:
        """The items of one level. What is disabled must not be answered, and neither what is below it."""
        place = {item.get("linkId"): number for number, item in enumerate(defined)}
        last, seen = 0, set()
        for index, item in enumerate(given):
            link, here = item.get("linkId"), f"{path}.item[{index}]"
            if link not in place:
                told = "the item belongs elsewhere" if link in self._known else "the Questionnaire has no such item"
                self._fault("structure", told, f"{here}.linkId")
                continue
            definition = defined[place[link]]
            if place[link] < last:
                self._fault("structure", "the items are in the order of the Questionnaire", here)
            last = max(last, place[link])
            if link in seen and not (definition.get("type") == "group" and definition.get("repeats") is True):
                self._fault("structure", "the item is there once, with all its answers", here)
            seen.add(link)
            if self._enabled(definition):
                self._item(definition, item, here)
            elif _has_answers(item):
                self._fault("business-rule", "the item is not enabled by the other answers", here)
        for definition in defined:
            if definition.get("linkId") not in seen and self._demands(definition):
                self._fault("required", "a required item is not answered", _where(path, definition.get("linkId")))

    def _item(self, definition: dict, item: dict, path: str) -> None:
        kind, answers = definition.get("type"), item.get("answer", [])
        nested = definition.get("item", [])
        if kind in ("group", "display"):
            if answers:
                self._fault("structure", f"a {kind} has no answer", f"{path}.answer")
            if kind == "group":
                self.items(nested, item.get("item", []), path)
            return
        if "item" in item:
            self._fault("structure", "what is below a question stands in its answer", f"{path}.item")
        if not answers and self._demands(definition):
            self._fault("required", "a required item is not answered", f"{path}.answer")
        if len(answers) > 1 and definition.get("repeats") is not True:
            self._fault("structure", "the question has one answer", f"{path}.answer[1]")
        most = _told(definition, "questionnaire-maxOccurs")
        if most is not None and len(answers) > most:
            self._fault("structure", f"the question has {most} answers at most", f"{path}.answer[{most}]")
        for index, answer in enumerate(answers):
            here = f"{path}.answer[{index}]"
            self._answer(definition, answer, f"{here}.value")
            self.items(nested, answer.get("item", []), here)
        if definition.get("readOnly") is True:
            self._unchanged(definition, answers, path)

    def _answer(self, definition: dict, answer: dict, path: str) -> None:
        member = next((name for name in answer if name.startswith("value")), None)
        if member is None:
            return  # nested items or an extension in place of a value
        kind, value = definition.get("type"), answer[member]
        if kind in ("choice", "open-choice"):
            self._choice(definition, member, value, path)
        elif kind in _MEMBERS and member != _MEMBERS[kind]:
            self._fault("value", f"the answer is a {kind}", path)
        else:
            self._bounds(definition, value, path)

    def _choice(self, definition: dict, member: str, value: Any, path: str) -> None:
        if definition.get("type") == "open-choice" and member == "valueString":
            self._bounds(definition, value, path)
            return
        options = definition.get("answerOption")
        if options is not None:
            if not any(_equal(option.get(member), value) for option in options if member in option):
                self._fault("code-invalid", "the answer is none of the options", path)
            return
        if member != "valueCoding":
            self._fault("value", "the answer is a Coding", path)
            return
        known = self._codes.get(definition.get("answerValueSet", ""))
        if known is not None and (value.get("system"), value.get("code")) not in known:
            self._fault("code-invalid", "the answer is not of the value set", path)

    def _bounds(self, definition: dict, value: Any, path: str) -> None:
        if isinstance(value, str):
            longest, shortest = definition.get("maxLength"), _told(definition, "minLength")
            if longest is not None and len(value) > longest:
                self._fault("too-long", f"the answer has {longest} characters at most", path)
            if shortest is not None and len(value) < shortest:
                self._fault("value", f"the answer has {shortest} characters at least", path)
        places = _told(definition, "maxDecimalPlaces")
        if places is not None and isinstance(value, Decimal) and -int(value.as_tuple().exponent) > places:
            self._fault("value", f"the answer has {places} decimal places at most", path)
        low, high = _told(definition, "minValue"), _told(definition, "maxValue")
        if low is not None and _compare(value, low) == -1:
            self._fault("value", "the answer is below the least value", path)
        if high is not None and _compare(value, high) == 1:
            self._fault("value", "the answer is above the greatest value", path)

    def _unchanged(self, definition: dict, answers: list[dict], path: str) -> None:
        values = [_value(answer) for answer in answers]
        if self._before is not None:
            expected = self._before.get(definition.get("linkId"), [])
        elif "initial" in definition:
            expected = [_value(initial) for initial in definition["initial"]]
        else:
            return
        if len(values) != len(expected) or not all(map(_equal, values, expected)):
            self._fault("business-rule", "the item is read-only", path)

    def _demands(self, definition: dict) -> bool:
        required = definition.get("required") is True and definition.get("type") != "display"
        return required and self._final and self._enabled(definition)

    def _enabled(self, definition: dict) -> bool:
        conditions = definition.get("enableWhen", [])
        if not conditions:
            return True
        met = [self._meets(condition) for condition in conditions]
        return any(met) if definition.get("enableBehavior") == "any" else all(met)

    def _meets(self, condition: dict) -> bool:
        """https://hl7.org/fhir/R4/valueset-questionnaire-enable-operator.html"""
        answers, operator = self._answers.get(condition.get("question"), []), condition.get("operator")
        expected = next((value for name, value in condition.items() if name.startswith("answer")), None)
        if operator == "exists":
            return bool(answers) is expected
        if operator == "=":
            return any(_equal(answer, expected) for answer in answers)
        if operator == "!=":
            return not any(_equal(answer, expected) for answer in answers)
        wanted = _WANTED.get(operator, ())
        return any(_compare(answer, expected) in wanted for answer in answers)

    def _fault(self, code: str, diagnostics: str, expression: str) -> None:
        self.issues.append(Issue(code, diagnostics, expression))


def _all_items(parent: dict) -> Iterator[dict]:
    for item in parent.get("item", []):
        yield item
        yield from _all_items(item)


def _answers(response: dict) -> dict[object, list]:
    """linkId -> the values of its answers, wherever they are."""
    found: dict[object, list] = {}

    def collect(items: list[dict]) -> None:
        for item in items:
            for answer in item.get("answer", []):
                if any(name.startswith("value") for name in answer):
                    found.setdefault(item.get("linkId"), []).append(_value(answer))
                collect(answer.get("item", []))
            collect(item.get("item", []))

    collect(response.get("item", []))
    return found


def _has_answers(item: dict) -> bool:
    return bool(item.get("answer")) or any(map(_has_answers, item.get("item", [])))


def _value(answer: dict) -> Any:
    return next((value for name, value in answer.items() if name.startswith("value")), None)


def _told(definition: dict, name: str) -> Any:
    """The value of an extension of the item, such as `minValue`."""
    for extension in definition.get("extension", []):
        if extension.get("url") == _EXTENSION + name:
            return _value(extension)
    return None


def _equal(one: Any, other: Any) -> bool:
    if isinstance(one, dict) and isinstance(other, dict):
        if "code" in one or "code" in other:
            keys = ("system", "code", "value")  # Coding, or Quantity
            return all(_equal(one.get(key), other.get(key)) for key in keys)
        return one == other
    if isinstance(one, bool) or isinstance(other, bool):
        return one is other
    return bool(one == other)


def _compare(one: Any, other: Any) -> int | None:
    """-1, 0 or 1; None when the two cannot be compared."""
    if isinstance(one, dict) and isinstance(other, dict):
        if (one.get("system"), one.get("code")) != (other.get("system"), other.get("code")):
            return None
        one, other = one.get("value"), other.get("value")
    if isinstance(one, str) and isinstance(other, str):
        first, second = date_span(one), date_span(other)
        if first is not None and second is not None:
            return -1 if first[1] <= second[0] else 1 if second[1] <= first[0] else 0
        return (one > other) - (one < other)  # times of day
    if _is_number(one) and _is_number(other):
        return (Decimal(str(one)) > Decimal(str(other))) - (Decimal(str(one)) < Decimal(str(other)))
    return None


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float | Decimal) and not isinstance(value, bool)


def _where(path: str, link: object) -> str:
    quoted = str(link).replace("\\", "\\\\").replace("'", "\\'")
    return f"{path}.item.where(linkId='{quoted}')"


# What the response names


def _questionnaire(write: Write, response: dict) -> dict | None:
    """The Questionnaire, contained or stored; the newest of those with the url when no version is named."""
    canonical: str = response["questionnaire"]
    if canonical.startswith("#"):
        return _contained(response, "Questionnaire", canonical[1:])
    target = references.local(canonical, write.repository.base_url)
    if target is not None and target[0] == "Questionnaire":
        stored = write.repository.store.newest(*target)
        if stored is not None and not stored.deleted:
            return stored.resource()
    return _by_canonical(write, "Questionnaire", canonical)


def _by_canonical(write: Write, resource_type: str, canonical: str) -> dict | None:
    url, _, version = canonical.partition("#")[0].partition("|")
    query = [("url", _escaped(url)), ("_count", "1")]
    query += [("version", _escaped(version))] if version else []
    found = write.repository.search(_READER, resource_type, query, strict=True).matches
    return found[0].resource() if found else None


def _escaped(value: str) -> str:
    """As the value of a search parameter: https://hl7.org/fhir/R4/search.html#escaping"""
    for sign in "\\,$|":
        value = value.replace(sign, f"\\{sign}")
    return value


def _contained(resource: dict, resource_type: str, id: str) -> dict | None:
    for contained in resource.get("contained", []):
        if contained.get("id") == id and contained.get("resourceType") == resource_type:
            return contained
    return None


def _value_sets(write: Write, questionnaire: dict) -> dict[str, frozenset]:
    """(system, code) of the answer value sets that list their codes; others are not checked against."""
    names = {item["answerValueSet"] for item in _all_items(questionnaire) if "answerValueSet" in item}
    found = {}
    for name in names:
        if name.startswith("#"):
            value_set = _contained(questionnaire, "ValueSet", name[1:])
        else:
            value_set = _by_canonical(write, "ValueSet", name)
        codes = _listed(value_set.get("compose", {}).get("include", [])) if value_set else None
        if codes is not None:
            found[name] = codes
    return found


def _listed(parts: Iterable[dict]) -> frozenset | None:
    codes: set[tuple[Any, Any]] = set()
    for part in parts:
        if "concept" not in part or "valueSet" in part:
            return None
        codes |= {(part.get("system"), concept.get("code")) for concept in part["concept"]}
    return frozenset(codes) or None
