"""SMART apps opened from the page of a referral, with what the user has in view."""

from fhir_server.access import Access
from referral import board, store
from referral.context import Practice
from smart_auth.models import Context

MAX_IN_VIEW = 20  # references of each kind


def context_of(practice: Practice, access: Access, task_id: str) -> Context:
    """The referral of that Task as a launch context: patient, order, Task, reports and studies. Raises NotFound."""
    card = board.card_of(practice, access, task_id)
    repository = practice.repository

    def about(resource_type: str, parameter: str) -> tuple[str, ...]:
        found = store.every(repository, resource_type, [(parameter, card.order)], access)
        return tuple(version.reference for version in found)[:MAX_IN_VIEW]

    reports, studies = about("DiagnosticReport", "based-on"), about("ImagingStudy", "basedon")
    order = store.fetch(repository, card.order, access)
    encounter = order.resource.get("encounter", {}).get("reference") if order is not None else None
    return Context(
        patient=card.patient,
        encounter=encounter if encounter is not None and encounter.startswith("Encounter/") else None,
        fhir_context=(card.order, card.task, *reports, *studies),
        intent="view-report" if reports else "view-images" if studies else "referral-status",
        banner=True,  # the app is opened beside our page, not in it
    )
