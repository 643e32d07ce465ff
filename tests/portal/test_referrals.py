"""A referring office's pages: where each referral is, what happened, and what the office may do."""

from collections.abc import Callable

import pytest

from conformance import CANONICAL
from fhir_server.access import Access
from referral.codes import BUSINESS_STATUS, code_of
from referral.context import Practice
from tests.portal.conftest import HILLCREST, PRACTICE, SYSTEM, Person, Referral
from tests.portal.test_desk import book_first
from tests.smart_auth.oauth import Clock


def state(practice: Practice, referral: Referral) -> str | None:
    task = practice.repository.read(SYSTEM, "Task", referral.id).resource()
    return code_of(task["businessStatus"], BUSINESS_STATUS)


@pytest.fixture
def ruth(person: Callable[[str], Person]) -> Person:
    return person("ruth")


@pytest.fixture
def frida(person: Callable[[str], Person]) -> Person:
    return person("frida")


@pytest.fixture
def booked(frida: Person, refer: Callable[..., Referral]) -> Referral:
    referral = refer()
    frida.open("/desk")
    frida.press(f"/desk/referrals/{referral.id}/accept")
    book_first(frida, referral)
    return referral


@pytest.fixture
def missed(booked: Referral, frida: Person, clock: Clock) -> Referral:
    clock.forward(minutes=61)
    frida.open("/desk")
    frida.press("/noshow")
    return booked


@pytest.fixture
def reported(booked: Referral, practice: Practice, react: Callable[[], None]) -> Referral:
    """Images and a final report are there."""
    study = {
        "resourceType": "ImagingStudy",
        "status": "available",
        "subject": {"reference": booked.patient},
        "basedOn": [{"reference": booked.order}],
        "modality": [{"system": "http://dicom.nema.org/resources/ontology/DCM", "code": "CT"}],
        "started": "2027-03-01T09:05:00Z",
        "numberOfSeries": 2,
        "numberOfInstances": 48,
        "description": "Abdomen",
    }
    report = {
        "resourceType": "DiagnosticReport",
        "status": "final",
        "basedOn": [{"reference": booked.order}],
        "code": {"text": "Radiology report"},
        "subject": {"reference": booked.patient},
        "issued": "2027-03-01T10:00:00Z",
        "conclusion": "No acute finding.\nFollow-up <not> needed.",
    }
    for resource in (study, report):
        practice.repository.create(SYSTEM, resource)
        react()
    return booked


class TestList:
    def test_tells_in_plain_words_where_each_is_and_what_comes_next(
        self, ruth: Person, refer: Callable[..., Referral], booked: Referral
    ) -> None:
        refer("Newer")
        html = ruth.open("/referrals")
        for words in (
            "Received by the practice",
            "The practice looks at it",
            "Appointment set",
            "The patient is expected at that time.",
            "Mon 1 Mar 2027, 09:00",
        ):
            assert words in html
        assert html.index("Newer") < html.index("Muster"), "the newest first"

    def test_has_a_page_after_the_first(
        self, ruth: Person, refer: Callable[..., Referral], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        for number in range(51):
            refer(f"Patient-{number}", received=False)
        html = ruth.open("/referrals")
        assert "Patient-50" in html
        assert "Patient-0," not in html
        link = html.split('href="/referrals?after=')[1].split('"')[0]
        assert "Patient-0," in ruth.open(f"/referrals?after={link.replace('&amp;', '&')}")

    def test_refuses_a_page_that_it_never_offered(self, ruth: Person) -> None:
        ruth.open("/referrals?after=nonsense%3D1")
        assert ruth.status == 400


class TestOne:
    def test_shows_order_appointment_and_preparation(self, ruth: Person, booked: Referral) -> None:
        html = ruth.open(f"/referrals/{booked.id}")
        for words in (
            "Appointment set",
            "Mon 01 Mar 2027, 10:00 CET",
            "CT room",
            "Nothing to eat for four hours before.",
            "Pain for three weeks",
            "+1-555-0100",
        ):
            assert words in html

    def test_tells_what_happened_in_order_and_by_whom(self, ruth: Person, booked: Referral) -> None:
        html = ruth.open(f"/referrals/{booked.id}")
        line = html[html.index("What happened") :]
        places = [
            line.index(words) for words in ("Submitted", "Received", "awaiting scheduling", "Appointment booked")
        ]
        assert places == sorted(places)
        assert line.index("referring office") < line.index("automatic") < line.index("practice</p>")

    def test_tells_of_images_and_shows_the_report(self, ruth: Person, reported: Referral) -> None:
        html = ruth.open(f"/referrals/{reported.id}")
        for words in ("The report is there", "CT: Abdomen", "2 series, 48 images", "No acute finding."):
            assert words in html
        assert "Follow-up &lt;not&gt; needed." in html

    def test_has_no_patient_in_title_or_address(self, ruth: Person, booked: Referral) -> None:
        html = ruth.open(f"/referrals/{booked.id}")
        assert "<title>Referral · Radloop</title>" in html
        addresses = [part.split('"')[0] for part in html.replace('action="', 'href="').split('href="')[1:]]
        assert not [address for address in addresses if "Muster" in address or "1970" in address]

    def test_comes_in_part_for_the_script(self, ruth: Person, booked: Referral) -> None:
        html = ruth.open(f"/referrals/{booked.id}?part=referral")
        assert "<html" not in html
        assert 'data-summary="Appointment set"' in html

    @pytest.mark.parametrize("id", ["nobody", "x" * 200, "a b", "%00"])
    def test_is_404_or_400_where_there_is_none(self, ruth: Person, id: str) -> None:
        ruth.open(f"/referrals/{id}")
        assert ruth.status in (400, 404)


class TestWithdraw:
    def test_before_an_appointment_is_set_cancels_at_once(
        self, ruth: Person, refer: Callable[..., Referral], practice: Practice
    ) -> None:
        referral = refer()
        ruth.open(f"/referrals/{referral.id}")
        html = ruth.press("/withdraw", reason="Patient moved away")
        assert "Cancelled" in html
        assert "Patient moved away" in html
        task = practice.repository.read(SYSTEM, "Task", referral.id).resource()
        assert (task["status"], state(practice, referral)) == ("cancelled", "cancelled")
        order = practice.repository.read(SYSTEM, "ServiceRequest", referral.order.partition("/")[2]).resource()
        assert order["status"] == "revoked"
        assert not ruth.has("/withdraw")

    def test_after_that_asks_the_practice_which_cancels_until_the_patient_is_there(
        self, ruth: Person, booked: Referral, practice: Practice
    ) -> None:
        ruth.open(f"/referrals/{booked.id}")
        ruth.press("/withdraw")
        task = practice.repository.read(SYSTEM, "Task", booked.id).resource()
        assert (task["status"], state(practice, booked)) == ("failed", "cancelled")
        assert practice.repository.read(SYSTEM, "Slot", "ct-2").resource()["status"] == "free"

    def test_sent_twice_asks_once(self, ruth: Person, booked: Referral, practice: Practice) -> None:
        ruth.open(f"/referrals/{booked.id}")
        forms = ruth.forms
        ruth.press("/withdraw")
        ruth.forms = forms
        ruth.press("/withdraw")
        assert ruth.status == 412
        assert state(practice, booked) == "cancelled"

    def test_is_not_another_offices(
        self, refer: Callable[..., Referral], person: Callable[[str], Person], practice: Practice
    ) -> None:
        referral = refer()
        otto = person("otto")
        otto.open("/referrals")
        otto.send(f"/referrals/{referral.id}/withdraw", csrf_token=csrf(otto), version="2")
        assert otto.status == 404
        assert state(practice, referral) == "received"


def csrf(person: Person) -> str:
    return next(form.fields["csrf_token"] for form in person.forms if "csrf_token" in form.fields)


class TestRebook:
    def test_hands_the_next_step_to_the_practice(self, ruth: Person, missed: Referral, practice: Practice) -> None:
        html = ruth.open(f"/referrals/{missed.id}")
        assert "The patient did not come" in html
        html = ruth.press("/rebook", wish="Any morning")
        assert "the practice finds a new time, as you asked: Any morning" in html
        step = practice.repository.search(SYSTEM, "Task", [("part-of", f"Task/{missed.id}"), ("code", "rebook")])
        assert [version.resource()["status"] for version in step.matches] == ["accepted"]

    def test_needs_no_wish(self, ruth: Person, missed: Referral) -> None:
        ruth.open(f"/referrals/{missed.id}")
        assert "the practice finds a new time." in ruth.press("/rebook", wish="")

    def test_is_refused_where_nothing_was_missed(self, ruth: Person, booked: Referral) -> None:
        ruth.open(f"/referrals/{booked.id}")
        assert not ruth.has("/rebook")
        ruth.send(f"/referrals/{booked.id}/rebook", csrf_token=csrf(ruth), wish="")
        assert ruth.status == 409


class TestFeedback:
    ANSWERS = {"q1": "4", "q2": "5", "q3": "3", "q4": "1", "q5": "Thanks"}

    def test_is_offered_once_the_report_is_there(self, ruth: Person, booked: Referral) -> None:
        html = ruth.open(f"/referrals/{booked.id}")
        assert f"/referrals/{booked.id}/feedback" not in html
        assert "opens once the report is there" in ruth.open(f"/referrals/{booked.id}/feedback")

    def test_becomes_a_response_on_the_order(self, ruth: Person, reported: Referral, practice: Practice) -> None:
        assert f"/referrals/{reported.id}/feedback" in ruth.open(f"/referrals/{reported.id}")
        ruth.open(f"/referrals/{reported.id}/feedback")
        html = ruth.press("/feedback", **self.ANSWERS)
        assert "Thank you for your feedback." in html
        assert state(practice, reported) == "feedback-received"
        responses = practice.repository.search(
            SYSTEM, "QuestionnaireResponse", [("based-on", reported.order)]
        ).matches
        response = responses[0].resource()
        assert response["questionnaire"] == f"{CANONICAL}/Questionnaire/referral-feedback|1.0.0"
        assert response["author"] == {"reference": "PractitionerRole/lakeside-role"}
        assert response["subject"] == {"reference": reported.patient}
        assert [item["answer"] for item in response["item"]] == [
            [{"valueInteger": 4}],
            [{"valueInteger": 5}],
            [{"valueInteger": 3}],
            [{"valueString": "yes"}],
            [{"valueString": "Thanks"}],
        ]

    def test_sent_twice_is_one_answer(self, ruth: Person, reported: Referral, practice: Practice) -> None:
        ruth.open(f"/referrals/{reported.id}/feedback")
        forms = ruth.forms
        ruth.press("/feedback", **self.ANSWERS)
        ruth.forms = forms
        html = ruth.press("/feedback", **self.ANSWERS)
        assert "Already answered" in html
        found = practice.repository.search(SYSTEM, "QuestionnaireResponse", [("based-on", reported.order)])
        assert len(found.matches) == 1

    def test_comes_back_with_its_faults_and_what_was_answered(
        self, ruth: Person, reported: Referral, practice: Practice
    ) -> None:
        ruth.open(f"/referrals/{reported.id}/feedback")
        html = ruth.press("/feedback", q1="4", q2="9", q5="Kept <b>words</b>")
        assert ruth.status == 422
        assert "2 answers to look at" in html
        assert 'name="q1" value="4" checked' in html
        assert "Kept &lt;b&gt;words&lt;/b&gt;" in html
        assert practice.repository.search(SYSTEM, "QuestionnaireResponse", []).matches == []

    def test_is_the_offices_not_the_practices(self, frida: Person, reported: Referral) -> None:
        html = frida.open(f"/referrals/{reported.id}")
        assert "/feedback" not in html
        frida.open(f"/referrals/{reported.id}/feedback")
        assert frida.status == 403


class TestSight:
    """An office sees its own referrals, by no page more."""

    def test_of_another_office_is_nothing(
        self, person: Callable[[str], Person], booked: Referral, refer: Callable[..., Referral]
    ) -> None:
        refer("Theirs", office=HILLCREST)
        otto = person("otto")
        html = otto.open("/referrals")
        assert "Theirs" in html
        assert "Muster" not in html
        for path in ("", "?part=referral", "/feedback"):
            html = otto.open(f"/referrals/{booked.id}{path}")
            assert otto.status == 404
            assert "Muster" not in html

    def test_of_the_practice_is_all(self, frida: Person, booked: Referral, refer: Callable[..., Referral]) -> None:
        refer("Theirs", office=HILLCREST)
        html = frida.open("/referrals")
        assert "Theirs" in html
        assert "Muster" in html

    def test_of_an_administrator_is_nothing(self, person: Callable[[str], Person], booked: Referral) -> None:
        adam = person("adam")
        assert "Muster" not in adam.open("/")
        assert "Muster" not in adam.open("/referrals")
        adam.open(f"/referrals/{booked.id}")
        assert adam.status == 404

    def test_of_images_and_reports_goes_with_the_order(
        self, person: Callable[[str], Person], reported: Referral
    ) -> None:
        assert "No acute finding" not in person("otto").open(f"/referrals/{reported.id}")

    def test_does_not_show_a_task_that_is_no_referral(
        self, ruth: Person, practice: Practice, booked: Referral
    ) -> None:
        other = {
            "resourceType": "Task",
            "id": "other",
            "status": "requested",
            "intent": "order",
            "requester": {"reference": "Organization/lakeside"},
            "owner": {"reference": PRACTICE},
        }
        practice.repository.update(Access.system("test"), other)
        ruth.open("/referrals/other")
        assert ruth.status == 404
