"""Refusals, each with its HTTP status and its FHIR issue code (value set issue-type).

Raise where the fact is known. `fhir_server.http` alone turns an error into an answer.
"""

import re
from dataclasses import dataclass, field

_NO_TEXT = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")  # what neither XML nor a string has


@dataclass(frozen=True, slots=True)
class Issue:
    """One fault: `code` from value set issue-type, `expression` the FHIRPath of the element at fault."""

    code: str
    diagnostics: str
    expression: str | None = None
    severity: str = "error"

    def as_fhir(self) -> dict:
        """The issue; of what it quotes from a request, characters that no text has are replaced."""
        issue: dict = {"severity": self.severity, "code": self.code, "diagnostics": _text(self.diagnostics)}
        if self.expression:
            issue["expression"] = [_text(self.expression)]
        return issue


def _text(quoting: str) -> str:
    return _NO_TEXT.sub("\N{REPLACEMENT CHARACTER}", quoting)


@dataclass(eq=False)
class FhirError(Exception):
    """A request we refuse. `diagnostics` says what is wrong without repeating patient data."""

    diagnostics: str
    expression: str | None = None
    issues: list[Issue] = field(default_factory=list)
    headers: dict[str, str] = field(default_factory=dict)

    status = 500
    issue_code = "exception"

    def __post_init__(self) -> None:
        super().__init__(self.diagnostics)

    def outcome(self) -> dict:
        """The OperationOutcome that tells the client what and where."""
        issues = self.issues or [Issue(self.issue_code, self.diagnostics, self.expression)]
        return {"resourceType": "OperationOutcome", "issue": [issue.as_fhir() for issue in issues]}


class BadRequest(FhirError):
    """The request cannot be understood: broken JSON, a bad parameter, a wrong id."""

    status, issue_code = 400, "invalid"


class InvalidStructure(FhirError):
    """The content is no valid FHIR R4 resource."""

    status, issue_code = 400, "structure"


class NotAuthenticated(FhirError):
    """No token, or one that is expired, revoked or not ours."""

    status, issue_code = 401, "login"


class Forbidden(FhirError):
    """Known caller, but this is not theirs to do."""

    status, issue_code = 403, "forbidden"


class NotFound(FhirError):
    """Not here, or not for this caller: both look the same, so that ids cannot be probed."""

    status, issue_code = 404, "not-found"


class MethodNotAllowed(FhirError):
    status, issue_code = 405, "not-supported"


class NotAcceptable(FhirError):
    status, issue_code = 406, "not-supported"


class Conflict(FhirError):
    """Somebody else was quicker; reading again and repeating may help."""

    status, issue_code = 409, "conflict"


class Overtaken(Conflict):
    """Nothing was written, and what was asked for may be prepared anew from what is there now."""


class Gone(FhirError):
    status, issue_code = 410, "deleted"


class PreconditionFailed(FhirError):
    """If-Match is stale, or a conditional criterion matches more than one resource."""

    status, issue_code = 412, "conflict"


class TooLarge(FhirError):
    status, issue_code = 413, "too-long"


class UnsupportedMediaType(FhirError):
    status, issue_code = 415, "not-supported"


class Unprocessable(FhirError):
    """Valid FHIR that breaks a rule: an illegal status move, a dangling reference, a profile."""

    status, issue_code = 422, "business-rule"


class TooManyRequests(FhirError):
    status, issue_code = 429, "throttled"


class Unavailable(FhirError):
    """The store does not answer just now; nothing was acknowledged."""

    status, issue_code = 503, "transient"
