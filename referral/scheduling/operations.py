"""The three operations as `fhir_server.routes` serves them: parameters in, a Bundle out."""

from collections.abc import Sequence
from dataclasses import replace
from functools import partial

from fhir_server import references
from fhir_server.access import Access
from fhir_server.errors import BadRequest, FhirError, Issue, Unprocessable
from fhir_server.operation import Operation, OperationRequest
from fhir_server.validation import check_structure
from fhir_server.version import Version
from referral import slots, store
from referral.codes import SCHEDULING, with_relative_links
from referral.codes import references as references_to
from referral.context import Practice
from referral.scheduling import booking, parameters
from referral.scheduling.booking import Particulars, Target
from referral.scheduling.finding import DAYS, DEFAULT_COUNT, Wanted, find
from referral.scheduling.orders import given_order
from referral.scheduling.parameters import Given, Parameters, span


def operations(practice: Practice) -> list[Operation]:
    """What is registered with the FHIR API."""
    made = (("find", find_, False), ("hold", hold_, True), ("book", book_, True))
    return [
        Operation(
            name,
            f"{SCHEDULING}/OperationDefinition/appointment-{name}",
            "Appointment",
            instance=False,
            type_level=True,
            affects_state=affects_state,
            handler=partial(handler, practice),
        )
        for name, handler, affects_state in made
    ]


def find_(practice: Practice, request: OperationRequest) -> dict:
    """`$find`: the times that can be had, as proposed Appointments, the earliest first."""
    given, zone = Parameters(request, parameters.FIND), practice.policy.time_zone
    count = given.one("_count")
    wanted = Wanted(
        span(given.required("start"), zone)[0],
        span(given.required("end"), zone)[1],
        visit_types=given.strings("visit-type"),
        specialties=given.strings("specialty"),
        practitioners=given.strings("practitioner"),
        organizations=given.strings("organization"),
        locations=given.strings("location-reference"),
        location_names=given.strings("location-string"),
        days=_days(given.one("timing")),
        order=given_order(practice, request.access, given),
    )
    found = find(practice, request.access, wanted, count.value if count else DEFAULT_COUNT)
    return _bundle(practice, "find", found.proposals, found.total)


def hold_(practice: Practice, request: OperationRequest) -> dict:
    """`$hold`: the time is the caller's for some minutes."""
    given = Parameters(request, parameters.HOLD)
    named = given.required("appointment-reference")
    target = booking.target_of(practice, named.value["reference"], named.path)
    told = Particulars(order=given_order(practice, request.access, given))
    held = booking.hold(practice, request.access, target, told)
    return _bundle(practice, "hold", [held.resource()], 1)


def book_(practice: Practice, request: OperationRequest) -> dict:
    """`$book`: a time is booked; with an Appointment as resource, also moved or cancelled."""
    given = Parameters(request, parameters.BOOK)
    named, resource = given.one("appointment-reference"), given.one("appointment-resource")
    if named is not None and resource is not None:
        raise BadRequest("appointment-reference or appointment-resource, not both", resource.path)
    patient, comment = given.one("patient-reference"), given.one("comment")
    order = given_order(practice, request.access, given)
    told = Particulars(
        order=order,
        patient=_local(practice, patient) if patient else None,
        comment=comment.value if comment else None,
    )
    if resource is not None:
        booked = _by_resource(practice, request.access, resource, told)
    else:
        named = given.required("appointment-reference")
        target = booking.target_of(practice, named.value["reference"], named.path)
        booked = booking.book(practice, request.access, target, told)
    return _bundle(practice, "book", [booked.resource()], 1)


def _by_resource(practice: Practice, access: Access, given: Given, told: Particulars) -> Version:
    """Book, move or cancel as the Appointment says: what counts of it are id, status, slot, basedOn and reasons."""
    wanted, path = given.value, given.path
    try:
        check_structure(wanted, invariants=False)  # a time may be missing: the slots have it
    except FhirError as fault:
        issues = fault.issues or [Issue(fault.issue_code, fault.diagnostics, fault.expression)]
        fault.issues = [replace(issue, expression=_below(path, issue.expression)) for issue in issues]
        raise
    wanted = with_relative_links(wanted, practice.repository.base_url)
    told = replace(told, comment=told.comment or wanted.get("comment"))
    if told.order is None and (based_on := references_to(wanted.get("basedOn"), "ServiceRequest")):
        entry = {"name": "order-reference", "valueReference": {"reference": based_on[0]}}
        request = OperationRequest(access, "Appointment", None, [entry])
        told = replace(told, order=given_order(practice, access, Parameters(request, parameters.HOLD)))
    named = tuple(slots.slots_of(wanted))
    target = booking.target_of(practice, f"Appointment/{wanted['id']}", path) if "id" in wanted else None
    if target is None or not target.appointment:
        if wanted["status"] not in ("proposed", "pending", "booked"):
            raise Unprocessable("a new Appointment is proposed, pending or booked", f"{path}.status")
        chosen = named or (target.slots if target else ())
        return booking.book(practice, access, Target("", chosen, target.order if target else None, path), told)
    if wanted["status"] == "cancelled":
        return booking.cancel(practice, access, target.appointment, wanted, path)
    if wanted["status"] not in ("proposed", "pending", "booked"):
        raise Unprocessable("$book books, moves (status booked) and cancels (status cancelled)", f"{path}.status")
    current = store.fetch(practice.repository, target.appointment)
    is_booked = current is not None and current.resource["status"] == "booked"
    if current is not None and is_booked and named and set(named) != set(slots.slots_of(current.resource)):
        return booking.move(practice, access, target.appointment, named, path)
    return booking.book(practice, access, target, told)


def _days(timing: Given | None) -> frozenset[str]:
    """Days of the week of a Timing; whatever else it asks for is refused: leaving it out would find too much."""
    if timing is None:
        return frozenset()
    repeat = timing.value.get("repeat")
    days = repeat.get("dayOfWeek") if isinstance(repeat, dict) else None
    if timing.value.keys() != {"repeat"} or not isinstance(days, list) or repeat.keys() != {"dayOfWeek"}:
        text = "of a timing, repeat.dayOfWeek is supported"
        raise BadRequest(text, timing.path, issues=[Issue("not-supported", text, timing.path)])
    if not days or not all(day in DAYS for day in days):
        raise BadRequest(f"a day is one of {', '.join(DAYS)}", f"{timing.path}.repeat.dayOfWeek")
    return frozenset(days)


def _local(practice: Practice, given: Given) -> str:
    """A reference to a resource of ours, relative. Raises BadRequest for another server's."""
    target = references.local(given.value["reference"], practice.repository.base_url)
    if target is None:
        raise BadRequest("a reference to a resource of this server is expected", given.path)
    return f"{target[0]}/{target[1]}"


def _below(path: str, expression: str | None) -> str:
    """An element of the Appointment as an element of the parameter."""
    return f"{path}{(expression or '').removeprefix('Appointment')}"


def _bundle(practice: Practice, name: str, appointments: Sequence[dict], total: int) -> dict:
    base = f"{practice.repository.base_url}/Appointment"
    entries = [
        {"fullUrl": f"{base}/{appointment['id']}", "resource": appointment, "search": {"mode": "match"}}
        for appointment in appointments
    ]
    bundle = {
        "resourceType": "Bundle",
        "type": "searchset",
        "total": total,
        "link": [{"relation": "self", "url": f"{base}/${name}"}],
    }
    return bundle | ({"entry": entries} if entries else {})
