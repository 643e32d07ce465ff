"""A Questionnaire as a form of plain HTML, and the filled-in form as a QuestionnaireResponse.
https://hl7.org/fhir/R4/questionnaire.html
"""

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import date
from decimal import Decimal
from typing import Any

from fhir_server.errors import Unprocessable

LONGEST_ANSWER = 4000  # characters, where the item sets no maxLength
_NOT_ALLOWED = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f\ud800-\udfff]")  # in a FHIR string
_NUMBER = re.compile(r"-?(0|[1-9][0-9]{0,8})(\.[0-9]{1,8})?", re.ASCII)


@dataclass(frozen=True, slots=True)
class Option:
    """One thing to choose. value: what the form sends; answer: the value[x] it stands for."""

    value: str
    text: str
    answer: dict


@dataclass(frozen=True, slots=True)
class Question:
    """One item of the Questionnaire. kind: its type; field: name of its input; items: those of a group."""

    link_id: str
    field: str
    text: str
    kind: str
    required: bool
    max_length: int
    options: tuple[Option, ...] = ()
    items: tuple["Question", ...] = ()


@dataclass(frozen=True, slots=True)
class Form:
    """A Questionnaire that can be shown. canonical: `url|version`."""

    canonical: str
    title: str
    questions: tuple[Question, ...]


@dataclass(frozen=True, slots=True)
class Filled:
    """What came back. items: of a QuestionnaireResponse; faults: field -> what is wrong with its answer."""

    items: tuple[dict, ...]
    faults: Mapping[str, str]


class _Wrong(ValueError):
    """An answer that does not fit; the text is for who gave it."""


def form_of(questionnaire: dict) -> Form:
    """Raises Unprocessable for a required question of a type that cannot be asked here."""
    canonical = f"{questionnaire['url']}|{questionnaire['version']}"
    questions = tuple(_questions(questionnaire.get("item", []), "q"))
    return Form(canonical, questionnaire.get("title") or "Questions", questions)


def fill(form: Form, sent: Mapping[str, str]) -> Filled:
    """Read the sent fields. Unanswered optional questions are left out."""
    faults: dict[str, str] = {}
    items = tuple(_filled(form.questions, sent, faults))
    return Filled(items, faults)


def asked(questions: tuple[Question, ...]) -> Iterator[Question]:
    """The questions that have a field, groups opened."""
    for question in questions:
        if question.kind == "group":
            yield from asked(question.items)
        elif question.kind != "display":
            yield question


def _questions(items: list[dict], prefix: str) -> Iterator[Question]:
    for number, item in enumerate(items, 1):
        kind, field = item["type"], f"{prefix}{number}"
        can_ask = kind in _READERS and not item.get("enableWhen") and not item.get("repeats")
        if kind == "choice" and not item.get("answerOption"):
            can_ask = False
        if kind not in ("group", "display") and not can_ask:
            if item.get("required"):
                raise Unprocessable("this questionnaire has a question that a page cannot ask", "Questionnaire.item")
            continue
        yield Question(
            item["linkId"],
            field,
            item.get("text", ""),
            kind,
            bool(item.get("required")),
            min(item.get("maxLength", LONGEST_ANSWER), LONGEST_ANSWER),
            tuple(_options(item)),
            tuple(_questions(item.get("item", []), f"{field}-")) if kind == "group" else (),
        )


def _options(item: dict) -> Iterator[Option]:
    if item["type"] == "boolean":
        yield Option("yes", "yes", {"valueBoolean": True})
        yield Option("no", "no", {"valueBoolean": False})
    for number, option in enumerate(item.get("answerOption", []), 1):
        name, value = next((name, value) for name, value in option.items() if name.startswith("value"))
        text = value.get("display") or value.get("code", "") if isinstance(value, dict) else str(value)
        yield Option(str(number), text, {name: value})


def _filled(questions: tuple[Question, ...], sent: Mapping[str, str], faults: dict[str, str]) -> Iterator[dict]:
    for question in questions:
        if question.kind == "group":
            items = list(_filled(question.items, sent, faults))
            if items:
                yield {"linkId": question.link_id, "text": question.text, "item": items}
        elif question.kind != "display":
            try:
                answer = _answer(question, sent.get(question.field, ""))
            except _Wrong as wrong:
                faults[question.field] = str(wrong)
                continue
            if answer is not None:
                yield {"linkId": question.link_id, "text": question.text, "answer": [answer]}


def _answer(question: Question, text: str) -> dict | None:
    text = text.replace("\r\n", "\n").strip()
    if not text:
        if question.required:
            raise _Wrong("Please choose one." if question.options else "Please answer this.")
        return None
    if len(text) > question.max_length:
        raise _Wrong(f"Please shorten this to {question.max_length} characters.")
    return _READERS[question.kind](question, text)


def _chosen(question: Question, text: str) -> dict:
    for option in question.options:
        if option.value == text:
            return option.answer
    raise _Wrong("Please choose one of these.")


def _written(_question: Question, text: str) -> dict:
    if _NOT_ALLOWED.search(text):
        raise _Wrong("There are characters in this that cannot be kept; please type it anew.")
    return {"valueString": text}


def _counted(_question: Question, text: str) -> dict:
    if not _NUMBER.fullmatch(text) or "." in text:
        raise _Wrong("Please give a whole number.")
    return {"valueInteger": int(text)}


def _measured(_question: Question, text: str) -> dict:
    if not _NUMBER.fullmatch(text):
        raise _Wrong("Please give a number such as 1.5.")
    return {"valueDecimal": Decimal(text)}


def _dated(_question: Question, text: str) -> dict:
    try:
        return {"valueDate": date.fromisoformat(text).isoformat()}
    except ValueError:
        raise _Wrong("Please give a date as year-month-day, such as 2026-03-31.") from None


_READERS: Mapping[str, Callable[[Question, str], dict[str, Any]]] = {
    "boolean": _chosen,
    "choice": _chosen,
    "date": _dated,
    "decimal": _measured,
    "integer": _counted,
    "string": _written,
    "text": _written,
}
