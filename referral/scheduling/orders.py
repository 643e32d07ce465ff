"""Which order a time is for, and whether the caller may schedule it."""

from fhir_server import references
from fhir_server.access import Access
from fhir_server.errors import FhirError, Forbidden, Issue, Unprocessable
from referral import store, tracker
from referral.codes import FULFILL, TASK_CODE, reference
from referral.context import Practice
from referral.parties import belongs_to, is_placer
from referral.scheduling.parameters import Given, Parameters
from referral.states import TASK_ENDED, TASK_OPEN

# What the practice has agreed to; an office finds times for these. The practice itself schedules what is open.
AGREED = frozenset({"accepted", "in-progress", "on-hold"})


def given_order(practice: Practice, access: Access, parameters: Parameters) -> store.Stored | None:
    """The order that `order-reference` or `referral-identifier` names; None when neither is given."""
    by_reference, by_number = parameters.one("order-reference"), parameters.one("referral-identifier")
    named = _by_reference(practice, access, by_reference) if by_reference else None
    numbered = _by_number(practice, access, by_number) if by_number else None
    if named is not None and numbered is not None and by_number and named.reference != numbered.reference:
        raise Unprocessable("order-reference and referral-identifier name different orders", by_number.path)
    return named or numbered


def check_schedulable(practice: Practice, access: Access, order: store.Stored, path: str | None) -> None:
    """Raise unless the caller may book for the order: the practice while it is open, its placer once accepted."""
    referral = tracker.tracker_of(practice.repository, order.reference)
    if referral is None:
        raise Unprocessable("the order is not a referral to this practice, or has just come in", path)
    status = referral.resource["status"]
    if status not in TASK_OPEN:
        raise Unprocessable(f"the referral has ended: it is {status}", path)
    check_placer(practice, access, order, path)
    if not access.is_practice and status not in AGREED:
        raise Unprocessable("the practice has not accepted the referral yet", path)


def check_placer(practice: Practice, access: Access, order: store.Stored, path: str | None) -> None:
    """Raise Forbidden unless the caller is of the practice, or of the office that placed the order."""
    repository = practice.repository
    if access.is_practice or is_placer(repository, access, order.resource):
        return
    referral = tracker.tracker_of(repository, order.reference)
    requester = reference(referral.resource.get("requester")) if referral else ""
    if not belongs_to(repository, access, requester):
        raise Forbidden("only the practice and the placer schedule a referral", path)


def _by_reference(practice: Practice, access: Access, given: Given) -> store.Stored:
    text = given.value["reference"]
    target = references.local(text, practice.repository.base_url)
    order = store.fetch(practice.repository, text, access) if target and target[0] == "ServiceRequest" else None
    if order is None:
        raise _unknown("no such order is known here", given.path)
    return order


def _by_number(practice: Practice, access: Access, given: Given) -> store.Stored:
    """By the number of the referral; the Task has all its numbers, those of the placer and ours."""
    token = "|".join(_escaped(given.value[name]) for name in ("system", "value") if name in given.value)
    query = [("identifier", token)]
    tasks = store.every(practice.repository, "Task", [*query, ("code", f"{TASK_CODE}|{FULFILL}")], access)
    living = [task.resource() for task in tasks]
    orders = {reference(task["focus"]) for task in living if task["status"] not in TASK_ENDED}
    if not orders:
        orders = {version.reference for version in store.every(practice.repository, "ServiceRequest", query, access)}
    if len(orders) > 1:
        raise Unprocessable("several referrals have this number; name the order by order-reference", given.path)
    order = store.fetch(practice.repository, orders.pop(), access) if orders else None
    if order is None:
        raise _unknown("no referral with this number is known here", given.path)
    return order


def _escaped(text: str) -> str:
    """A value as a search parameter takes it. https://hl7.org/fhir/R4/search.html#escaping"""
    for sign in "\\,|$":
        text = text.replace(sign, f"\\{sign}")
    return text


def _unknown(text: str, path: str) -> FhirError:
    return Unprocessable(text, path, issues=[Issue("not-found", text, path)])
