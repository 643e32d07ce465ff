"""What the token endpoint answers: the access token, the context of the launch, and a refresh token when one is due.

https://hl7.org/fhir/smart-app-launch/scopes-and-launch-context.html#launch-context-arrives-with-your-access_token
"""

from datetime import datetime, timedelta
from secrets import token_urlsafe
from typing import Any

from smart_auth import scopes, tokens
from smart_auth.models import Context, Grant, RefreshToken, digest
from smart_auth.service import AuthService

OFFLINE = timedelta(days=100)  # SMART asks for three months at least; each use begins them anew


def end_of_grant(service: AuthService, scope: str, auth_time: datetime) -> datetime:
    """When a grant with this scope ends if it is not used: an hour, or the log-in, or OFFLINE from now."""
    now, words = service.clock().replace(microsecond=0), scopes.words(scope)
    if "offline_access" in words:
        return now + OFFLINE
    if "online_access" in words:
        return max(auth_time + service.sessions.absolute, now)
    return now + tokens.LIFETIME


def token_answer(service: AuthService, grant: Grant, scope: str) -> dict[str, Any]:
    """The members of a successful answer. scope: what of the grant the access token shall carry."""
    now = service.clock().replace(microsecond=0)
    answer: dict[str, Any] = {
        "access_token": service.issuer.access_token(grant, scope, tokens.LIFETIME),
        "token_type": "Bearer",
        "expires_in": int(min(tokens.LIFETIME, grant.expires - now).total_seconds()),
        "scope": scope,
        **context_members(service, grant.context),
    }
    if scopes.words(grant.scope).intersection(scopes.REFRESH):
        answer["refresh_token"] = _refresh_token(service, grant)
    return answer


def context_members(service: AuthService, context: Context) -> dict[str, Any]:
    """`patient`, `encounter`, `fhirContext` ... of a token answer; none without a launch."""
    members: dict[str, Any] = {}
    if context.patient is not None:
        members["patient"] = context.patient.removeprefix("Patient/")
    if context.encounter is not None:
        members["encounter"] = context.encounter.removeprefix("Encounter/")
    if context.fhir_context:
        members["fhirContext"] = [{"reference": reference} for reference in context.fhir_context]
    if context.intent is not None:
        members["intent"] = context.intent
    if context.banner is not None:
        members["need_patient_banner"] = context.banner
    if context.tenant is not None:
        members["tenant"] = context.tenant
    if members:
        members["smart_style_url"] = service.style_url
    return members


def _refresh_token(service: AuthService, grant: Grant) -> str:
    value = token_urlsafe(32)
    client_id = grant.client_id or ""
    service.store.add_refresh_token(RefreshToken(digest(value), grant.id, client_id, grant.expires))
    return value
