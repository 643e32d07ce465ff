"""The topics that can be subscribed to: what triggers them, what they can be filtered by."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from types import MappingProxyType

from conformance.canonical import CANONICAL
from conformance.definitions import search_parameters

# Modifiers that a filter may carry, by the type of its search parameter.
MODIFIERS: Mapping[str, tuple[str, ...]] = {
    "reference": ("identifier", "missing"),
    "token": ("not", "missing"),
    "uri": ("missing",),
}
_BOTH = frozenset({"create", "update"})
_REPORTED = frozenset("preliminary partial final amended corrected appended".split())


@dataclass(frozen=True, slots=True)
class Topic:
    """One topic; its focus is the resource whose version triggered it.

    interactions: create, update. watched: elements of which an update must change one; empty: any version counts.
    statuses: the version has come to one of these statuses; empty: any. filters: search parameter code -> modifiers.
    """

    url: str
    name: str
    title: str
    description: str
    resource_type: str
    interactions: frozenset[str]
    watched: tuple[str, ...]
    statuses: frozenset[str]
    filters: Mapping[str, tuple[str, ...]]


@cache
def topics() -> Mapping[str, Topic]:
    """The topics of this server by their canonical URL."""
    made = (
        _topic(
            "referral-order",
            "Referral orders",
            "An order (ServiceRequest) was placed or changed.",
            "ServiceRequest",
            "requester patient priority status identifier",
        ),
        _topic(
            "referral-status",
            "Referral status",
            "The status, business status or owner of a referral's Task has changed. This is how a referring office "
            "learns that a referral was received, scheduled, kept or missed, and that images and report are there.",
            "Task",
            "owner requester patient code status business-status focus part-of identifier",
            watched=("status", "businessStatus", "owner"),
        ),
        _topic(
            "appointment-status",
            "Appointments",
            "An appointment was made or its status or start has changed; status noshow is a missed one.",
            "Appointment",
            "patient based-on status location",
            watched=("status", "start"),
        ),
        _topic(
            "imaging-available",
            "Images available",
            "The images of a study have become available.",
            "ImagingStudy",
            "patient basedon modality",
            statuses=frozenset({"available"}),
        ),
        _topic(
            "report-status",
            "Reports",
            "A report has come to status preliminary, partial, final, amended, corrected or appended.",
            "DiagnosticReport",
            "patient based-on status category",
            statuses=_REPORTED,
        ),
        _topic(
            "referral-message",
            "Messages",
            "The practice or an office has written a message about a referral.",
            "Communication",
            "recipient patient based-on",
            interactions=frozenset({"create"}),
        ),
        _topic(
            "feedback",
            "Feedback",
            "A survey was completed.",
            "QuestionnaireResponse",
            "questionnaire author based-on",
            statuses=frozenset({"completed"}),
        ),
    )
    return MappingProxyType({topic.url: topic for topic in made})


def _topic(
    name: str,
    title: str,
    description: str,
    resource_type: str,
    filters: str,
    interactions: frozenset[str] = _BOTH,
    watched: tuple[str, ...] = (),
    statuses: frozenset[str] = frozenset(),
) -> Topic:
    parameters = search_parameters(resource_type)
    offered = {code: MODIFIERS[parameters[code].type] for code in filters.split()}
    url = f"{CANONICAL}/SubscriptionTopic/{name}"
    return Topic(
        url, name, title, description, resource_type, interactions, watched, statuses, MappingProxyType(offered)
    )
