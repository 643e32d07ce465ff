"""The one write path and the one read path: FHIR interactions over the version store.

Every write, whoever makes it, passes here: scopes, structure, references, the rules of the packages above
(admissions), who may see it, search keys, commit. Every read passes the caller's audience.
"""

import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from copy import copy
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from typing import Any
from urllib.parse import parse_qsl

from fhir_server import history, search, transaction
from fhir_server.access import Access
from fhir_server.admission import Admission, Write
from fhir_server.audit import touched
from fhir_server.errors import (
    Conflict,
    Forbidden,
    Gone,
    InvalidStructure,
    Issue,
    NotFound,
    Overtaken,
    PreconditionFailed,
    Unprocessable,
)
from fhir_server.history import HistoryPage, HistoryRequest
from fhir_server.holds import Generations, Target
from fhir_server.index import Indexer
from fhir_server.operation import Operations
from fhir_server.paging import Seal
from fhir_server.prepare import Draft, Patch, Preparation
from fhir_server.reach import reached
from fhir_server.read_ahead import ReadAhead
from fhir_server.reindex.parameters import Parameters
from fhir_server.search import SearchResult, Selection
from fhir_server.search.terms import Vocabulary
from fhir_server.server_key import server_key
from fhir_server.store import VersionStore, VersionTaken
from fhir_server.terminology.source import Terminology
from fhir_server.validation import INVALID, check_id, check_type, examine
from fhir_server.validation.profiles import Profiles
from fhir_server.validation.run import Profiled
from fhir_server.version import Version

# The version as this caller may see it, such as without an endpoint's secrets.
View = Callable[[Access, Version], Version]

ATTEMPTS = 5  # at an update without If-Match, when others write the same resource


@dataclass(frozen=True, slots=True)
class Written:
    """What a write did: the version now current, and whether the resource is new.

    others: how many more resources a conditional delete deleted.
    """

    version: Version
    created: bool
    changed: bool = True
    others: int = 0


class Repository:
    """FHIR interactions for every resource type. Thread safe; holds no state of a request."""

    def __init__(
        self,
        store: VersionStore,
        base_url: str,
        clock: Callable[[], datetime],
        admissions: Mapping[str, Sequence[Admission]] | None = None,
        check_references: bool = True,
        views: Mapping[str, View] | None = None,
        deletes_at_once: int = 1,
    ) -> None:
        """admissions: rules that a write must pass, by type. views: how a caller may see the versions of a type.

        deletes_at_once: how many resources the criteria of a conditional delete may match.
        """
        self.store = store
        self.base_url = base_url
        self.clock = clock
        self.admissions = dict(admissions or {})
        self.check_references = check_references
        self.views = dict(views or {})
        self.deletes_at_once = deletes_at_once
        # Large Bundles go through one after the other: several at once would take no less time in all, and leave
        # little of the process to the small requests beside them.
        self.large = threading.Lock()
        self.indexer = Indexer(base_url)
        self.profiles = Profiles(store, Terminology(self))
        self.parameters = Parameters(store)
        self.seal = Seal(lambda: server_key(store.database, "pages"), lambda: self.clock())
        self.vocabulary: Vocabulary | None = None  # what is known of codes; `terminology` adds it

    # Reading

    def read(self, access: Access, resource_type: str, id: str) -> Version:
        """The current version. Raises NotFound (also when it is not the caller's to see), Gone, Forbidden."""
        check_type(resource_type)
        access.require("read", resource_type)
        newest = self.store.newest(resource_type, check_id(id))
        if newest is None or not self.visible(access, "r", newest):
            raise NotFound(f"{resource_type}/{id} is not known here")
        if newest.deleted:
            raise Gone(f"{resource_type}/{id} was deleted")
        return self.seen(access, newest)

    def vread(self, access: Access, resource_type: str, id: str, version: int) -> Version:
        """One version. The caller needs to see the resource as it is now, and that version."""
        check_type(resource_type)
        access.require("read", resource_type)
        found = self.store.version(resource_type, check_id(id), version)
        if found is None or not self._visible_now(access, found) or not self.reached(access, "r", found):
            raise NotFound(f"{resource_type}/{id} has no version {version}")
        if found.deleted:
            raise Gone(f"version {version} of {resource_type}/{id} is its deletion")
        return self.seen(access, found)

    def history(
        self,
        access: Access,
        resource_type: str,
        id: str | None = None,
        *,
        count: int = history.DEFAULT_COUNT,
        since: datetime | None = None,
    ) -> list[Version]:
        """The newest versions of one resource, or of the type, newest first."""
        return self.history_page(access, resource_type, id, HistoryRequest(count, since)).versions

    def history_page(
        self, access: Access, resource_type: str | None, id: str | None, request: HistoryRequest
    ) -> HistoryPage:
        """A page of the versions of one resource, of a type, or of all types that the caller may search."""
        if resource_type is None:
            types = [name for name in self.store.types() if access.allows("search", name)]
            if not types and not any("s" in scope.letters for scope in access.scopes):
                raise Forbidden("no granted scope allows search")
        else:
            check_type(resource_type)
            access.require("read" if id else "search", resource_type)
            types = [resource_type]
            newest = self.store.newest(resource_type, check_id(id)) if id is not None else None
            if id is not None and (newest is None or not self.visible(access, "r", newest)):
                raise NotFound(f"{resource_type}/{id} is not known here")
        letter = "s" if id is None else "r"
        all_reached = all(access.reach(letter, type) is None for type in types)
        reached = None if all_reached else partial(self.reached, access, letter)
        page = history.page(self.store, access, types, id, request, reached)
        page.versions = [self.seen(access, version) for version in page.versions]
        return page

    def search(
        self,
        access: Access,
        resource_type: str,
        query: str | Sequence[tuple[str, str]],
        *,
        strict: bool = False,
        default_count: int = 50,
        compartment: tuple[str, str] | None = None,
    ) -> SearchResult:
        """A page of matches with what they include. https://hl7.org/fhir/R4/search.html

        compartment: only what is in that of this (type, id).
        """
        check_type(resource_type)
        parameters = parse_qsl(query, keep_blank_values=True) if isinstance(query, str) else list(query)
        if resource_type == "ImagingStudy":
            access.require_own_patient(parameters)
        with self.parameters.current().applied():
            result = search.search(
                self.store,
                access,
                resource_type,
                parameters,
                base_url=self.base_url,
                strict=strict,
                default_count=default_count,
                seal=self.seal,
                vocabulary=self.vocabulary,
                compartment=compartment,
            )
        return self._seen_of(access, result)

    def search_across(
        self,
        access: Access,
        query: str | Sequence[tuple[str, str]],
        *,
        strict: bool = False,
        default_count: int = 50,
        compartment: tuple[str, str] | None = None,
    ) -> SearchResult:
        """As `search`, over all types that the caller may search or those that `_type` names."""
        parameters = parse_qsl(query, keep_blank_values=True) if isinstance(query, str) else list(query)
        with self.parameters.current().applied():
            result = search.search_across(
                self.store,
                access,
                parameters,
                base_url=self.base_url,
                strict=strict,
                default_count=default_count,
                seal=self.seal,
                vocabulary=self.vocabulary,
                compartment=compartment,
            )
        return self._seen_of(access, result)

    def _seen_of(self, access: Access, result: SearchResult) -> SearchResult:
        result.matches = [self.seen(access, version) for version in result.matches]
        result.included = [self.seen(access, version) for version in result.included]
        return result

    def walk(self, access: Access, selection: Selection, after: int = 0) -> Iterator[Version]:
        """All that is selected as it was at its time, in order of creation, behind the number `after`."""
        with self.parameters.current().applied():
            found = search.walk(self.store, access, selection, after, self.base_url, self.vocabulary)
        for version in found:
            # The index has told of the newest version what is searched; what is told may be an older one.
            if self.reached(access, "r", version) and self.reached(access, "s", version):
                yield self.seen(access, version)

    def deletions(self, access: Access, selection: Selection, after: int = 0) -> Iterator[Version]:
        """Deletions of what is selected, in order of their write numbers, behind the number `after`."""
        for version in search.deletions(self.store, access, selection, after):
            if self.reached(access, "r", version) and self.reached(access, "s", version):
                yield version

    # Writing

    def create(self, access: Access, resource: dict, *, if_none_exist: str | None = None) -> Written:
        """Store a new resource under an id of ours. Of parallel creates with the same criteria, one makes it."""
        draft = Draft("create", resource, criteria=if_none_exist)
        return self.write(access, [draft])[0]

    def update(
        self,
        access: Access,
        resource: dict,
        *,
        if_match: int | None = None,
        if_none_match: bool = False,
        criteria: str | None = None,
    ) -> Written:
        """Store the next version, or the first one under the client's id. Raises PreconditionFailed when stale.

        if_none_match: only when there is no such resource. criteria: the one resource they match, else a new one.
        """
        draft = Draft("update", resource, if_match, criteria, if_none_match)
        return self.write(access, [draft])[0]

    def patch(
        self,
        access: Access,
        resource_type: str,
        id: str | None,
        patch: Patch,
        *,
        if_match: int | None = None,
        criteria: str | None = None,
    ) -> Written:
        """Store what `patch` makes of the resource with this id, or of the one that the criteria match."""
        draft = Draft("patch", {"resourceType": resource_type, "id": id}, if_match, criteria, patch=patch)
        return self.write(access, [draft])[0]

    def delete(
        self,
        access: Access,
        resource_type: str,
        id: str | None,
        *,
        if_match: int | None = None,
        criteria: str | None = None,
    ) -> Written:
        """Store the deletion as a version; deleting what is deleted, or never was, changes nothing.

        criteria: the one resource that they match, or all of them up to `deletes_at_once`, together or none. Raises
        Conflict when another resource refers to it, PreconditionFailed when they match more.
        """
        draft = Draft("delete", {"resourceType": resource_type, "id": id}, if_match, criteria)
        return self.write(access, [draft])[0]

    def amend(
        self,
        access: Access,
        resource_type: str,
        id: str,
        change: Callable[[dict], dict | None],
        attempts: int = 8,
    ) -> Version:
        """Read, change, and update under If-Match; again when somebody else was quicker.

        change: gets the resource, returns the new one, or None when there is nothing to do.
        """
        for attempt in range(1, attempts + 1):
            current = self.read(access, resource_type, id)
            resource = change(current.resource())
            if resource is None:
                return current
            try:
                return self.update(access, resource, if_match=current.version).version
            except (PreconditionFailed, Conflict):
                if attempt == attempts:
                    raise
        raise AssertionError("unreachable")

    def perform(
        self, access: Access, bundle: Any, wanted: str = "minimal", operations: Operations | None = None
    ) -> dict:
        """A batch or a transaction; the response Bundle. Errors of a transaction name `Bundle.entry[n]`.

        wanted: what the answers of writes carry, `minimal`, `representation` or `operationoutcome`. operations: those
        that entries may call.
        """
        return transaction.perform(self, access, bundle, wanted, operations or Operations())

    def write(self, access: Access, drafts: list[Draft]) -> list[Written]:
        """Commit the drafts together, or none of them; a Written for each, in their order."""
        return self.write_together(access, dict(enumerate(drafts)), lambda _placed: None)

    def write_together(
        self, access: Access, drafts: dict[int, Draft], resolve: Callable[[dict[int, tuple[str, str]]], None]
    ) -> list[Written]:
        """As `write`; `resolve` is told the (type, id) of each draft before they are prepared."""
        asked = {index: (draft.resource, draft.id) for index, draft in drafts.items()}
        for attempt in range(1, ATTEMPTS + 1):
            preparation = Preparation(self, access)
            parameters = self.parameters.current()
            try:
                with parameters.applied():
                    resolve({index: preparation.place(draft) for index, draft in drafts.items()})
                    outcomes = [preparation.prepare(draft) for draft in drafts.values()]
                if parameters is not self.parameters.current() and attempt < ATTEMPTS:
                    _begin_anew(drafts, asked)  # a search parameter came or went meanwhile
                    continue
                if "SearchParameter" in preparation.commit(outcomes):
                    self.parameters.forget()
                for outcome in outcomes:
                    for each in (outcome, *outcome.others):
                        touched.note(access, each.version, written=True)
                return [
                    Written(
                        self.seen(access, outcome.version),
                        outcome.created,
                        outcome.change is not None,
                        len(outcome.others),
                    )
                    for outcome in outcomes
                ]
            except Overtaken as error:
                alone = len(drafts) == 1 and isinstance(error, VersionTaken)
                if alone and any(draft.if_match is not None for draft in drafts.values()):
                    raise PreconditionFailed("the resource was changed in the meantime") from None
                if attempt == ATTEMPTS:
                    raise
                _begin_anew(drafts, asked)
        raise AssertionError("unreachable")

    def reading_ahead(self, targets: Iterable[tuple[str, str]]) -> "Repository":
        """This repository for one commit; the newest versions of these (type, id) are read in one go."""
        ahead = copy(self)
        ahead.store = ReadAhead(self.store, targets)
        return ahead

    # What preparation needs

    def admit(self, write: Write) -> dict | None:
        """Pass the write through the admissions of its type, in order of registration."""
        resource = write.after
        content = write.after or write.before or {}
        for admission in self.admissions.get(content["resourceType"], ()):
            resource = admission(Write(write.interaction, write.before, resource, write.access, self))
        return resource

    def check(self, resource: Any) -> None:
        """Structure, and profiles that it names. Raises InvalidStructure, Unprocessable."""
        if isinstance(resource, dict) and isinstance(resource.get("resourceType"), str):
            check_type(resource["resourceType"])
        invalid, found = self.judge(resource)
        broken = [issue for issue in found if issue.severity == "error"]
        if invalid:
            raise InvalidStructure(INVALID, issues=[*invalid, *broken])
        if broken:
            raise Unprocessable("it does not meet a profile that it names", issues=broken)

    def judge(self, resource: Any, also: Sequence[str] = ()) -> tuple[list[Issue], list[Issue]]:
        """What is wrong by R4 itself; and what was found by the profiles it names and by these, not all of it errors.

        Raises Unprocessable when it is nested too deeply.
        """
        run = examine(resource)
        named = list(run.profiled)
        if also and isinstance(resource, dict):
            place = (resource, str(resource.get("resourceType")))
            named.insert(0, Profiled(*place, tuple(also), place))
        return run.issues, self.profiles.issues(named) if named else []

    def existing(self, access: Access, targets: Iterable[Target], known: Generations | None = None) -> set[Target]:
        """Those of the (type, id) pairs that exist and that the caller may see; known: see `VersionStore.there`."""
        if known is not None:
            return self.store.there(targets, access.sees, known)
        found = self.store.scopes(targets)
        return {(version.resource_type, version.id) for version in found if access.sees(version.scope)}

    def seen(self, access: Access, version: Version) -> Version:
        """The version as this caller may see it; the audit trail of the request tells that they got it."""
        touched.note(access, version)
        view = self.views.get(version.resource_type)
        return version if view is None else view(access, version)

    def visible(self, access: Access, letters: str, version: Version) -> bool:
        """Whether the caller sees this version, and a scope with one of the letters reaches it."""
        return access.sees(version.scope) and self.reached(access, letters, version)

    def reached(self, access: Access, letters: str, version: Version) -> bool:
        """Whether a scope with one of these letters reaches this version: with parameters, a scope reaches some."""
        return reached(access, letters, version, self.store, self.indexer)

    def _visible_now(self, access: Access, version: Version) -> bool:
        newest = self.store.newest(version.resource_type, version.id)
        return newest is not None and self.visible(access, "r", newest)


def _begin_anew(drafts: Mapping[int, Draft], asked: Mapping[int, tuple[dict, str | None]]) -> None:
    """Take the drafts back to what was asked for."""
    for index, draft in drafts.items():
        draft.anew(*asked[index])
