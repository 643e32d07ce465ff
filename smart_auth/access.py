"""From user, client and granted scopes to one Access: what may be done, and whose data is seen.

The practice's staff and systems see all. A referring office sees what concerns it; through a token about one patient,
what of it is in that patient's compartment. A patient sees their own. Nobody sees more through a token than without
it: the scopes of a token are met with the rights of its user as they are now.
"""

from collections.abc import Iterable
from typing import TYPE_CHECKING

from fhir_server.access import AUDIT_SCOPE, AUDIT_TRAIL, Access, Scope, own_record
from smart_auth import scopes
from smart_auth.models import Client, User

if TYPE_CHECKING:
    from smart_auth.store import AuthStore

PRACTICE_ROLES = frozenset({"front-desk", "radiologist", "manager"})
SEE_PATIENTS = PRACTICE_ROLES | {"referrer"}
AUDITORS = frozenset({"admin", "auditor"})
ANY = "@any"  # catalogue resources: practitioners, organizations, code systems ...

_REFERRER_WRITES = {
    "Appointment": "cu",
    "Binary": "c",
    "Communication": "cu",
    "Condition": "cu",
    "Coverage": "cu",
    "DocumentReference": "cu",
    "Observation": "c",
    "Patient": "cu",
    "QuestionnaireResponse": "cu",
    "RelatedPerson": "cu",
    "ServiceRequest": "cu",
    "Subscription": "cud",
    "Task": "cu",
}
_AUDIT = Scope("user", AUDIT_TRAIL, "rs")
_DIRECTORY = ("Endpoint", "HealthcareService", "Location", "Organization", "Practitioner", "PractitionerRole")

RIGHTS: dict[str, tuple[Scope, ...]] = {
    "front-desk": (Scope("user", "*", "cruds"),),
    "radiologist": (Scope("user", "*", "cruds"),),
    "manager": (Scope("user", "*", "cruds"),),
    "referrer": (
        Scope("user", "*", "rs"),
        *(Scope("user", resource_type, letters) for resource_type, letters in _REFERRER_WRITES.items()),
    ),
    # An administrator without another role keeps the directory and sees no patient data: the audience is @any.
    # To delete is theirs for $expunge, which needs no sight of what goes; the rest they could delete they must see.
    "admin": (
        Scope("user", "*", "rds"),
        *(Scope("user", resource_type, "cu") for resource_type in _DIRECTORY),
        _AUDIT,
    ),
    # Who looks into the audit trail need see nothing of what it is about.
    "auditor": (_AUDIT, *(Scope("user", resource_type, "rs") for resource_type in _DIRECTORY)),
}
_PATIENT_RIGHTS = (Scope("patient", "*", "rs"),)


def rights_of_user(user: User, patient: str | None = None) -> tuple[Scope, ...]:
    """Every scope this user can grant. patient: the `Patient/<id>` in context, None without one."""
    rights = tuple(right for role in sorted(user.roles) for right in RIGHTS[role])
    if patient is None:
        return rights
    if patient == user.fhir_user:
        return rights + _PATIENT_RIGHTS
    if user.roles & SEE_PATIENTS:
        return rights + tuple(Scope("patient", right.resource_type, right.letters) for right in rights)
    return rights


def patient_context(user: User) -> str | None:
    """The patient that `patient/` scopes are about when no launch names one: the user's own record."""
    if user.fhir_user is not None and user.fhir_user.startswith("Patient/"):
        return user.fhir_user
    return None


def access_of_user(
    user: User,
    granted: Iterable[Scope] | None = None,
    *,
    client_id: str | None = None,
    patient: str | None = None,
    own: bool = False,
) -> Access:
    """A user's access: through a token with the granted scopes, or (None) with all their rights, as in the portal.

    own: the user's entry in the directory, or their record, may be read whatever else may (scope `fhirUser`).
    """
    rights = rights_of_user(user, patient)
    allowed = list(rights) if granted is None else _met(granted, rights)
    audience, compartment = _audience_of_user(user), None
    # One patient/ scope narrows the whole token: what is seen belongs to the caller, not to a single scope.
    if patient is not None and any(scope.context == "patient" for scope in allowed):
        compartment = frozenset({ANY, f"@{patient}", f"@owner/{user.subject}"})
        if audience is None or patient == user.fhir_user:
            audience, compartment = compartment, None
    if own and user.fhir_user is not None:
        resource_type = user.fhir_user.partition("/")[0]
        if not any(scope.grants("r", resource_type) and not scope.clauses for scope in allowed):
            allowed.append(own_record(user.fhir_user))
        if audience is not None and resource_type == "Patient":
            audience |= {f"@{user.fhir_user}"}
    return Access(
        subject=user.subject,
        scopes=tuple(allowed),
        audience=audience,
        client_id=client_id,
        organization=user.organization,
        fhir_user=user.fhir_user,
        patient=patient,
        roles=user.roles,
        compartment=compartment,
    )


def access_of_client(client: Client, granted: Iterable[Scope] | None = None) -> Access:
    """A program's access on its own behalf (`system/` scopes): those granted, or (None) all it is registered for."""
    registered = [s for s in scopes.resource_scopes(scopes.parse(client.scope)) if s.context == "system"]
    allowed = registered if granted is None else _met(granted, registered)
    audience, roles = None, frozenset({"practice"})
    if not client.practice:
        audience = _office(client.subject, client.organization)
        roles = frozenset({"referrer"} if client.organization else set())
    return Access(client.subject, tuple(allowed), audience, client.client_id, client.organization, roles=roles)


def access_of_subject(store: "AuthStore", subject: str) -> Access | None:
    """What `client:<id>` or `user:<name>` may do and see now; None when unknown or deactivated."""
    kind, _, name = subject.partition(":")
    if kind == "client":
        client = store.client(name)
        return access_of_client(client) if client is not None and client.active else None
    if kind == "user":
        user = store.user(name)
        return access_of_user(user) if user is not None and user.active else None
    return None


def accesses_of_subjects(store: "AuthStore", subjects: Iterable[str]) -> dict[str, Access]:
    """The same of many at once; without those who are unknown or deactivated."""
    names: dict[str, list[str]] = {"client": [], "user": []}
    for subject in subjects:
        kind, _, name = subject.partition(":")
        if kind in names:
            names[kind].append(name)
    clients = (access_of_client(client) for client in store.clients_of(names["client"]) if client.active)
    users = (access_of_user(user) for user in store.users_of(names["user"]) if user.active)
    return {access.subject: access for access in (*clients, *users)}


def _audience_of_user(user: User) -> frozenset[str] | None:
    if user.roles & PRACTICE_ROLES:
        return None
    seen = _office(user.subject, user.organization if "referrer" in user.roles else None)
    return seen | {AUDIT_SCOPE} if user.roles & AUDITORS else seen


def _office(subject: str, organization: str | None) -> frozenset[str]:
    if organization is None:
        return frozenset({ANY})
    return frozenset({ANY, f"@{organization}", f"@owner/{subject}"})


def _met(granted: Iterable[Scope], rights: Iterable[Scope]) -> list[Scope]:
    rights = list(rights)
    return [part for scope in granted for part in scopes.meet(scope, rights)]
