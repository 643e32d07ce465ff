"""Who is who in a referral: the office that placed the order, the office that owns a step, the practice."""

from fhir_server.access import Access
from fhir_server.repository import Repository
from referral import store
from referral.codes import entered_by_staff, reference


def organizations_of(repository: Repository, party: str) -> list[str]:
    """Organizations that a requester, performer or owner stands for; empty when that is not on record."""
    resource_type = party.partition("/")[0]
    if resource_type == "Organization":
        return [party]
    if resource_type == "PractitionerRole":
        role = store.fetch(repository, party)
        return [reference(role.resource.get("organization"))] if role else []
    if resource_type == "Practitioner":
        roles = store.every(repository, "PractitionerRole", [("practitioner", party)])
        found = [reference(role.resource().get("organization")) for role in roles]
        return [organization for organization in dict.fromkeys(found) if organization]
    return []


def belongs_to(repository: Repository, access: Access, party: str) -> bool:
    """Whether the caller is that party, or of an organization it stands for."""
    if not party:
        return False
    if party in (access.organization, access.fhir_user, access.patient):
        return True
    return access.organization is not None and access.organization in organizations_of(repository, party)


def is_placer(repository: Repository, access: Access, order: dict) -> bool:
    """Whether the caller may change the order: who wrote it first, the requester's organization, or the
    practice's staff for an order they entered for a placer without a system (ServiceRequest.meta.tag origin).
    """
    if "system" in access.roles or wrote_first(repository, access, order):
        return True
    if access.is_practice:
        return entered_by_staff(order)
    return belongs_to(repository, access, reference(order.get("requester")))


def wrote_first(repository: Repository, access: Access, resource: dict) -> bool:
    """Whether the caller wrote the first version."""
    first = repository.store.version(resource["resourceType"], resource["id"], 1)
    return first is not None and first.by == access.subject
