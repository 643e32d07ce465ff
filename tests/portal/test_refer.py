"""The web form for an order: another door to the same resources as an EHR's transaction."""

from collections.abc import Callable

import pytest

from referral.codes import BUSINESS_STATUS, ORIGIN, code_of
from referral.context import Practice
from tests.portal.conftest import LAKESIDE, SYSTEM, Person

ORDER = {
    "family": "Muster",
    "given": "Pat",
    "birthdate": "1970-05-17",
    "gender": "female",
    "phone": "+1-555-0199",
    "exam": "CT abdomen with contrast",
    "reason": "Pain for three weeks.\r\nAppendicitis?",
    "priority": "urgent",
}


@pytest.fixture
def ruth(person: Callable[[str], Person]) -> Person:
    ruth = person("ruth")
    ruth.open("/refer")
    return ruth


def all_of(practice: Practice, resource_type: str) -> list[dict]:
    return [version.resource() for version in practice.repository.search(SYSTEM, resource_type, []).matches]


class TestOrder:
    def test_becomes_patient_order_and_task(self, ruth: Person, practice: Practice) -> None:
        html = ruth.press("/refer", **ORDER)
        assert "The referral is on its way" in html
        assert "Received by the practice" in html
        (patient,), (order,), (task,) = (all_of(practice, name) for name in ("Patient", "ServiceRequest", "Task"))
        assert patient["name"] == [{"use": "official", "family": "Muster", "given": ["Pat"]}]
        assert (patient["birthDate"], patient["gender"]) == ("1970-05-17", "female")
        assert order["code"] == {"text": "CT abdomen with contrast"}
        assert order["reasonCode"] == [{"text": "Pain for three weeks.\nAppendicitis?"}]
        assert order["requester"] == {"reference": "PractitionerRole/lakeside-role"}
        assert code_of({"coding": order["meta"]["tag"]}, ORIGIN) == "web"
        assert (order["priority"], task["priority"]) == ("urgent", "urgent")
        assert task["focus"] == {"reference": f"ServiceRequest/{order['id']}"}
        assert task["requester"] == {"reference": LAKESIDE}
        assert code_of(task["businessStatus"], BUSINESS_STATUS) == "received"
        assert task["identifier"][0]["value"].startswith("R-")

    def test_names_who_pays(self, ruth: Person, person: Callable[[str], Person], practice: Practice) -> None:
        ruth.press("/refer", **ORDER, payer="Helvia Health", insured="HL-1")
        (order,), (coverage,) = (all_of(practice, name) for name in ("ServiceRequest", "Coverage"))
        assert order["insurance"] == [{"reference": f"Coverage/{coverage['id']}"}]
        assert "Helvia Health, HL-1" in ruth.html
        (task,) = all_of(practice, "Task")
        assert "Helvia Health, HL-1" in person("frida").open(f"/referrals/{task['id']}")
        otto = person("otto")
        assert "Helvia" not in otto.open(f"/referrals/{task['id']}")
        assert otto.status == 404

    def test_a_number_of_no_insurance_is_a_fault(self, ruth: Person, practice: Practice) -> None:
        assert "Please name the insurance." in ruth.press("/refer", **ORDER, insured="HL-1")
        assert ruth.status == 422
        assert all_of(practice, "Coverage") == all_of(practice, "Task") == []

    def test_waits_at_the_front_desk(self, ruth: Person, person: Callable[[str], Person]) -> None:
        ruth.press("/refer", **ORDER)
        assert "Muster, Pat" in person("frida").open("/desk")
        assert "Muster" not in person("otto").open("/referrals")

    def test_sent_twice_is_one_referral(self, ruth: Person, practice: Practice) -> None:
        forms = ruth.forms
        ruth.press("/refer", **ORDER)
        ruth.forms = forms
        html = ruth.press("/refer", **ORDER)
        assert ruth.status == 200
        assert "Muster" in html
        assert len(all_of(practice, "Task")) == 1

    @pytest.mark.parametrize("field", sorted(ORDER))
    def test_without_a_part_comes_back_with_the_rest(self, ruth: Person, practice: Practice, field: str) -> None:
        html = ruth.press("/refer", **(ORDER | {field: " "}))
        assert ruth.status == 422
        assert f'id="{field}-fault"' in html
        assert "1 answer to look at" in html
        if field != "family":
            assert 'value="Muster"' in html
        assert all_of(practice, "Task") == []

    @pytest.mark.parametrize(
        "field, value",
        [
            ("birthdate", "2027-03-02"),
            ("birthdate", "17.5.1970"),
            ("gender", "f"),
            ("priority", "now"),
            ("family", "x" * 101),
            ("exam", "a\0b"),
        ],
    )
    def test_with_a_part_that_does_not_fit_comes_back(
        self, ruth: Person, practice: Practice, field: str, value: str
    ) -> None:
        ruth.press("/refer", **(ORDER | {field: value}))
        assert ruth.status == 422
        assert all_of(practice, "Task") == []

    @pytest.mark.parametrize("once", ["", "x", "x" * 23, "$" * 22])
    def test_needs_its_own_form(self, ruth: Person, practice: Practice, once: str) -> None:
        ruth.press("/refer", **(ORDER | {"once": once}))
        assert ruth.status == 400
        assert all_of(practice, "Task") == []

    @pytest.mark.parametrize("name", ["frida", "adam"])
    def test_is_for_referring_offices(self, person: Callable[[str], Person], practice: Practice, name: str) -> None:
        somebody = person(name)
        somebody.open("/refer")
        assert somebody.status == 403
        somebody.open("/")
        somebody.send("/refer", csrf_token=somebody.csrf, once="x" * 22, **ORDER)
        assert somebody.status == 403
        assert all_of(practice, "Task") == []
