"""The front desk: what waits, today, missed; and what each move does."""

from collections.abc import Callable
from datetime import timedelta

import pytest

from fhir_server.repository import Repository
from referral.codes import BUSINESS_STATUS, code_of
from referral.context import Practice
from tests.portal.conftest import LAKESIDE, SYSTEM, Person, Referral
from tests.smart_auth.oauth import Clock


def task(practice: Practice, referral: Referral) -> dict:
    return practice.repository.read(SYSTEM, "Task", referral.id).resource()


def state(practice: Practice, referral: Referral) -> str | None:
    return code_of(task(practice, referral)["businessStatus"], BUSINESS_STATUS)


def visits(repository: Repository, referral: Referral) -> list[dict]:
    found = repository.search(SYSTEM, "Appointment", [("based-on", referral.order)]).matches
    return [version.resource() for version in found]


@pytest.fixture
def frida(person: Callable[[str], Person]) -> Person:
    return person("frida")


@pytest.fixture
def book(frida: Person) -> Callable[[Referral], None]:
    """Accept the referral and book the first free time, by the pages."""

    def accept_and_book(referral: Referral) -> None:
        frida.open("/desk")
        frida.press(f"/desk/referrals/{referral.id}/accept")
        book_first(frida, referral)

    return accept_and_book


def book_first(frida: Person, referral: Referral) -> None:
    html = frida.open(f"/desk/referrals/{referral.id}/times?service=ct")
    first = html.split('name="time" value="')[1].split('"')[0]
    frida.press(f"/desk/referrals/{referral.id}/book", time=first)


class TestIncoming:
    def test_shows_patient_exam_office_and_number(self, frida: Person, refer: Callable[..., Referral]) -> None:
        refer("Muster", "CT abdomen")
        html = frida.open("/desk")
        for words in ("Muster, Pat", "born 1970-05-17", "CT abdomen", "Lakeside Family Medicine", "LK-"):
            assert words in html

    def test_has_the_most_urgent_first(self, frida: Person, refer: Callable[..., Referral]) -> None:
        for priority in ("routine", "stat", "urgent", "asap"):
            refer(f"Patient-{priority}", priority=priority)
        html = frida.open("/desk")
        places = [html.index(f"Patient-{priority}") for priority in ("stat", "asap", "urgent", "routine")]
        assert places == sorted(places)

    @pytest.mark.parametrize(
        "priority, words", [("stat", "Stat"), ("asap", "As soon as possible"), ("urgent", "Urgent")]
    )
    def test_tells_priority_by_word_and_drawing_besides_colour(
        self, frida: Person, refer: Callable[..., Referral], priority: str, words: str
    ) -> None:
        refer(priority=priority)
        badge = frida.open("/desk").split(f'class="badge {priority}">')[1].split("</span>")[0]
        assert "<svg" in badge
        assert badge.endswith(words)

    def test_shows_nothing_of_what_is_written_as_markup(self, frida: Person, refer: Callable[..., Referral]) -> None:
        refer("<script>alert(1)</script>", exam='"><img src=x>')
        html = frida.open("/desk")
        assert "<script>alert" not in html
        assert "<img" not in html

    def test_is_empty_in_words(self, frida: Person) -> None:
        assert "Nothing waits for you." in frida.open("/desk")


class TestAccept:
    def test_moves_the_referral_on_and_gives_it_an_accession_number(
        self, frida: Person, refer: Callable[..., Referral], practice: Practice
    ) -> None:
        referral = refer()
        frida.open("/desk")
        html = frida.press(f"/desk/referrals/{referral.id}/accept")
        assert "Accepted. The referring office is told" in html
        assert f"/desk/referrals/{referral.id}/times" in html
        assert task(practice, referral)["status"] == "accepted"
        assert state(practice, referral) == "awaiting-scheduling"

    def test_on_a_page_that_is_out_of_date_changes_nothing(
        self, frida: Person, refer: Callable[..., Referral], practice: Practice
    ) -> None:
        referral = refer()
        frida.open("/desk")
        form = next(form for form in frida.forms if form.action.endswith("/accept"))
        frida.press(f"/desk/referrals/{referral.id}/decline", reason="No CT here")
        html = frida.send(form.action, **form.fields)
        assert frida.status == 412
        assert "Somebody else was quicker" in html
        assert task(practice, referral)["status"] == "rejected"

    @pytest.mark.parametrize("version", ["", "0", "-1", "x", "1" * 40])
    def test_needs_the_version_that_the_page_showed(
        self, frida: Person, refer: Callable[..., Referral], practice: Practice, version: str
    ) -> None:
        referral = refer()
        frida.open("/desk")
        frida.press(f"/desk/referrals/{referral.id}/accept", version=version)
        assert frida.status == 400
        assert task(practice, referral)["status"] == "received"

    @pytest.mark.parametrize("id", ["nobody", "a%00b", "..", "x" * 200, "$each"])
    def test_of_an_unknown_referral_is_refused(self, frida: Person, refer: Callable[..., Referral], id: str) -> None:
        refer()
        frida.open("/desk")
        frida.send(f"/desk/referrals/{id}/accept", csrf_token=frida.csrf, version="1")
        assert frida.status in (400, 404, 405)


class TestDecline:
    def test_tells_the_office_why(self, frida: Person, refer: Callable[..., Referral], practice: Practice) -> None:
        referral = refer()
        frida.open("/desk")
        html = frida.press(f"/desk/referrals/{referral.id}/decline", reason=" Please order an MR instead ")
        assert "Declined." in html
        assert "Muster" not in html, "it waits no longer"
        assert task(practice, referral)["statusReason"]["text"] == "Please order an MR instead"

    @pytest.mark.parametrize("reason", ["", "   ", "x" * 1001, "a\0b"])
    def test_needs_a_reason_that_can_be_kept(
        self, frida: Person, refer: Callable[..., Referral], practice: Practice, reason: str
    ) -> None:
        referral = refer()
        frida.open("/desk")
        frida.press(f"/desk/referrals/{referral.id}/decline", reason=reason)
        assert frida.status == 400
        assert task(practice, referral)["status"] == "received"


class TestAsk:
    def test_sends_the_referral_back_for_what_is_missing(
        self, frida: Person, refer: Callable[..., Referral], practice: Practice
    ) -> None:
        referral = refer()
        frida.open("/desk")
        html = frida.press(f"/desk/referrals/{referral.id}/ask", reason="Which side?")
        assert state(practice, referral) == "awaiting-information"
        assert "Which side?" in html


class TestBook:
    def test_shows_free_times_of_the_kind_of_exam(self, frida: Person, refer: Callable[..., Referral]) -> None:
        referral = refer()
        frida.open("/desk")
        frida.press(f"/desk/referrals/{referral.id}/accept")
        html = frida.open(f"/desk/referrals/{referral.id}/times")
        assert "Computed tomography" in html
        assert 'name="time"' not in html, "nobody has said yet which kind"
        html = frida.open(f"/desk/referrals/{referral.id}/times?service=ct")
        assert "Mon 1 Mar 2027" in html
        assert ">10:00</button>" in html, "in the practice's time zone"

    def test_knows_the_kind_of_exam_by_its_code(self, frida: Person, refer: Callable[..., Referral]) -> None:
        coded = {"coding": [{"system": "http://snomed.info/sct", "code": "77477000"}]}
        referral = refer(code=coded)
        frida.open("/desk")
        frida.press(f"/desk/referrals/{referral.id}/accept")
        assert ">10:00</button>" in frida.open(f"/desk/referrals/{referral.id}/times")

    def test_takes_the_time(
        self, frida: Person, refer: Callable[..., Referral], book: Callable[[Referral], None], practice: Practice
    ) -> None:
        referral = refer()
        book(referral)
        assert "The appointment is set" in frida.html
        assert state(practice, referral) == "appointment-booked"
        assert [visit["status"] for visit in visits(practice.repository, referral)] == ["booked"]
        assert practice.repository.read(SYSTEM, "Slot", "ct-2").resource()["status"] == "busy"

    def test_shows_what_is_left_when_somebody_was_quicker(
        self, frida: Person, refer: Callable[..., Referral], book: Callable[[Referral], None], practice: Practice
    ) -> None:
        slow, quick = refer("Slow"), refer("Quick")
        frida.open("/desk")
        frida.press(f"/desk/referrals/{slow.id}/accept")
        html = frida.open(f"/desk/referrals/{slow.id}/times?service=ct")
        first = html.split('name="time" value="')[1].split('"')[0]
        forms = frida.forms
        book(quick)
        frida.forms = forms
        html = frida.press(f"/desk/referrals/{slow.id}/book", time=first)
        assert frida.status == 200
        assert "Somebody else was quicker" in html
        assert ">10:00</button>" not in html
        assert ">10:30</button>" in html
        assert visits(practice.repository, slow) == []

    @pytest.mark.parametrize("time", ["", "x", "proposal-", "Appointment/1", "proposal-1-2-3"])
    def test_takes_nothing_that_is_no_time(
        self, frida: Person, refer: Callable[..., Referral], practice: Practice, time: str
    ) -> None:
        referral = refer()
        frida.open("/desk")
        frida.press(f"/desk/referrals/{referral.id}/accept")
        frida.open(f"/desk/referrals/{referral.id}/times?service=ct")
        frida.press(f"/desk/referrals/{referral.id}/book", time=time)
        assert frida.status == 400
        assert visits(practice.repository, referral) == []

    @pytest.mark.parametrize(
        "query, status",
        [("service=nothing", 404), ("service=ct&from=soon", 400), ("service=ct&from=9999-12-31", 400)],
    )
    def test_refuses_a_search_that_makes_no_sense(
        self, frida: Person, refer: Callable[..., Referral], query: str, status: int
    ) -> None:
        referral = refer()
        frida.open(f"/desk/referrals/{referral.id}/times?{query}")
        assert frida.status == status


class TestToday:
    def test_lists_the_visits_by_time(
        self, frida: Person, refer: Callable[..., Referral], book: Callable[[Referral], None]
    ) -> None:
        for name in ("Early", "Late"):
            book(refer(name))
        html = frida.open("/desk")
        today = html[html.index('aria-labelledby="today"') :]
        assert today.index("10:00") < today.index("Early") < today.index("10:30") < today.index("Late")

    def test_arrived_then_done(
        self,
        frida: Person,
        refer: Callable[..., Referral],
        book: Callable[[Referral], None],
        practice: Practice,
        clock: Clock,
    ) -> None:
        referral = refer()
        book(referral)
        clock.forward(hours=1)
        frida.open("/desk")
        frida.press("/arrived")
        assert state(practice, referral) == "patient-arrived"
        frida.press("/fulfilled")
        assert state(practice, referral) == "exam-performed"
        assert not frida.has("/noshow")

    def test_cannot_be_missed_before_it_has_begun(
        self, frida: Person, refer: Callable[..., Referral], book: Callable[[Referral], None], practice: Practice
    ) -> None:
        referral = refer()
        book(referral)
        frida.open("/desk")
        assert not frida.has("/noshow")
        appointment = visits(practice.repository, referral)[0]
        fields = {"csrf_token": frida.csrf, "version": appointment["meta"]["versionId"]}
        frida.send(f"/desk/appointments/{appointment['id']}/noshow", **fields)
        assert frida.status == 422
        assert visits(practice.repository, referral)[0]["status"] == "booked"

    def test_asks_whether_the_patient_came_once_the_grace_is_over(
        self, frida: Person, refer: Callable[..., Referral], book: Callable[[Referral], None], clock: Clock
    ) -> None:
        book(refer())
        assert "Did the patient come?" not in frida.open("/desk")
        clock.forward(hours=1, minutes=16)
        assert "Did the patient come?" in frida.open("/desk")

    def test_marks_with_nothing_but_its_own_moves(self, frida: Person) -> None:
        frida.open("/desk")
        frida.send("/desk/appointments/a/cancelled", csrf_token=frida.csrf, version="1")
        assert frida.status == 404


class TestMissed:
    @pytest.fixture
    def missed(
        self, frida: Person, refer: Callable[..., Referral], book: Callable[[Referral], None], clock: Clock
    ) -> Referral:
        referral = refer()
        book(referral)
        clock.forward(minutes=61)
        frida.open("/desk")
        frida.press("/noshow")
        return referral

    def test_waits_with_its_next_step(self, frida: Person, missed: Referral, practice: Practice) -> None:
        assert state(practice, missed) == "appointment-noshow"
        html = frida.open("/desk")
        section = html[html.index('aria-labelledby="missed"') :]
        assert "Muster" in section
        assert "the office was asked to rebook, withdraw or call" in section
        assert f"/desk/referrals/{missed.id}/times" in section

    def test_is_undone_when_the_patient_came_after_all(
        self, frida: Person, missed: Referral, practice: Practice
    ) -> None:
        frida.open("/desk")
        html = frida.press("/undo")
        assert "Corrected" in html
        assert state(practice, missed) == "patient-arrived"
        assert "Nobody missed an appointment." in html

    def test_goes_with_a_new_time(self, frida: Person, missed: Referral, practice: Practice) -> None:
        html = frida.open(f"/desk/referrals/{missed.id}/times")
        assert ">11:00</button>" in html, "the kind of exam is known from the visit"
        book_first(frida, missed)
        assert state(practice, missed) == "appointment-booked"
        assert "Nobody missed an appointment." in frida.html

    def test_shows_that_the_office_asks_for_a_new_time(
        self, frida: Person, missed: Referral, person: Callable[[str], Person]
    ) -> None:
        ruth = person("ruth")
        ruth.open(f"/referrals/{missed.id}")
        ruth.press("/rebook", wish="Friday afternoon")
        html = frida.open("/desk")
        assert "The office asks for a new time" in html
        assert "Friday afternoon" in html


class TestOverdue:
    def test_is_counted_and_can_be_seen_to(
        self, frida: Person, refer: Callable[..., Referral], sweep: Callable[[], None], clock: Clock
    ) -> None:
        refer(priority="stat")
        clock.forward(minutes=14)
        sweep()
        assert "waiting too long" not in frida.open("/desk")
        clock.forward(minutes=14)
        sweep()
        html = frida.open("/desk")
        assert "1 waiting too long" in html
        assert "Waiting too long</span>" in html
        html = frida.press("/seen")
        assert 'id="overdue"' not in html


class TestPart:
    def test_is_the_lists_alone(self, frida: Person, refer: Callable[..., Referral]) -> None:
        refer()
        html = frida.open("/desk?part=lists")
        assert "<html" not in html
        assert "Muster" in html
        assert 'data-summary="1 incoming, 0 expected today, 0 missed"' in html


class TestRequests:
    def test_to_cancel_after_arrival_is_answered_by_the_desk(
        self,
        frida: Person,
        person: Callable[[str], Person],
        refer: Callable[..., Referral],
        book: Callable[[Referral], None],
        practice: Practice,
    ) -> None:
        referral = refer(office=LAKESIDE)
        book(referral)
        frida.open("/desk")
        frida.press("/arrived")
        ruth = person("ruth")
        ruth.open(f"/referrals/{referral.id}")
        ruth.press("/withdraw", reason="Wrong patient")
        assert state(practice, referral) == "cancellation-requested"
        html = frida.open("/desk")
        assert "Wrong patient" in html
        frida.press("/keep", reason="The exam is under way")
        assert state(practice, referral) == "patient-arrived"

    def test_are_answered_with_cancel_or_keep(self, frida: Person) -> None:
        frida.open("/desk")
        frida.send("/desk/requests/a/perhaps", csrf_token=frida.csrf, version="1", reason="x")
        assert frida.status == 404


def test_times_of_the_practice_are_in_its_time_zone(frida: Person, clock: Clock) -> None:
    assert "Mon 1 Mar 2027" in frida.open("/desk")
    clock.now += timedelta(hours=15, minutes=30)
    assert "Tue 2 Mar 2027" in frida.open("/desk")
