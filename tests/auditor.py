"""Who reads the audit trail."""

from collections.abc import Callable

from fhir_server.access import AUDIT_SCOPE, AUDIT_TRAIL, Access, Scope

AUDITOR = Access("user:otto", (Scope("user", AUDIT_TRAIL, "rs"),), frozenset({"@any", AUDIT_SCOPE}))
Audited = Callable[..., list[dict]]
