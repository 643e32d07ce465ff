"""From a write as asked for to a change that can be committed. Everything that can be refused is refused here.

The drafts of one commit are prepared together, because they may refer to one another.
"""

import uuid
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from datetime import datetime
from functools import partial
from typing import TYPE_CHECKING

import conformance
from fhir_server import fhir_json, references
from fhir_server.access import AUDIT_TRAIL, INTERACTIONS, Access
from fhir_server.admission import Write
from fhir_server.conditional import Conditions
from fhir_server.errors import (
    BadRequest,
    Conflict,
    FhirError,
    Forbidden,
    Gone,
    Issue,
    MethodNotAllowed,
    NotFound,
    PreconditionFailed,
    TooLarge,
    Unprocessable,
)
from fhir_server.holds import Hold, Target
from fhir_server.narrative import safe_narrative
from fhir_server.referrers import referrer
from fhir_server.scope import Scoping
from fhir_server.store import Change, VersionStore, VersionTaken
from fhir_server.validation import check_id, check_type
from fhir_server.version import Version

if TYPE_CHECKING:
    from fhir_server.repository import Repository


Patch = Callable[[dict], dict]  # the resource as it is -> as it shall be; may change what it gets
MAX_RESOURCE_BYTES = 12 * 1024 * 1024  # a MongoDB document holds 16 MB, keys included
_ASKED = {"patch": "update"}  # what a scope calls it


@dataclass(slots=True, eq=False)
class Draft:
    """One write as asked for: create, update, patch or delete.

    criteria: of a conditional one, the query that finds the resource. if_none_match: an update that must not meet a
    resource. patch: what a patch does; its `resource` has the type, and the id where there are no criteria. path:
    where it stands in a Bundle, such as `Bundle.entry[3].resource`.
    """

    interaction: str
    resource: dict
    if_match: int | None = None
    criteria: str | None = None
    if_none_match: bool = False
    patch: Patch | None = None
    path: str | None = None
    id: str | None = None  # of a create, when its writer chose it; of all others settled when placed
    existing: Version | None = None  # what a conditional create found; settled when placed, as is all below
    met: Version | None = None  # what criteria found or a patch was applied to; it must still be the newest
    unmet: bool = False  # criteria found nothing, so there must be nothing
    twin: "Draft | None" = None  # the draft of the same commit that makes what this one asks for
    others: "tuple[Draft, ...]" = ()  # of a delete whose criteria match several: those of all but the first

    @property
    def asked(self) -> str:
        """The interaction as scopes know it."""
        return _ASKED.get(self.interaction, self.interaction)

    @property
    def letter(self) -> str:
        return INTERACTIONS[self.asked]

    def anew(self, resource: dict, id: str | None) -> None:
        """Forget what was settled, so as to place the draft again from what was asked for."""
        self.resource, self.id = resource, id
        self.existing, self.met, self.unmet, self.twin, self.others = None, None, False, None, ()


@dataclass(frozen=True, slots=True)
class Outcome:
    """The version that results. change: what is to be committed; None when nothing changes.

    others: what comes of `Draft.others`.
    """

    version: Version
    created: bool
    change: Change | None
    others: "tuple[Outcome, ...]" = ()


class Preparation:
    """Prepares the drafts of one commit; collects the guards and grants that go with it."""

    def __init__(self, repository: "Repository", access: Access) -> None:
        self._repository = repository
        self._access = access
        self._now = _milliseconds(repository.clock())
        self._placed: dict[tuple[str, str], Draft] = {}
        self._deleted: set[tuple[str, str]] = set()
        self._outcomes: dict[Draft, Outcome] = {}
        self._conditions = Conditions(repository, access)
        # Over what is placed and not over ourselves: a cycle would keep large content until it is looked for.
        self._scoping = Scoping(repository.store, partial(_pending, self._placed))
        self._shown: dict[Target, set[str]] = {}  # what some may see from now on, and their scope keys
        self._known = repository.store.generations()  # before anything is looked for
        self._referred: set[Target] = set()
        self._leaving: set[Target] = set()
        self._hidden: set[Target] = set()

    def commit(self, outcomes: Iterable[Outcome]) -> set[str]:
        """Commit what is to be changed, together; the types of it.

        Raises Conflict when something refers to what is deleted; Overtaken when somebody else was quicker.
        """
        every = [one for outcome in outcomes for one in (outcome, *outcome.others)]
        changes = [outcome.change for outcome in every if outcome.change is not None]
        if not changes:
            return set()
        # What the commit itself writes cannot be deleted at the same time.
        written = {(change.version.resource_type, change.version.id) for change in changes}
        leaving = frozenset(self._leaving | self._hidden)
        hold = Hold(frozenset(self._referred - written), self._known, leaving, self.check_referrers)
        grants = self._grants(written)
        changes = [self._widened(change) for change in changes]
        self._repository.store.commit(changes, self._conditions.guards, grants, hold)
        for target, keys in grants.items():
            self._repository.store.shown(target, keys, self._known)
        return {resource_type for resource_type, _ in written}

    def _grants(self, written: set[Target]) -> dict[Target, set[str]]:
        """The scope keys that what this commit does not write gets by it, and does not have yet."""
        store, grants = self._repository.store, {}
        for target in self._shown.keys() - written:
            scope = store.scope_of(target, self._known)
            if scope is not None and (new := self._shown[target].difference(scope)):
                grants[target] = new
        return grants

    def _widened(self, change: Change) -> Change:
        """The change, with who may see it because of what else the commit writes."""
        version = change.version
        shown = self._shown.get((version.resource_type, version.id))
        if shown is None or version.deleted or shown.issubset(version.scope):
            return change
        scope = sorted(shown.union(version.scope))
        others = (key for key in version.keys[1:] if not key.startswith("@"))
        return replace(change, version=replace(version, scope=tuple(scope), keys=("*", *scope, *others)))

    def place(self, draft: Draft) -> tuple[str, str]:
        """Decide the (type, id) that the draft will have, so that others can refer to it; apply a patch."""
        try:
            return self._place(draft)
        except FhirError as error:
            raise in_bundle(error, draft.path) from None

    def _place(self, draft: Draft) -> tuple[str, str]:
        resource_type = draft.resource.get("resourceType") if isinstance(draft.resource, dict) else None
        if not isinstance(resource_type, str):
            raise BadRequest("a resource with a resourceType is expected", draft.path)
        check_type(resource_type)
        if resource_type == AUDIT_TRAIL:
            raise MethodNotAllowed("the audit trail is written by this server alone", draft.path or AUDIT_TRAIL)
        self._access.require(draft.asked, resource_type)
        if draft.criteria is not None:
            self._conditions.meet(draft, resource_type, self._deleted)
        elif draft.interaction == "create":
            draft.id = draft.id or str(uuid.uuid4())
        else:
            draft.id = draft.resource.get("id")
        for other in draft.others:
            self._keep(other, (resource_type, other.id or ""))
        key = (resource_type, check_id(draft.id))
        if draft.patch is not None:
            self._apply(draft.patch, draft, *key)
        if draft.existing is not None or draft.twin is not None:
            self._placed.setdefault(key, draft)
        else:
            self._keep(draft, key)
        return key

    def _keep(self, draft: Draft, key: Target) -> None:
        """This draft writes that resource, and no other does."""
        if key in self._placed and self._placed[key].existing is None:
            raise BadRequest(f"{'/'.join(key)} is written twice", draft.path)
        self._placed[key] = draft
        if draft.interaction == "delete":
            self._deleted.add(key)

    def _apply(self, patch: Patch, draft: Draft, resource_type: str, id: str) -> None:
        """Make the update of a patch, from what the caller sees of the resource."""
        before = self._repository.store.newest(resource_type, id)
        if before is None or not self._repository.visible(self._access, "u", before):
            raise NotFound(f"{resource_type}/{id} is not known here")
        if before.deleted:
            raise Gone(f"{resource_type}/{id} was deleted")
        self._check_precondition(draft, before)
        seen = self._repository.seen(self._access, before)
        patched = patch(seen.resource())
        if not isinstance(patched, dict) or (patched.get("resourceType"), patched.get("id")) != (resource_type, id):
            raise Unprocessable("a patch leaves the type and the id of a resource as they are", resource_type)
        draft.resource, draft.met = safe_narrative(seen.resource(), patched), draft.met or before

    def prepare(self, draft: Draft) -> Outcome:
        """Check the draft and make its change. Faults name the entry of the Bundle they are in."""
        try:
            outcome = self._prepare(draft)
            if draft.others:
                outcome = replace(outcome, others=tuple(self._prepare(other) for other in draft.others))
            self._outcomes[draft] = outcome
        except FhirError as error:
            raise in_bundle(error, draft.path) from None
        return outcome

    def _prepare(self, draft: Draft) -> Outcome:
        if draft.existing is not None:
            return Outcome(draft.existing, created=False, change=None)
        if draft.twin is not None:
            return replace(self._outcomes[draft.twin], created=False, change=None)
        resource_type, id = draft.resource["resourceType"], draft.id or ""
        before = None if draft.interaction == "create" else self._repository.store.newest(resource_type, id)
        self._check_precondition(draft, before)
        if before is not None and not self._repository.visible(self._access, draft.letter, before):
            raise Forbidden(f"{resource_type}/{id} cannot be written by this caller")
        if draft.met is not None and (before is None or before.version != draft.met.version):
            raise VersionTaken("another request changed this resource at the same time")
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
        if admitted is not resource and admitted != resource:
            self._repository.check(admitted)
        if self._repository.check_references:
            self._check_references(admitted, old)
        if before is not None and not before.deleted and _same(before, admitted):
            return Outcome(before, created=False, change=None)
        change = self._change(admitted, before)
        self._check_stays(draft, change.version)
        return Outcome(change.version, created=before is None or before.deleted, change=change)

    def _check_stays(self, draft: Draft, version: Version) -> None:
        """Raises Forbidden when what is written would be beyond the scopes that allow to write it."""
        access, resource_type = self._access, version.resource_type
        if not self._repository.reached(access, draft.letter, version):
            raise Forbidden(f"no granted scope allows {draft.asked} of such a {resource_type}")
        of_a_patient = [
            scope.context == "patient" for scope in access.scopes if scope.grants(draft.letter, resource_type)
        ]
        if all(of_a_patient) and not access.sees(version.scope):
            raise Forbidden(f"a scope of a patient allows {draft.asked} of what is in the patient's compartment")

    def _change(self, resource: dict, before: Version | None) -> Change:
        number = self._repository.store.numbers.next()
        version = before.version + 1 if before else 1
        resource_type, id = resource["resourceType"], resource["id"]
        meta = {**resource.get("meta", {}), "versionId": str(version), "lastUpdated": instant(self._now)}
        resource = {"resourceType": resource_type, "id": id, "meta": meta} | {
            name: value for name, value in resource.items() if name not in ("resourceType", "id", "meta")
        }
        body = fhir_json.dumps(resource)
        if len(body) > MAX_RESOURCE_BYTES:
            raise TooLarge(f"a resource may have {MAX_RESOURCE_BYTES // 2**20} MB")
        entry = self._repository.indexer.index(resource)
        scope = self._scoping.scope_of(resource, entry.keys, self._access, before)
        for target, keys in self._scoping.shown(resource, scope).items():
            self._shown.setdefault(target, set()).update(keys)
        if before is not None and not before.deleted and not scope.issuperset(before.scope):
            self._hidden.add((resource_type, id))
        committed = Version(
            resource_type,
            id,
            version,
            number,
            before.created if before else number,
            self._now,
            self._access.subject,
            "update" if before and not before.deleted else "create",
            body,
            tuple(sorted(scope)),
            ("*", *sorted(scope), *entry.keys),
        )
        seen_by = before.scope if before else ()
        return Change(committed, entry.ranges, entry.sorts, _previous(before), seen_by, entry.layout)

    def _delete(self, draft: Draft, before: Version | None) -> Outcome:
        if before is None or before.deleted:
            return Outcome(before or _never(draft, self._now), created=False, change=None)
        self._repository.admit(Write("delete", before.resource(), None, self._access, self._repository))
        if self._repository.check_references:
            self._leaving.add((before.resource_type, before.id))
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
        return Outcome(
            deletion, created=False, change=Change(deletion, previous=before.version, seen_by=before.scope)
        )

    def _check_precondition(self, draft: Draft, before: Version | None) -> None:
        there = before is not None and not before.deleted
        if draft.if_none_match and there:
            raise PreconditionFailed("there is such a resource", draft.path)
        if draft.unmet and there:
            raise Conflict("there is such a resource, and it does not meet the conditions", draft.path)
        if draft.if_match is not None and not (there and before is not None and before.version == draft.if_match):
            raise PreconditionFailed(f"version {draft.if_match} is not the current one", draft.path)

    def check_referrers(self, store: VersionStore) -> None:
        """Raises Conflict when a resource refers to one that is deleted."""
        if not self._leaving:
            return
        # The others of this commit are left out: what they will refer to is checked with them.
        without = {key for key, draft in self._placed.items() if draft.existing is None}
        found = referrer(store, self._leaving, without)
        if found is not None:
            referring, target = found
            known = self._repository.visible(self._access, "rs", referring)
            name = referring.reference if known else "another resource"
            conflict = Conflict(f"{name} refers to {'/'.join(target)}, so it cannot be deleted")
            raise in_bundle(conflict, self._placed[target].path)

    def _check_references(self, resource: dict, before: dict | None) -> None:
        def known(targets: set[Target]) -> set[Target]:
            here = (targets & self._placed.keys()) - self._deleted
            return here | self._repository.existing(self._access, targets - here - self._deleted, self._known)

        base_url = self._repository.base_url
        # Whoever would delete what `before` refers to finds it.
        found = references.within(resource, base_url)
        earlier = references.within(before, base_url) if before else []
        self._referred |= references.targets(found) - references.targets(earlier)
        dangling = references.missing(found, known)
        if dangling:
            issues = [Issue("not-found", f"{reference} is not known here", path) for path, reference in dangling]
            raise Unprocessable("a reference leads nowhere", issues=issues)


def _pending(placed: dict[tuple[str, str], Draft], resource_type: str, id: str) -> dict | None:
    """The content of a draft of the same commit, for scopes that are inherited within it."""
    draft = placed.get((resource_type, id))
    return draft.resource if draft and _writes(draft) else None


def _writes(draft: Draft) -> bool:
    """Whether the content of the draft will be that of the resource."""
    return draft.existing is None and draft.twin is None and draft.interaction != "delete"


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


def in_bundle(error: FhirError, path: str | None) -> FhirError:
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
    return (
        f"{path}{dot}{rest}"
        if bracket == "Resource" or bracket in conformance.resource_types()
        else f"{path}.{expression}"
    )
