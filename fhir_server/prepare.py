"""From a write as asked for to a change that can be committed. Everything that can be refused is refused here.

The drafts of one commit are prepared together, because they may refer to one another.
"""

import uuid
from dataclasses import dataclass, replace
from datetime import datetime
from typing import TYPE_CHECKING

import conformance
from fhir_server import fhir_json, references
from fhir_server.access import Access
from fhir_server.admission import Write
from fhir_server.errors import BadRequest, FhirError, Forbidden, Issue, PreconditionFailed, Unprocessable
from fhir_server.scope import Scoping
from fhir_server.store import Change, Guard
from fhir_server.validation import check_id, check_type
from fhir_server.version import Version

if TYPE_CHECKING:
    from fhir_server.repository import Repository


@dataclass(slots=True, eq=False)
class Draft:
    """One write as asked for. path: where it stands in a Bundle, such as `Bundle.entry[3].resource`."""

    interaction: str
    resource: dict
    if_match: int | None = None
    if_none_exist: str | None = None
    path: str | None = None
    id: str | None = None  # set when placed
    existing: Version | None = None  # what a conditional create found


@dataclass(frozen=True, slots=True)
class Outcome:
    """The version that results. change: what is to be committed; None when nothing changes."""

    version: Version
    created: bool
    change: Change | None


class Preparation:
    """Prepares the drafts of one commit; collects the guards and grants that go with it."""

    def __init__(self, repository: "Repository", access: Access) -> None:
        self._repository = repository
        self._access = access
        self._now = _milliseconds(repository.clock())
        self._placed: dict[tuple[str, str], Draft] = {}
        self._scoping = Scoping(repository.store, self._pending)
        self.guards: list[Guard] = []
        self.grants: dict[tuple[str, str], set[str]] = {}

    def place(self, draft: Draft) -> tuple[str, str]:
        """Decide the (type, id) that the draft will have, so that others can refer to it."""
        resource_type = draft.resource.get("resourceType") if isinstance(draft.resource, dict) else None
        if not isinstance(resource_type, str):
            raise BadRequest("a resource with a resourceType is expected", draft.path)
        check_type(resource_type)
        self._access.require(draft.interaction, resource_type)
        if draft.interaction == "create":
            if draft.if_none_exist is not None:
                self._meet_condition(draft, resource_type)
            draft.id = draft.existing.id if draft.existing else draft.id or str(uuid.uuid4())
        else:
            draft.id = check_id(draft.resource.get("id"))
        key = (resource_type, draft.id)
        if key in self._placed and draft.existing is None:
            raise BadRequest(f"{resource_type}/{draft.id} is written twice", draft.path)
        self._placed[key] = draft
        return key

    def prepare(self, draft: Draft) -> Outcome:
        """Check the draft and make its change. Faults name the entry of the Bundle they are in."""
        try:
            return self._prepare(draft)
        except FhirError as error:
            raise _in_bundle(error, draft.path) from None

    def _prepare(self, draft: Draft) -> Outcome:
        if draft.existing is not None:
            return Outcome(draft.existing, created=False, change=None)
        resource_type, id = draft.resource["resourceType"], draft.id or ""
        before = None if draft.interaction == "create" else self._repository.store.newest(resource_type, id)
        self._check_precondition(draft, before)
        if before is not None and not self._access.sees(before.scope):
            raise Forbidden(f"{resource_type}/{id} cannot be written by this caller")
        if draft.interaction == "delete":
            return self._delete(draft, before)
        # Admissions see structurally valid content only, and what they change is checked again.
        self._repository.check(draft.resource)
        old = before.resource() if before and not before.deleted else None
        resource = {**draft.resource, "id": id}
        admitted = self._repository.admit(
            Write("update" if old else "create", old, resource, self._access, self._repository)
        )
        if admitted is None:
            raise TypeError("an admission of a create or update returns the resource")
        if admitted is not resource:
            self._repository.check(admitted)
        if self._repository.check_references:
            self._check_references(admitted)
        if before is not None and not before.deleted and _same(before, admitted):
            return Outcome(before, created=False, change=None)
        change = self._change(admitted, before)
        return Outcome(change.version, created=before is None or before.deleted, change=change)

    def _change(self, resource: dict, before: Version | None) -> Change:
        number = self._repository.store.numbers.next()
        version = before.version + 1 if before else 1
        resource_type, id = resource["resourceType"], resource["id"]
        meta = {**resource.get("meta", {}), "versionId": str(version), "lastUpdated": instant(self._now)}
        resource = {"resourceType": resource_type, "id": id, "meta": meta} | {
            name: value for name, value in resource.items() if name not in ("resourceType", "id", "meta")
        }
        entry = self._repository.indexer.index(resource)
        scope = self._scoping.scope_of(resource, entry.keys, self._access, before)
        for target, keys in self._scoping.grants(resource, scope).items():
            if target not in self._placed:
                self.grants.setdefault(target, set()).update(keys)
        committed = Version(
            resource_type,
            id,
            version,
            number,
            before.created if before else number,
            self._now,
            self._access.subject,
            "update" if before and not before.deleted else "create",
            fhir_json.dumps(resource),
            tuple(sorted(scope)),
            ("*", *sorted(scope), *entry.keys),
        )
        return Change(committed, entry.ranges, entry.sorts, _previous(before))

    def _delete(self, draft: Draft, before: Version | None) -> Outcome:
        if before is None or before.deleted:
            return Outcome(before or _never(draft, self._now), created=False, change=None)
        self._repository.admit(Write("delete", before.resource(), None, self._access, self._repository))
        deletion = replace(
            before,
            version=before.version + 1,
            number=self._repository.store.numbers.next(),
            last_updated=self._now,
            by=self._access.subject,
            op="delete",
            body=None,
            keys=(),
        )
        return Outcome(deletion, created=False, change=Change(deletion, previous=before.version))

    def _check_precondition(self, draft: Draft, before: Version | None) -> None:
        if draft.if_match is None:
            return
        if before is None or before.deleted or before.version != draft.if_match:
            raise PreconditionFailed(f"version {draft.if_match} is not the current one", draft.path)

    def _check_references(self, resource: dict) -> None:
        def known(targets: set[tuple[str, str]]) -> set[tuple[str, str]]:
            here = targets & self._placed.keys()
            return here | self._repository.existing(self._access, targets - here)

        dangling = references.missing(resource, self._repository.base_url, known)
        if dangling:
            issues = [Issue("not-found", f"{reference} is not known here", path) for path, reference in dangling]
            raise Unprocessable("a reference leads nowhere", issues=issues)

    def _meet_condition(self, draft: Draft, resource_type: str) -> None:
        """Find what the conditional create asks for, or hold its place."""
        criteria = draft.if_none_exist or ""
        # Callers who see different resources don't compete, so the guard is one of the audience too.
        audience = "*" if self._access.audience is None else ",".join(sorted(self._access.audience))
        name = f"{audience}|{resource_type}?{criteria}"
        # The guard is read before the search: whoever commits after that changes it, and we start anew.
        holder = self._repository.store.guard(name)
        found = self._repository.match_one(self._access, resource_type, criteria, draft.path)
        if found is not None:
            draft.existing = found
            return
        draft.id = str(uuid.uuid4())
        self.guards.append(Guard(name, draft.id, replaces=holder))

    def _pending(self, resource_type: str, id: str) -> dict | None:
        """The content of a draft of this commit, for scopes that are inherited within it."""
        draft = self._placed.get((resource_type, id))
        return draft.resource if draft and draft.existing is None and draft.interaction != "delete" else None


def instant(moment: datetime) -> str:
    """FHIR instant with milliseconds and offset."""
    return moment.isoformat(timespec="milliseconds")


def _milliseconds(moment: datetime) -> datetime:
    return moment.replace(microsecond=moment.microsecond // 1000 * 1000)  # what MongoDB keeps


def _previous(before: Version | None) -> int | None:
    return before.version if before and not before.deleted else None


def _same(before: Version, resource: dict) -> bool:
    """Whether the content is that of the stored version, whatever meta says of version and time."""

    def content(value: dict) -> dict:
        meta = {k: v for k, v in value.get("meta", {}).items() if k not in ("versionId", "lastUpdated")}
        rest = {name: child for name, child in value.items() if name != "meta"}
        return rest | ({"meta": meta} if meta else {})

    return fhir_json.dumps(_sorted(content(before.resource()))) == fhir_json.dumps(_sorted(content(resource)))


def _sorted(value: object) -> object:
    """Objects with their names in order. Compared as JSON, since 1.10 and 1.1 are equal Decimals."""
    if isinstance(value, dict):
        return {name: _sorted(value[name]) for name in sorted(value)}
    return [_sorted(child) for child in value] if isinstance(value, list) else value


def _never(draft: Draft, now: datetime) -> Version:
    """Stands for what a delete of an unknown id leaves: nothing."""
    return Version(draft.resource["resourceType"], draft.id or "", 0, 0, 0, now, "", "delete", None)


def _in_bundle(error: FhirError, path: str | None) -> FhirError:
    """The same error, its issues below the entry they belong to: `Bundle.entry[3].resource.status`."""
    if path is None:
        return error
    issues = error.issues or [Issue(error.issue_code, error.diagnostics, error.expression)]
    error.issues = [replace(issue, expression=_below(path, issue.expression)) for issue in issues]
    return error


def _below(path: str, expression: str | None) -> str:
    if not expression or expression.startswith("Bundle"):
        return expression or path
    head, dot, rest = expression.partition(".")
    bracket = head.partition("[")[0]
    return f"{path}{dot}{rest}" if bracket in conformance.resource_types() else f"{path}.{expression}"
