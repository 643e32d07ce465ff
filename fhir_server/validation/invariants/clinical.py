"""Invariants of patients, orders, appointments, findings and the rest of care.
https://hl7.org/fhir/R4/resourcelist.html
"""

from collections.abc import Mapping

from fhir_server.validation.invariants.datatypes import UCUM
from fhir_server.validation.invariants.terms import (
    HERE,
    Invariant,
    Verdict,
    any_of,
    codings,
    has,
    has_choice,
    has_coding,
    holds,
    items,
    needs,
    not_after,
    number,
    one_of,
)

_ALLERGY_VERIFICATION = "http://terminology.hl7.org/CodeSystem/allergyintolerance-verification"
_CONDITION_CLINICAL = "http://terminology.hl7.org/CodeSystem/condition-clinical"
_CONDITION_VERIFICATION = "http://terminology.hl7.org/CodeSystem/condition-ver-status"


def _app_3(appointment: dict) -> Verdict:
    timed = has(appointment, "start") and has(appointment, "end")
    return holds(timed or appointment.get("status") in ("proposed", "cancelled", "waitlist"))


def _app_4(appointment: dict) -> Verdict:
    """R4's expression says `no-show`, which is no code of the status; its sentence means noshow."""
    over = appointment.get("status") in ("noshow", "cancelled")
    return holds(not has(appointment, "cancelationReason") or over, "cancelationReason")


def _never_home(element: dict) -> Verdict:
    return holds(element.get("use") != "home", "use")


def _obs_7(observation: dict) -> Verdict:
    if not has_choice(observation, "value"):
        return True
    own = set(codings(observation.get("code")))
    for index, component in enumerate(items(observation, "component")):
        if own & set(codings(component.get("code"))):
            return f"component[{index}].code"
    return True


def _ordered(earlier: str, later: str) -> Invariant:
    def check(element: dict) -> Verdict:
        first, second = element.get(earlier), element.get(later)
        return holds(first is None or second is None or not_after(first, second), later)

    return check


def _ait_1(allergy: dict) -> Verdict:
    wrong = has_coding(allergy.get("verificationStatus"), _ALLERGY_VERIFICATION, "entered-in-error")
    return holds(wrong or has(allergy, "clinicalStatus"), "clinicalStatus")


def _ait_2(allergy: dict) -> Verdict:
    wrong = has_coding(allergy.get("verificationStatus"), _ALLERGY_VERIFICATION, "entered-in-error")
    return holds(not wrong or not has(allergy, "clinicalStatus"), "clinicalStatus")


def _con_4(condition: dict) -> Verdict:
    over = has_coding(condition.get("clinicalStatus"), _CONDITION_CLINICAL, "resolved", "remission", "inactive")
    return holds(not has_choice(condition, "abatement") or over, "abatement")


def _con_5(condition: dict) -> Verdict:
    wrong = has_coding(condition.get("verificationStatus"), _CONDITION_VERIFICATION, "entered-in-error")
    return holds(not wrong or not has(condition, "clinicalStatus"), "clinicalStatus")


def _consent_needs_patient(code: str) -> Invariant:
    """R4 writes the system as `something`, in the hope of a better one; the rule binds who uses it as written."""
    return lambda consent: holds(has(consent, "patient") or not has_coding(consent.get("scope"), "something", code))


def _in_entries(name: str, mode: str) -> Invariant:
    """A List has entries with the element in one mode only."""

    def check(found: dict) -> Verdict:
        for index, entry in enumerate(items(found, "entry")):
            if has(entry, name) and found.get("mode") != mode:
                return f"entry[{index}].{name}"
        return True

    return check


def _mrp_2(report: dict) -> Verdict:
    for i, group in enumerate(items(report, "group")):
        for j, stratifier in enumerate(items(group, "stratifier")):
            for k, stratum in enumerate(items(stratifier, "stratum")):
                if has(stratum, "value") == has(stratum, "component"):
                    return f"group[{i}].stratifier[{j}].stratum[{k}]"
    return True


def _msq_6(sequence: dict) -> Verdict:
    names = ("genomeBuild", "referenceSeqId", "referenceSeqPointer", "referenceSeqString")
    return holds(sum(has(sequence, name) for name in names) == 1)


def _ras_1(found: dict) -> Verdict:
    for name in ("low", "high"):
        bound = found.get(name)
        if bound is not None and (bound.get("code"), bound.get("system")) != ("%", UCUM):
            return name
    return True


INVARIANTS: Mapping[str, Invariant] = {
    "ait-1": _ait_1,
    "ait-2": _ait_2,
    "app-1": any_of("type", "actor"),
    "app-2": lambda appointment: holds(has(appointment, "start") == has(appointment, "end")),
    "app-3": _app_3,
    "app-4": _app_4,
    "apr-1": any_of("participantType", "actor"),
    "ces-1": one_of("category", "productOrService"),
    "cmp-1": any_of("text", "entry", "section"),
    "cmp-2": lambda section: holds(not (has(section, "emptyReason") and has(section, "entry")), "emptyReason"),
    "con-1": any_of("summary", "assessment"),
    "con-2": any_of("code", "detail"),
    "con-4": _con_4,
    "con-5": _con_5,
    "cpl-3": lambda activity: holds(not (has(activity, "detail") and has(activity, "reference"))),
    "fhs-1": lambda it: holds(not (has_choice(it, "age") and has_choice(it, "born"))),
    "fhs-2": lambda it: holds(has_choice(it, "age") or not has(it, "estimatedAge"), "estimatedAge"),
    "gol-1": lambda target: holds(not has_choice(target, "detail") or has(target, "measure"), HERE),
    "grp-1": lambda group: holds(not has(group, "member") or group.get("actual") is True, "member"),
    "imm-1": any_of("documentType", "reference"),
    "imr-1": any_of("vaccineCode", "targetDisease"),
    "inv-1@Task": _ordered("authoredOn", "lastModified"),
    "ipn-1": any_of("identifier", "name"),
    "lnk-1": lambda linkage: holds(len(items(linkage, "item")) > 1, "item"),
    "lst-1": lambda it: holds(not (has(it, "emptyReason") and has(it, "entry")), "emptyReason"),
    "lst-2": _in_entries("deleted", "changes"),
    "lst-3": _in_entries("date", "working"),
    "mad-1": any_of("dose", "rate[x]"),
    "mdd-1": _ordered("whenPrepared", "whenHandedOver"),
    "mrp-1": lambda it: holds(it.get("type") != "data-collection" or not has(it, "group"), "group"),
    "mrp-2": _mrp_2,
    "msq-3": lambda sequence: holds(sequence.get("coordinateSystem") in (0, 1), "coordinateSystem"),
    "msq-5": lambda it: holds(has(it, "chromosome") == has(it, "genomeBuild")),
    "msq-6": _msq_6,
    "obs-3": any_of("low", "high", "text"),
    "obs-6": lambda it: holds(not (has(it, "dataAbsentReason") and has_choice(it, "value")), "dataAbsentReason"),
    "obs-7": _obs_7,
    "org-1": any_of("identifier", "name"),
    "org-2": _never_home,
    "org-3": _never_home,
    "pat-1": any_of("name", "telecom", "address", "organization"),
    "ppc-1": any_of("policy", "policyRule"),
    "ppc-2": _consent_needs_patient("patient-privacy"),
    "ppc-3": _consent_needs_patient("research"),
    "ppc-4": _consent_needs_patient("adr"),
    "ppc-5": _consent_needs_patient("treatment"),
    "prr-1": needs("orderDetail", "code"),
    "ras-1": _ras_1,
    "ras-2": lambda it: holds("probabilityDecimal" not in it or number(it["probabilityDecimal"]) <= 100),
    "rqg-1": one_of("resource", "action"),
}
