"""References lead somewhere, also when their targets are deleted at the very moment they are written.
https://hl7.org/fhir/R4/http.html#delete, docs/decisions/0011-references-and-deletions.md
"""

from collections.abc import Callable
from typing import Any

import pytest

from fhir_server import holds
from fhir_server.errors import Conflict, FhirError, Unprocessable
from fhir_server.holds import Hold, Holds, Moved
from fhir_server.prepare import Draft
from fhir_server.repository import Repository
from fhir_server.store import VersionStore
from tests.fhir_server.conftest import BASE, PRACTICE, an_office
from tests.fhir_server.test_conditional import at_once
from tests.fhir_server.test_rest import PATIENT

ROUNDS = 5
WRITERS = 7


def patient(id: str) -> dict:
    return {**PATIENT, "id": id}


def basic(subject: str, **more: Any) -> dict:
    return {"resourceType": "Basic", "code": {"text": "x"}, "subject": {"reference": subject}, **more}


def between(repository: Repository, monkeypatch: pytest.MonkeyPatch, act: Callable[[], Any]) -> None:
    """Let somebody else act once, after the next write has been prepared and before it is committed."""
    commit, acted = repository.store.commit, False

    def act_and_commit(*arguments: Any) -> None:
        nonlocal acted
        if not acted:
            acted = True
            act()
        commit(*arguments)

    monkeypatch.setattr(repository.store, "commit", act_and_commit)


@pytest.fixture(params=["same process", "another process"])
def other(request: pytest.FixtureRequest, repository: Repository) -> Repository:
    """Who acts in between: a thread of this process, or a process that shares nothing but the database."""
    if request.param == "same process":
        return repository
    return Repository(VersionStore(repository.store.database), BASE, repository.clock)


class TestATargetIsDeletedMeanwhile:
    def test_the_reference_is_refused(
        self, repository: Repository, other: Repository, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        repository.update(PRACTICE, patient("a"))
        between(repository, monkeypatch, lambda: other.delete(PRACTICE, "Patient", "a"))
        with pytest.raises(Unprocessable) as refused:
            repository.create(PRACTICE, basic("Patient/a"))
        assert refused.value.issues[0].expression == "Basic.subject"
        assert repository.store.count("Basic", {}) == 0

    def test_also_when_it_was_seen_before(
        self, repository: Repository, other: Repository, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        repository.update(PRACTICE, patient("a"))
        for _ in range(2):
            repository.delete(PRACTICE, "Basic", repository.create(PRACTICE, basic("Patient/a")).version.id)
        between(repository, monkeypatch, lambda: other.delete(PRACTICE, "Patient", "a"))
        with pytest.raises(Unprocessable):
            repository.create(PRACTICE, basic("Patient/a"))
        other.update(PRACTICE, patient("a"))
        assert repository.create(PRACTICE, basic("Patient/a")).created

    def test_an_update_that_brings_the_reference_is_refused(
        self, repository: Repository, other: Repository, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        for id in ("a", "b"):
            repository.update(PRACTICE, patient(id))
        repository.update(PRACTICE, basic("Patient/b", id="x"))
        between(repository, monkeypatch, lambda: other.delete(PRACTICE, "Patient", "a"))
        with pytest.raises(Unprocessable):
            repository.update(PRACTICE, basic("Patient/a", id="x"), if_match=1)
        assert repository.read(PRACTICE, "Basic", "x").version == 1

    def test_all_of_a_transaction_is_refused(
        self, repository: Repository, other: Repository, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        repository.update(PRACTICE, patient("a"))
        between(repository, monkeypatch, lambda: other.delete(PRACTICE, "Patient", "a"))
        with pytest.raises(Unprocessable):
            repository.write(PRACTICE, [Draft("create", dict(PATIENT)), Draft("create", basic("Patient/a"))])
        assert repository.store.count("Patient", {"keys": "*"}) == 0

    def test_something_else_in_its_bucket_is_of_no_matter(
        self, repository: Repository, other: Repository, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(holds, "_bucket", lambda _target: 7)
        for id in ("a", "b"):
            repository.update(PRACTICE, patient(id))
        repository.create(PRACTICE, basic("Patient/a"))
        between(repository, monkeypatch, lambda: other.delete(PRACTICE, "Patient", "b"))
        assert repository.create(PRACTICE, basic("Patient/a")).created


class TestAReferenceIsWrittenMeanwhile:
    def test_the_deletion_is_refused(
        self, repository: Repository, other: Repository, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        repository.update(PRACTICE, patient("a"))
        between(repository, monkeypatch, lambda: other.create(PRACTICE, basic("Patient/a")))
        with pytest.raises(Conflict):
            repository.delete(PRACTICE, "Patient", "a")
        assert not repository.read(PRACTICE, "Patient", "a").deleted

    def test_the_refused_deletion_is_named_in_its_bundle(self, repository: Repository) -> None:
        for id in ("a", "b"):
            repository.update(PRACTICE, patient(id))
        repository.create(PRACTICE, basic("Patient/b"))
        entries = [{"request": {"method": "DELETE", "url": f"Patient/{id}"}} for id in ("a", "b")]
        with pytest.raises(Conflict) as refused:
            repository.perform(PRACTICE, {"resourceType": "Bundle", "type": "transaction", "entry": entries})
        assert refused.value.issues[0].expression == "Bundle.entry[1].resource"
        assert not repository.read(PRACTICE, "Patient", "a").deleted


class TestWhatWasSeenIsNotReadAgain:
    def test_but_held(self, repository: Repository, monkeypatch: pytest.MonkeyPatch) -> None:
        repository.update(PRACTICE, patient("a"))
        repository.create(PRACTICE, basic("Patient/a"))

        def find(*_arguments: Any) -> None:
            raise AssertionError("this was seen before")

        monkeypatch.setattr(repository.store, "scopes", lambda targets: find() if targets else [])
        assert repository.create(PRACTICE, basic("Patient/a")).created

    def test_what_an_office_may_no_longer_see_is_not_referred_to_by_it(
        self, repository: Repository, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Whoever hides something moves its bucket on, as a deletion does."""
        scope = ("@Organization/o1",)
        monkeypatch.setattr("fhir_server.prepare.Scoping.scope_of", lambda *_: set(scope))
        repository.update(PRACTICE, patient("a"))
        repository.create(an_office("o1"), basic("Patient/a"))
        scope = ("@Organization/o2",)
        repository.update(PRACTICE, {**patient("a"), "gender": "other"})
        with pytest.raises(Unprocessable):
            repository.create(an_office("o1"), basic("Patient/a"))


class TestWhoeverSeesAnOrderSeesItsPatient:
    """The order shows its patient to the office; nobody who writes the patient at the same time takes that back."""

    ORDER = {"resourceType": "ServiceRequest", "status": "draft", "intent": "plan"}

    def order(self, repository: Repository) -> None:
        requester = {"reference": "Organization/o1"}
        subject = {"reference": "Patient/a"}
        repository.create(PRACTICE, self.ORDER | {"requester": requester, "subject": subject})

    @pytest.fixture(autouse=True)
    def patient(self, repository: Repository) -> None:
        repository.update(PRACTICE, {"resourceType": "Organization", "id": "o1", "name": "Office"})
        repository.update(PRACTICE, patient("a"))

    @pytest.mark.parametrize("if_match", [None, 1])
    def test_an_update_meanwhile_keeps_it(
        self, repository: Repository, other: Repository, monkeypatch: pytest.MonkeyPatch, if_match: int | None
    ) -> None:
        between(repository, monkeypatch, lambda: self.order(other))
        written = repository.update(PRACTICE, {**patient("a"), "gender": "other"}, if_match=if_match)
        assert written.version.version == 2
        assert repository.read(an_office("o1"), "Patient", "a").version == 2

    def test_a_deletion_meanwhile_is_refused(
        self, repository: Repository, other: Repository, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        between(repository, monkeypatch, lambda: self.order(other))
        with pytest.raises(Conflict):
            repository.delete(PRACTICE, "Patient", "a")
        assert repository.read(an_office("o1"), "Patient", "a").version == 1


def storm(repository: Repository, rounds: int) -> tuple[int, int]:
    """Refer to a resource and delete it, at once, so many times; (deletions, references) that were done."""
    gone = referred = 0
    for round in range(rounds):
        target = f"Patient/r{round}"
        repository.update(PRACTICE, patient(f"r{round}"))

        def either(index: int, target: str = target) -> Any:
            if index == 0:
                return repository.delete(PRACTICE, *target.split("/"))
            return repository.create(PRACTICE, basic(target))

        deletion, *creates = at_once(WRITERS + 1, either)
        done = [result for result in creates if not isinstance(result, FhirError)]
        refused = [type(result) for result in creates if isinstance(result, FhirError)]
        assert set(refused) <= {Unprocessable}
        if isinstance(deletion, FhirError):
            assert isinstance(deletion, Conflict)
            assert done
        else:
            assert repository.store.count("Basic", {"keys": f"subject={target}"}) == len(done) == 0
            gone += 1
        referred += len(done)
    return gone, referred


def test_a_storm_leaves_nothing_dangling(repository: Repository) -> None:
    storm(repository, ROUNDS)


@pytest.mark.slow
def test_a_long_storm_leaves_nothing_dangling(repository: Repository) -> None:
    gone, referred = storm(repository, 100)
    assert gone, "no deletion was ever the quicker one"
    assert referred, "no reference was ever the quicker one"


class TestHolds:
    """The slots themselves."""

    def test_writes_of_the_same_target_seldom_meet(self, store: VersionStore) -> None:
        slots = Holds(store.database)
        hold = Hold(frozenset({("Patient", "a")}))
        slots.prepare(hold)
        client = store.database.client
        with client.start_session() as one, client.start_session() as two, one.start_transaction():
            slots.take(hold, one)
            two.with_transaction(lambda inside: slots.take(hold, inside))  # another slot, sooner or later
        assert sum(slot["n"] for slot in store.database[holds.COLLECTION].find()) == 2

    def test_a_generation_that_moved_on_is_found_out_and_read_anew(self, store: VersionStore) -> None:
        mine, theirs = Holds(store.database), Holds(store.database)
        target = frozenset({("Patient", "a")})
        known = mine.generations()
        for each in (mine, theirs):
            each.prepare(Hold(target))
        with store.database.client.start_session() as session:
            session.with_transaction(lambda inside: theirs.take(Hold(leaving=target), inside))
            with pytest.raises(Moved):
                session.with_transaction(lambda inside: mine.take(Hold(target, known), inside))
            mine.refresh()
            session.with_transaction(lambda inside: mine.take(Hold(target, mine.generations()), inside))

    def test_no_more_than_so_many_targets_are_remembered(
        self, store: VersionStore, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(holds, "REMEMBERED", 2)
        slots = Holds(store.database)
        for id in ("a", "b", "c"):
            slots.remember(("Patient", id), ("@any",), {})
        assert [slots.seen(("Patient", id), {}) for id in ("a", "b", "c")] == [None, None, ("@any",)]
