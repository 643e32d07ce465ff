"""What one caller may do and see. Made by smart_auth from a token; used by every package that touches data.

A resource carries *scope keys* of who may see it (`@Patient/12`, `@Organization/o1`, `@any`,
`@owner/<subject>`); a caller carries an *audience*. The Repository adds the audience to each query, so no
search, include, chain or history can leave it out. Scopes with parameters narrow that further, by the search keys
that a resource has (`fhir_server.reach`).
"""

from collections.abc import Collection, Iterable
from dataclasses import dataclass, field

from fhir_server.errors import Forbidden

INTERACTIONS = {"create": "c", "read": "r", "update": "u", "delete": "d", "search": "s"}
AUDIT_TRAIL = "AuditEvent"  # the type that scopes of all types leave out: it is granted by name
AUDIT_SCOPE = "@audit"  # the scope key of what is in it
ADMINISTRATORS = frozenset({"admin", "practice", "system"})  # roles

INSUFFICIENT = {"WWW-Authenticate": 'Bearer error="insufficient_scope"'}  # RFC 6750 section 3.1

Keys = frozenset[str]  # of which a resource has one
Reach = tuple[tuple[Keys, ...], ...]  # of these alternatives, a resource meets all of one


@dataclass(frozen=True, slots=True)
class Clause:
    """One parameter of a scope: as it was asked, `category=laboratory`, and the search keys of which one meets it."""

    text: str
    keys: Keys


@dataclass(frozen=True, slots=True)
class Scope:
    """One granted SMART v2 scope, e.g. `user/Task.rs`: context, type (or `*`) and letters of `cruds`.

    clauses: it is about the resources alone that meet all of these.
    """

    context: str
    resource_type: str
    letters: str
    clauses: tuple[Clause, ...] = ()

    def __str__(self) -> str:
        query = "&".join(clause.text for clause in self.clauses)
        return f"{self.context}/{self.resource_type}.{self.letters}{'?' if query else ''}{query}"

    def grants(self, letters: str, resource_type: str) -> bool:
        """Whether it has one of the letters, for resources of the type or some of them."""
        types = (AUDIT_TRAIL,) if resource_type == AUDIT_TRAIL else ("*", resource_type)
        return self.resource_type in types and not set(letters).isdisjoint(self.letters)


def own_record(fhir_user: str) -> Scope:
    """What `fhirUser` allows: to read the entry of the user, such as `Practitioner/12`."""
    resource_type, _, id = fhir_user.partition("/")
    key = f"_id={id}"
    return Scope("user", resource_type, "r", (Clause(key, frozenset({key})),))


_EVERYTHING = (Scope("system", "*", "cruds"),)


@dataclass(frozen=True, slots=True)
class Access:
    """Who calls, and what they may do.

    subject: stable name, `client:<id>`, `user:<name>` or `system:<part of this server>`; no PHI.
    audience: scope keys the caller sees; None sees all (the practice's own staff and systems).
    organization, fhir_user, patient: references such as `Organization/o1`, where there is one. token: the id of the
    token (jti), where there is one.
    compartment: of what the audience sees, only what has one of these scope keys too; None leaves all of it.
    """

    subject: str
    scopes: tuple[Scope, ...] = ()
    audience: frozenset[str] | None = frozenset()
    client_id: str | None = None
    organization: str | None = None
    fhir_user: str | None = None
    patient: str | None = None
    roles: frozenset[str] = field(default_factory=frozenset)
    compartment: frozenset[str] | None = None
    token: str | None = None

    @classmethod
    def system(cls, part: str) -> "Access":
        """The access of a part of this server itself: everything."""
        return cls(f"system:{part}", _EVERYTHING, None, roles=frozenset({"system"}))

    def of_the_server(self) -> "Access":
        """For a part of this server that looks something up for the caller: what they see, whatever their scopes."""
        return Access(self.subject, _EVERYTHING, self.audience, compartment=self.compartment)

    @property
    def is_practice(self) -> bool:
        """True for the practice's staff and systems, which see every referral."""
        return self.audience is None and self.compartment is None

    @property
    def is_administrator(self) -> bool:
        """True for administrators, the practice's own systems and parts of this one."""
        return not self.roles.isdisjoint(ADMINISTRATORS)

    def allows(self, interaction: str, resource_type: str) -> bool:
        """Whether a granted scope allows the interaction on resources of the type, or on some of them."""
        return any(scope.grants(INTERACTIONS[interaction], resource_type) for scope in self.scopes)

    def require(self, interaction: str, resource_type: str) -> None:
        """Raise Forbidden unless a granted scope allows the interaction on the type."""
        if not self.allows(interaction, resource_type):
            raise Forbidden(f"no granted scope allows {interaction} of {resource_type}", headers=INSUFFICIENT)

    def require_every(self, interaction: str, resource_type: str) -> None:
        """Raise Forbidden unless a scope without parameters allows it: where these are not held against each one."""
        self.require(interaction, resource_type)
        if self.reach(INTERACTIONS[interaction], resource_type) is not None:
            raise Forbidden(f"this needs a scope for {resource_type} without parameters", headers=INSUFFICIENT)

    def reach(self, letters: str, resource_type: str) -> Reach | None:
        """What a resource of the type must meet for one of these letters; None when all resources are met."""
        granting = [scope for scope in self.scopes if scope.grants(letters, resource_type)]
        if any(not scope.clauses for scope in granting):
            return None
        return tuple(tuple(clause.keys for clause in scope.clauses) for scope in granting)

    @property
    def is_limited(self) -> bool:
        """Whether a scope has parameters; one on the caller's own entry in the directory takes nothing away."""
        own = own_record(self.fhir_user) if self.fhir_user else None
        return any(scope.clauses and scope != own for scope in self.scopes)

    @property
    def is_about_patient(self) -> bool:
        """Whether a scope is about one patient, which narrows all that is seen."""
        return self.patient is not None and any(scope.context == "patient" for scope in self.scopes)

    def require_own_patient(self, parameters: Iterable[tuple[str, str]]) -> None:
        """Raise Forbidden when a search with a token of one patient names another one.

        An empty answer would look as if the other one had nothing. SMART Imaging Access, section 5.2.3.
        """
        if not self.is_about_patient or self.patient is None:
            return
        own = self.patient.rpartition("/")[2]
        for name, value in parameters:
            if name not in ("patient", "patient:Patient", "subject", "subject:Patient"):
                continue
            if any(one.rpartition("/")[2] != own for one in value.split(",") if one):
                raise Forbidden("this token is for another patient", headers=INSUFFICIENT)

    @property
    def is_narrowed(self) -> bool:
        """Whether this is a token that sees less than its user or client: of some resources, or of one patient."""
        return self.is_limited or self.is_about_patient

    @property
    def sights(self) -> tuple[frozenset[str], ...]:
        """Of each of these sets, what the caller sees has a scope key."""
        return tuple(keys for keys in (self.audience, self.compartment) if keys is not None)

    def sees(self, scope_keys: Collection[str]) -> bool:
        """Whether a resource with these scope keys is visible to the caller."""
        if self.audience is not None and self.audience.isdisjoint(scope_keys):
            return False
        return self.compartment is None or not self.compartment.isdisjoint(scope_keys)
