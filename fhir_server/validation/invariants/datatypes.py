"""Invariants of data types. https://hl7.org/fhir/R4/datatypes.html, metadatatypes.html"""

from collections.abc import Mapping

from fhir_server.validation.invariants.terms import (
    HERE,
    Invariant,
    Verdict,
    any_of,
    excludes,
    has,
    has_choice,
    holds,
    needs,
    not_after,
    number,
    one_of,
)

UCUM = "http://unitsofmeasure.org"


def _per_1(period: dict) -> Verdict:
    start, end = period.get("start"), period.get("end")
    return holds(not (isinstance(start, str) and isinstance(end, str)) or not_after(start, end))


def _rat_1(ratio: dict) -> Verdict:
    both, neither = has(ratio, "numerator"), not has(ratio, "numerator")
    complete = has(ratio, "denominator") if both else not has(ratio, "denominator")
    return holds(complete and (not neither or has(ratio, "extension")))


def _rng_2(bounds: dict) -> Verdict:
    low, high = bounds.get("low"), bounds.get("high")
    if not low or not high or "value" not in low or "value" not in high:
        return True
    if (low.get("system"), low.get("code")) != (high.get("system"), high.get("code")):
        return True  # different units: not to be compared
    return holds(number(low["value"]) <= number(high["value"]))


def _measured(quantity: dict) -> bool:
    """There is a code where there is a value, and the system is UCUM."""
    coded = has(quantity, "code") or not has(quantity, "value")
    return coded and quantity.get("system", UCUM) == UCUM


def _age_1(age: dict) -> Verdict:
    return holds(_measured(age) and ("value" not in age or number(age["value"]) > 0))


def _cnt_3(found: dict) -> Verdict:
    whole = "value" not in found or number(found["value"]) % 1 == 0
    return holds(_measured(found) and found.get("code", "1") == "1" and whole)


def _drt_1(duration: dict) -> Verdict:
    return holds(not has(duration, "code") or (duration.get("system") == UCUM and has(duration, "value")))


def _tim_9(repeat: dict) -> Verdict:
    when = repeat.get("when", [])
    return holds(not has(repeat, "offset") or (bool(when) and not {"C", "CM", "CD", "CV"} & set(when)), "offset")


def _trd_3(trigger: dict) -> Verdict:
    kind = trigger.get("type", "")
    if kind == "named-event":
        return holds(has(trigger, "name"))
    if kind == "periodic":
        return holds(has_choice(trigger, "timing"))
    return holds(not kind.startswith("data-") or has(trigger, "data"))


def _not_negative(name: str) -> Invariant:
    return lambda element: holds(name not in element or number(element[name]) >= 0, name)


INVARIANTS: Mapping[str, Invariant] = {
    "age-1": _age_1,
    "att-1": needs("data", "contentType"),
    "cnt-3": _cnt_3,
    "cpt-2": needs("value", "system"),
    "dis-1": lambda distance: holds(_measured(distance)),
    "drq-1": one_of("path", "searchParam"),
    "drq-2": one_of("path", "searchParam"),
    "drt-1": _drt_1,
    "exp-1": any_of("expression", "reference"),
    "per-1": _per_1,
    "qty-3": needs("code", "system"),
    "rat-1": _rat_1,
    "rng-2": _rng_2,
    "sqty-1": lambda quantity: holds(not has(quantity, "comparator"), "comparator"),
    "tim-1": needs("duration", "durationUnit"),
    "tim-2": needs("period", "periodUnit"),
    "tim-4": _not_negative("duration"),
    "tim-5": _not_negative("period"),
    "tim-6": needs("periodMax", "period"),
    "tim-7": needs("durationMax", "duration"),
    "tim-8": needs("countMax", "count"),
    "tim-9": _tim_9,
    "tim-10": excludes("timeOfDay", "when"),
    "trd-1": lambda trigger: holds(not (has(trigger, "data") and has_choice(trigger, "timing")), HERE),
    "trd-2": needs("condition", "data"),
    "trd-3": _trd_3,
}
