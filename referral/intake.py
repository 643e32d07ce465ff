"""From an order to a received referral: the coordination Task, its numbers, the receipt."""

import hashlib

from fhir_server.repository import Repository
from fhir_server.version import Version
from referral import closing, messages, store, tracker
from referral.codes import FULFILL, IMAGING, REFERRAL_NUMBER_SYSTEM, TASK_CODE, concept, reference, references
from referral.context import Practice
from referral.event import event_of
from referral.parties import organizations_of
from referral.states import TASK_ENDED, TASK_OPEN

ORDER_INTENTS = frozenset({"order", "original-order", "filler-order", "instance-order"})
ORDER_ENDED = {"revoked": "The order was revoked", "entered-in-error": "The order was entered in error"}


def on_order(practice: Practice, version: Version) -> None:
    """A version of a ServiceRequest: give it its Task, follow its priority, end what it ends."""
    order, before = version.resource(), store.previous(practice.repository, version)
    ended = order["status"] in ORDER_ENDED
    ours = order["status"] == "active" and is_for(order, practice.policy.practice)
    moved = before is not None and before.get("priority") != order.get("priority")
    if not (ended or ours or moved):
        return  # whatever its Task is
    referral = tracker.tracker_of(practice.repository, version.reference)
    if ended:
        if referral is not None:
            reason = {"text": ORDER_ENDED[order["status"]]}
            event = event_of(version, "cancelled")
            closing.close(practice.repository, referral.resource["id"], event, practice.clock(), reason=reason)
    elif referral is None:
        if ours:
            store.ensure(practice.repository, _coordination(practice, order))
    elif moved:
        _follow_priority(practice, referral, version)


def is_for(order: dict, practice: str) -> bool:
    """Whether the order is one for the practice: addressed to it, or an imaging order addressed to nobody."""
    if order.get("intent") not in ORDER_INTENTS:
        return False
    if order.get("performer"):
        return practice in [reference(performer) for performer in order["performer"]]
    codings = [coding for category in order.get("category", []) for coding in category.get("coding", [])]
    return IMAGING in [(coding.get("system"), coding.get("code")) for coding in codings]


def on_referral(practice: Practice, version: Version, task: dict) -> None:
    """A coordination Task that was sent: receive it and tell the placer, or set a second one for the order aside."""
    order = reference(task["focus"])
    if _kept(practice.repository, order) != version.reference:
        _set_aside(practice, version.id)
        return
    _set_aside_ours(practice, order)
    ordered = store.fetch(practice.repository, order)

    def numbered(received: dict) -> dict:
        return _numbered(received, ordered.resource if ordered else {}, practice.policy.practice)

    event = event_of(version, "received")
    tracker.move(practice.repository, version.id, event, practice.clock, heard=False, also=numbered)
    current = store.fetch(practice.repository, version.reference)
    if current is not None and current.resource["status"] not in TASK_ENDED:
        text = f"Referral {messages.referral_number(current.resource)} has arrived at the practice."
        text += messages.call_us(practice.policy.phone)
        messages.send(practice.repository, current.resource, "received", order, text, practice.clock())


def _coordination(practice: Practice, order: dict) -> dict:
    """The Task for an order that came without one."""
    now = practice.clock()
    requester = reference(order.get("requester"))
    offices = organizations_of(practice.repository, requester)
    task = {
        "resourceType": "Task",
        "id": store.derived_id("referral", f"ServiceRequest/{order['id']}"),
        "identifier": order.get("identifier"),
        "basedOn": [{"reference": f"ServiceRequest/{order['id']}"}],
        "status": "requested",
        "intent": "order",
        "priority": order.get("priority"),
        "code": concept(TASK_CODE, FULFILL),
        "focus": {"reference": f"ServiceRequest/{order['id']}"},
        "for": order.get("subject"),
        "authoredOn": now.isoformat(timespec="seconds"),
        "lastModified": now.isoformat(timespec="milliseconds"),
        # The office rather than the person: it is the office that follows its referrals.
        "requester": {"reference": offices[0]} if offices else order.get("requester"),
        "owner": {"reference": practice.policy.practice} if order.get("performer") else None,
    }
    return {name: value for name, value in task.items() if value}


def _numbered(task: dict, order: dict, practice: str) -> dict:
    """The Task under the order's numbers, with one of ours where the placer gave none."""
    there = [(i.get("system"), i.get("value")) for i in task.get("identifier", [])]
    new = [i for i in order.get("identifier", []) if (i.get("system"), i.get("value")) not in there]
    if not there and not new:
        new = [{"system": REFERRAL_NUMBER_SYSTEM, "value": _own_number(task["id"])}]
    task = task | ({"identifier": [*task.get("identifier", []), *new]} if new else {})
    if "owner" not in task and practice in references(order.get("performer"), "Organization"):
        task["owner"] = {"reference": practice}
    return task


def _own_number(task_id: str) -> str:
    digest = int.from_bytes(hashlib.sha256(f"number|{task_id}".encode()).digest()[:8])
    return f"R-{digest % 10**10:010d}"


def _kept(repository: Repository, order: str) -> str | None:
    """Which coordination Task of an order counts: the placer's before one that we made, else the oldest."""
    living = [task for task in tracker.trackers(repository, order) if task.resource["status"] in TASK_OPEN]
    ours = [task for task in living if task.resource["id"] == store.derived_id("referral", order)]
    placers = [task for task in living if task not in ours]
    kept = next(iter(placers or ours), None)
    for task in ours if placers else []:
        if task.resource["status"] not in ("requested", "received"):
            return task.reference  # work on ours has begun: the placer's came too late
    return kept.reference if kept else None


def _set_aside(practice: Practice, task_id: str) -> None:
    def change(task: dict) -> dict | None:
        if task["status"] not in ("requested", "received"):
            return None
        return task | {"status": "entered-in-error", "statusReason": {"text": "The order has another Task"}}

    practice.repository.amend(store.RULES, "Task", task_id, change)


def _set_aside_ours(practice: Practice, order: str) -> None:
    """When the placer's own Task came after we had made one: theirs counts."""
    ours = f"Task/{store.derived_id('referral', order)}"
    task = store.fetch(practice.repository, ours)
    if task and task.resource["status"] in TASK_OPEN and _kept(practice.repository, order) != ours:
        _set_aside(practice, task.resource["id"])


def _follow_priority(practice: Practice, referral: store.Stored, version: Version) -> None:
    """The Task has the order's present priority; the order's own version is the event."""

    def change(task: dict) -> dict | None:
        current = store.fetch(practice.repository, version.reference)
        priority = current.resource.get("priority") if current else None
        if priority is None or task.get("priority") == priority or task["status"] not in TASK_OPEN:
            return None
        return task | {"priority": priority, "lastModified": practice.clock().isoformat(timespec="milliseconds")}

    practice.repository.amend(store.RULES, "Task", referral.resource["id"], change)
