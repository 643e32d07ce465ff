"""What one caller may do and see. Made by smart_auth from a token; used by every package that touches data.

A resource carries *scope keys* of who may see it (`@Patient/12`, `@Organization/o1`, `@any`,
`@owner/<subject>`); a caller carries an *audience*. The Repository adds the audience to each query, so no
search, include, chain or history can leave it out.
"""

from dataclasses import dataclass, field

from fhir_server.errors import Forbidden

INTERACTIONS = {"create": "c", "read": "r", "update": "u", "delete": "d", "search": "s"}
ADMINISTRATORS = frozenset({"admin", "practice", "system"})  # roles


@dataclass(frozen=True, slots=True)
class Scope:
    """One granted SMART v2 scope, e.g. `user/Task.rs`: context, type (or `*`) and letters of `cruds`."""

    context: str
    resource_type: str
    letters: str

    def __str__(self) -> str:
        return f"{self.context}/{self.resource_type}.{self.letters}"


@dataclass(frozen=True, slots=True)
class Access:
    """Who calls, and what they may do.

    subject: stable name, `client:<id>`, `user:<name>` or `system:<part of this server>`; no PHI.
    audience: scope keys the caller sees; None sees all (the practice's own staff and systems).
    organization, fhir_user, patient: references such as `Organization/o1`, where there is one.
    """

    subject: str
    scopes: tuple[Scope, ...] = ()
    audience: frozenset[str] | None = frozenset()
    client_id: str | None = None
    organization: str | None = None
    fhir_user: str | None = None
    patient: str | None = None
    roles: frozenset[str] = field(default_factory=frozenset)

    @classmethod
    def system(cls, part: str) -> "Access":
        """The access of a part of this server itself: everything."""
        return cls(f"system:{part}", (Scope("system", "*", "cruds"),), None, roles=frozenset({"system"}))

    @property
    def is_practice(self) -> bool:
        """True for the practice's staff and systems, which see every referral."""
        return self.audience is None

    @property
    def is_administrator(self) -> bool:
        """True for administrators, the practice's own systems and parts of this one."""
        return not self.roles.isdisjoint(ADMINISTRATORS)

    def allows(self, interaction: str, resource_type: str) -> bool:
        letter = INTERACTIONS[interaction]
        return any(letter in scope.letters and scope.resource_type in ("*", resource_type) for scope in self.scopes)

    def require(self, interaction: str, resource_type: str) -> None:
        """Raise Forbidden unless a granted scope allows the interaction on the type."""
        if not self.allows(interaction, resource_type):
            raise Forbidden(f"no granted scope allows {interaction} of {resource_type}")

    def sees(self, scope_keys: "frozenset[str] | set[str] | list[str] | tuple[str, ...]") -> bool:
        """Whether a resource with these scope keys is visible to the caller."""
        return self.audience is None or not self.audience.isdisjoint(scope_keys)
