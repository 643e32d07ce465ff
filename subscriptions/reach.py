"""A Subscription made through a token that saw less than its owner tells no more than that token saw.

What narrowed the token is kept with the Subscription, in an extension that the server alone writes: parameters of the
scopes that let it read the type, and the patient it was about.
"""

from dataclasses import dataclass, replace

from conformance import CANONICAL
from fhir_server.access import Access, Scope
from fhir_server.clauses import clauses_of

EXTENSION = f"{CANONICAL}/StructureDefinition/subscription-reach"


@dataclass(frozen=True, slots=True)
class Reach:
    """queries: of the scopes with parameters, of which one must be met; None when all of the type could be read.
    patient: the only one, as `Patient/12`."""

    queries: tuple[str, ...] | None = None
    patient: str | None = None

    def narrow(self, access: Access, resource_type: str) -> Access:
        """The access of the owner, as far as the token went."""
        if self.queries is not None:
            # A parameter that can be held against a resource no more leaves nothing.
            known = [made for query in self.queries if (made := clauses_of(resource_type, query)) is not None]
            rights = [scope for scope in access.scopes if scope.grants("r", resource_type)]
            access = replace(
                access,
                scopes=tuple(
                    Scope(right.context, resource_type, "r", (*right.clauses, *clauses))
                    for right in rights
                    for clauses in known
                ),
            )
        if self.patient is not None:
            access = replace(access, compartment=frozenset({"@any", f"@{self.patient}"}))
        return access


def reach_of(access: Access, resource_type: str) -> Reach | None:
    """What narrows the sight of this token on the type; None when it sees what its user or client sees."""
    queries: tuple[str, ...] | None = None
    if access.reach("r", resource_type) is not None:
        granting = [scope for scope in access.scopes if scope.grants("r", resource_type)]
        queries = tuple("&".join(clause.text for clause in scope.clauses) for scope in granting)
    patient = access.patient if access.is_about_patient else None
    return None if queries is None and patient is None else Reach(queries, patient)


def kept(subscription: dict) -> Reach | None:
    """What is kept with a Subscription; None when nothing narrows it."""
    for extension in subscription.get("extension", []):
        if extension.get("url") == EXTENSION:
            parts = extension.get("extension", [])
            queries = tuple(part["valueString"] for part in parts if part["url"] == "scope")
            patients = [part["valueReference"]["reference"] for part in parts if part["url"] == "patient"]
            return Reach(queries or None, patients[0] if patients else None)
    return None


def with_reach(subscription: dict, reach: Reach | None) -> dict:
    """The Subscription with this kept, and no other."""
    others = [one for one in subscription.get("extension", []) if one.get("url") != EXTENSION]
    if reach is not None:
        parts: list[dict] = [{"url": "scope", "valueString": query} for query in reach.queries or ()]
        if reach.patient is not None:
            parts.append({"url": "patient", "valueReference": {"reference": reach.patient}})
        others.append({"url": EXTENSION, "extension": parts})
    rest = {name: value for name, value in subscription.items() if name != "extension"}
    return rest | ({"extension": others} if others else {})
