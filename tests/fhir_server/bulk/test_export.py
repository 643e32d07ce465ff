"""https://hl7.org/fhir/uv/bulkdata/STU2/export.html"""

import json
import threading
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from urllib.parse import quote

import pytest
from flask import Flask

from fhir_server.access import Access, Scope
from fhir_server.bulk import files as bulk_files
from fhir_server.bulk.jobs import LEASE
from fhir_server.clauses import clauses_of
from fhir_server.prepare import Draft
from fhir_server.repository import Repository
from fhir_server.validation import check_structure
from tests.fhir_server.bulk.conftest import ASYNC, Bulk
from tests.fhir_server.conftest import BASE, PRACTICE, an_office
from tests.fhir_server.test_rest import assert_outcome


def a_patient(id: str, **more: object) -> dict:
    return {"resourceType": "Patient", "id": id, "gender": "male", **more}


def an_observation(id: str, patient: str, **more: object) -> dict:
    subject = {"reference": f"Patient/{patient}"}
    return {
        "resourceType": "Observation",
        "id": id,
        "status": "final",
        "code": {"text": "x"},
        "subject": subject,
    } | more


@pytest.fixture
def three(repository: Repository) -> None:
    """Three patients with an observation each, and an organization."""
    for id in ("a", "b", "c"):
        repository.update(PRACTICE, a_patient(id))
        repository.update(PRACTICE, an_observation(f"o{id}", id))
    repository.update(PRACTICE, {"resourceType": "Organization", "id": "org", "name": "O"})


def ids(resources: list[dict]) -> set[str]:
    return {resource["id"] for resource in resources}


class TestKickOff:
    """https://hl7.org/fhir/uv/bulkdata/STU2/export.html#bulk-data-kick-off-request"""

    def test_answers_202_with_the_polling_address(self, bulk: Bulk) -> None:
        answer = bulk.client.get("/fhir/$export", headers=ASYNC)
        assert answer.status_code == 202
        assert answer.headers["Content-Location"].startswith(f"{BASE}/bulk/")
        assert answer.get_json(force=True)["resourceType"] == "OperationOutcome"

    def test_takes_parameters_by_post(self, bulk: Bulk, three: None) -> None:
        body = {"resourceType": "Parameters", "parameter": [{"name": "_type", "valueString": "Patient"}]}
        answer = bulk.client.post(
            "/fhir/$export", data=json.dumps(body), content_type="application/fhir+json", headers=ASYNC
        )
        assert answer.status_code == 202
        bulk.work()
        manifest = bulk.manifest(answer.headers["Content-Location"].removeprefix("http://127.0.0.1:8080"))
        assert [file["type"] for file in manifest["output"]] == ["Patient"]
        assert manifest["request"] == f"{BASE}/$export"

    def test_without_respond_async_is_refused(self, bulk: Bulk) -> None:
        assert_outcome(bulk.client.get("/fhir/$export"), 400, "invalid")
        assert_outcome(bulk.client.get("/fhir/$export", headers={"Prefer": "return=minimal"}), 400, "invalid")

    @pytest.mark.parametrize(
        ("query", "code"),
        [
            ("_outputFormat=text/csv", "value"),
            ("_since=yesterday", "value"),
            ("_since=2026-01-01", "value"),
            ("_since=2026-02-30T00:00:00Z", "value"),
            ("_since=2026-01-01T00:00:00Z&_since=2026-01-02T00:00:00Z", "value"),
            ("_type=Patiant", "not-supported"),
            ("_type=", "not-supported"),
            ("_elements=id", "not-supported"),
            ("includeAssociatedData=LatestProvenanceResources", "not-supported"),
            ("_typeFilter=nonsense", "value"),
            ("_type=Patient&_typeFilter=Task%3Fstatus%3Dready", "invalid"),
            ("_typeFilter=Task%3Fcolour%3Dred", "not-supported"),
            ("_typeFilter=Task%3F_sort%3D_id", "invalid"),
            ("_typeFilter=Task%3F_include%3DTask:focus", "invalid"),
            ("_typeFilter=Task%3F_count%3D5", "invalid"),
            ("_typeFilter=Observation%3Fdate%3Dnever", "value"),
        ],
    )
    def test_what_it_cannot_do_is_refused(self, bulk: Bulk, query: str, code: str) -> None:
        assert_outcome(bulk.client.get(f"/fhir/$export?{query}", headers=ASYNC), 400, code)

    @pytest.mark.parametrize("format", ["application/fhir+ndjson", "application/ndjson", "ndjson"])
    @pytest.mark.parametrize("escape", [quote, str])
    def test_the_names_of_ndjson(self, bulk: Bulk, format: str, escape: type) -> None:
        bulk.kick_off(f"$export?_outputFormat={escape(format)}")

    def test_types_outside_of_the_patient_compartment_are_refused_below_it(self, bulk: Bulk) -> None:
        assert_outcome(
            bulk.client.get("/fhir/Patient/$export?_type=Organization", headers=ASYNC), 400, "not-supported"
        )

    def test_an_unknown_group_is_not_found(self, bulk: Bulk) -> None:
        assert_outcome(bulk.client.get("/fhir/Group/nobody/$export", headers=ASYNC), 404, "not-found")

    def test_lenient_handling_goes_on_and_says_what_it_left_out(self, bulk: Bulk, three: None) -> None:
        manifest = bulk.export("$export?_type=Patient,Patiant&_elements=id", Prefer="respond-async, handling=lenient")
        assert ids(bulk.lines(manifest)) == {"a", "b", "c"}
        outcomes = bulk.lines(manifest, "error")
        said = [issue["diagnostics"] for outcome in outcomes for issue in outcome["issue"]]
        assert len(said) == 2
        assert any("Patiant" in text for text in said)
        assert any("_elements" in text for text in said)

    def test_a_caller_has_a_few_jobs_at_a_time(self, bulk: Bulk, app: Flask) -> None:
        for _ in range(5):
            bulk.kick_off()
        answer = bulk.client.get("/fhir/$export", headers=ASYNC)
        assert_outcome(answer, 429, "throttled")
        assert answer.headers["Retry-After"].isdecimal()
        app.config["ACCESS"] = an_office("o1")
        bulk.kick_off()


class TestStatus:
    """https://hl7.org/fhir/uv/bulkdata/STU2/export.html#bulk-data-status-request"""

    def test_answers_202_with_progress_until_it_is_done(self, bulk: Bulk, three: None) -> None:
        status = bulk.kick_off()
        answer = bulk.client.get(status)
        assert (answer.status_code, answer.headers["X-Progress"]) == (202, "waiting")
        assert answer.headers["Retry-After"].isdecimal()
        bulk.worker(slice_s=0).run_next(threading.Event())
        answer = bulk.client.get(status)
        assert answer.status_code == 202
        assert answer.headers["X-Progress"].startswith("1 resources; Observation")
        assert len(answer.headers["X-Progress"]) < 100
        bulk.work()
        assert bulk.client.get(status).status_code == 200

    def test_the_manifest(self, bulk: Bulk, three: None) -> None:
        before = datetime.now(UTC)
        status = bulk.kick_off("$export?_type=Patient,Observation")
        after = datetime.now(UTC)
        bulk.work()
        answer = bulk.client.get(status)
        manifest = answer.get_json()
        assert answer.content_type == "application/json"
        at = datetime.fromisoformat(manifest["transactionTime"])
        assert before - timedelta(milliseconds=1) <= at <= after
        assert manifest["request"] == f"{BASE}/$export?_type=Patient,Observation"
        assert manifest["requiresAccessToken"] is True
        assert manifest["error"] == []
        assert "deleted" not in manifest
        assert [(file["type"], file["count"]) for file in manifest["output"]] == [("Patient", 3), ("Observation", 3)]
        assert all(file["url"].startswith(f"{BASE}/bulk/") for file in manifest["output"])
        assert parsedate_to_datetime(answer.headers["Expires"]) > before + timedelta(hours=23)

    def test_nothing_to_export_is_an_empty_output(self, bulk: Bulk) -> None:
        assert bulk.export()["output"] == []

    def test_what_cannot_be_done_ends_with_an_outcome(
        self, bulk: Bulk, three: None, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def fail(*_arguments: object) -> None:
            raise OSError("no space left, and a name that must not be told: Chalmers")

        status = bulk.kick_off()
        monkeypatch.setattr(bulk_files.Output, "write", fail)
        for _ in range(6):
            bulk.work()
            bulk.moved += timedelta(minutes=1)
        answer = bulk.client.get(status)
        assert_outcome(answer, 500, "exception")
        assert "Chalmers" not in answer.text


class TestFiles:
    """https://hl7.org/fhir/uv/bulkdata/STU2/export.html#bulk-data-output-file-request"""

    def test_a_line_is_the_resource_as_it_is_read(self, bulk: Bulk, repository: Repository) -> None:
        repository.update(PRACTICE, a_patient("a", name=[{"family": "Ærø\nÅ"}]))
        text = b'{"resourceType":"Observation","id":"o","status":"final","code":{},"valueQuantity":{"value":1.10}}'
        text = text.replace(b"{}", b'{"text":"x"}')
        bulk.client.put("/fhir/Observation/o", data=text, content_type="application/fhir+json")
        manifest = bulk.export()
        for file in manifest["output"]:
            answer = bulk.client.get(file["url"].removeprefix("http://127.0.0.1:8080"))
            assert answer.content_type == "application/fhir+ndjson"
            assert answer.content_length == len(answer.data)
            (line,) = answer.data.splitlines()
            resource = json.loads(line)
            read = bulk.client.get(f"/fhir/{resource['resourceType']}/{resource['id']}")
            assert line == read.data
        assert {file["type"] for file in manifest["output"]} == {"Patient", "Observation"}

    def test_a_type_may_have_several_files(self, bulk: Bulk, three: None, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(bulk_files, "MAX_FILE_BYTES", 200)
        manifest = bulk.export("$export?_type=Patient")
        assert [file["count"] for file in manifest["output"]] == [2, 1]
        assert len({file["url"] for file in manifest["output"]}) == 2
        assert ids(bulk.lines(manifest)) == {"a", "b", "c"}

    def test_addresses_of_attachments_are_absolute(self, bulk: Bulk, repository: Repository) -> None:
        repository.update(
            PRACTICE, {"resourceType": "Binary", "id": "b1", "contentType": "text/plain", "data": "eA=="}
        )
        attachment = {"contentType": "text/plain", "url": "Binary/b1", "title": 'of "url":"Binary/b1"'}
        document = {
            "resourceType": "DocumentReference",
            "id": "d",
            "status": "current",
            "content": [{"attachment": attachment}],
        }
        repository.update(PRACTICE, document)
        (found,) = bulk.lines(bulk.export("$export?_type=DocumentReference"))
        assert found["content"][0]["attachment"] == {**attachment, "url": f"{BASE}/Binary/b1"}

    def test_a_binary_about_a_patient_is_a_documentreference(self, bulk: Bulk, repository: Repository) -> None:
        repository.update(PRACTICE, a_patient("a"))
        observation = {"resourceType": "Observation", "id": "o", "status": "final", "code": {"text": "x"}}
        repository.update(PRACTICE, observation | {"subject": {"reference": "Patient/a"}})
        contexts = {"direct": "Patient/a", "through": "Observation/o", "none": None}
        for id, context in contexts.items():
            binary = {"resourceType": "Binary", "id": id, "contentType": "text/plain", "data": "eA=="}
            repository.update(PRACTICE, binary | ({"securityContext": {"reference": context}} if context else {}))
        manifest = bulk.export("$export?_type=Binary")
        assert {file["type"]: file["count"] for file in manifest["output"]} == {"DocumentReference": 2, "Binary": 1}
        found = {line["id"]: line for line in bulk.lines(manifest)}
        assert found["none"]["resourceType"] == "Binary"
        for id in ("direct", "through"):
            assert found[id]["resourceType"] == "DocumentReference"
            assert found[id]["subject"] == {"reference": "Patient/a"}
            attachment = {"contentType": "text/plain", "url": f"{BASE}/Binary/{id}"}
            assert found[id]["content"] == [{"attachment": attachment}]
            check_structure(found[id])

    def test_files_are_readable_by_the_server_alone(self, bulk: Bulk, three: None) -> None:
        bulk.export()
        (folder,) = bulk.folder.iterdir()
        assert folder.stat().st_mode & 0o777 == 0o700
        assert {file.stat().st_mode & 0o777 for file in folder.iterdir()} == {0o600}

    @pytest.mark.parametrize("name", ["nothing.ndjson", "..", "%2e%2e%2fsecret", "Patient.2.ndjson"])
    def test_there_are_no_other_files(self, bulk: Bulk, three: None, name: str) -> None:
        status = bulk.kick_off()
        bulk.work()
        assert bulk.client.get(f"{status}/{name}").status_code == 404

    def test_they_are_gone_after_a_day(self, bulk: Bulk, three: None) -> None:
        status = bulk.kick_off()
        bulk.work()
        bulk.moved = timedelta(hours=23)
        bulk.worker().sweep()
        manifest = bulk.manifest(status)
        bulk.moved = timedelta(hours=25)
        bulk.worker().sweep()
        assert_outcome(bulk.client.get(status), 404, "not-found")
        url = manifest["output"][0]["url"].removeprefix("http://127.0.0.1:8080")
        assert_outcome(bulk.client.get(url), 404, "not-found")
        assert not list(bulk.folder.iterdir())


class TestLevels:
    def test_system_gives_everything(self, bulk: Bulk, three: None) -> None:
        assert ids(bulk.lines(bulk.export())) == {"a", "b", "c", "oa", "ob", "oc", "org"}

    def test_patient_gives_what_is_in_a_compartment(self, bulk: Bulk, three: None, repository: Repository) -> None:
        without = an_observation("nobody", "a")
        del without["subject"]
        repository.update(PRACTICE, without)
        assert ids(bulk.lines(bulk.export("Patient/$export"))) == {"a", "b", "c", "oa", "ob", "oc"}

    @pytest.mark.parametrize("few", [100, 0], ids=["by key", "picked out"])
    def test_group_gives_the_compartments_of_its_members(
        self, bulk: Bulk, three: None, repository: Repository, monkeypatch: pytest.MonkeyPatch, few: int
    ) -> None:
        monkeypatch.setattr("fhir_server.search.selection.FEW_PATIENTS", few)
        members = [
            {"entity": {"reference": "Patient/a"}},
            {"entity": {"reference": f"{BASE}/Patient/b"}},
            {"entity": {"reference": "Patient/c"}, "inactive": True},
            {"entity": {"display": "somebody"}},
        ]
        group = {"resourceType": "Group", "id": "g", "type": "person", "actual": True, "member": members}
        repository.update(PRACTICE, group)
        both = {
            "resourceType": "Appointment",
            "id": "both",
            "status": "proposed",
            "participant": [
                {"actor": {"reference": f"Patient/{id}"}, "status": "accepted"} for id in ("a", "b", "c")
            ],
        }
        repository.update(PRACTICE, both)
        manifest = bulk.export("Group/g/$export")
        found = bulk.lines(manifest)
        assert sorted(one["id"] for one in found) == ["a", "b", "both", "g", "oa", "ob"]
        repository.update(PRACTICE, {"resourceType": "Group", "id": "empty", "type": "person", "actual": True})
        assert bulk.export("Group/empty/$export")["output"] == []


class TestSelection:
    def test_types(self, bulk: Bulk, three: None) -> None:
        assert ids(bulk.lines(bulk.export("$export?_type=Patient&_type=Organization"))) == {"a", "b", "c", "org"}

    def test_since_gives_what_changed_after_it(self, bulk: Bulk, three: None, repository: Repository) -> None:
        first = bulk.export()
        repository.update(PRACTICE, a_patient("b", active=True))
        repository.update(PRACTICE, a_patient("d"))
        second = bulk.export(f"$export?_since={quote(first['transactionTime'])}")
        assert ids(bulk.lines(second)) == {"b", "d"}
        assert second["deleted"] == []

    def test_deleted_resources_are_listed_since(self, bulk: Bulk, three: None, repository: Repository) -> None:
        repository.delete(PRACTICE, "Observation", "oc")
        since = quote(bulk.export()["transactionTime"])
        repository.delete(PRACTICE, "Observation", "oa")
        repository.delete(PRACTICE, "Observation", "ob")
        repository.update(PRACTICE, an_observation("ob", "b"))
        manifest = bulk.export(f"$export?_since={since}")
        bundles = bulk.lines(manifest, "deleted")
        assert [bundle["type"] for bundle in bundles] == ["transaction"]
        assert [entry["request"] for bundle in bundles for entry in bundle["entry"]] == [
            {"method": "DELETE", "url": "Observation/oa"}
        ]
        assert ids(bulk.lines(manifest)) == {"ob"}
        assert bulk.export(f"$export?_since={since}&_type=Patient")["deleted"] == []
        assert len(bulk.export(f"Patient/$export?_since={since}")["deleted"]) == 1

    def test_type_filters_are_alternatives(self, bulk: Bulk, repository: Repository) -> None:
        repository.update(PRACTICE, a_patient("a"))
        for id, status, date in [
            ("o1", "final", "2020-01-01"),
            ("o2", "amended", "2024-01-01"),
            ("o3", "amended", "2010-01-01"),
            ("o4", "registered", "2024-01-01"),
        ]:
            repository.update(PRACTICE, an_observation(id, "a", status=status, effectiveDateTime=date))
        queries = [quote("Observation?status=final"), quote("Observation?status=amended&date=gt2018-07-01")]
        together = f"$export?_type=Observation,Patient&_typeFilter={','.join(queries)}"
        assert ids(bulk.lines(bulk.export(together))) == {"a", "o1", "o2"}
        repeated = f"$export?_type=Observation&_typeFilter={queries[0]}&_typeFilter={queries[1]}"
        assert ids(bulk.lines(bulk.export(repeated))) == {"o1", "o2"}
        one = f"$export?_typeFilter={quote('Observation?status=registered,final')}"
        assert ids(bulk.lines(bulk.export(one), type="Observation")) == {"o1", "o4"}
        chained = f"$export?_type=Observation&_typeFilter={quote('Observation?subject:Patient.gender=female')}"
        assert bulk.export(chained)["output"] == []

    def test_the_data_are_those_of_the_transaction_time(self, bulk: Bulk, repository: Repository) -> None:
        """What is changed, created or deleted after the kick-off is as it was then."""
        for id in ("a", "b", "c"):
            repository.update(PRACTICE, a_patient(id))
        status = bulk.kick_off()
        before = repository.clock
        repository.clock = lambda: before() + timedelta(seconds=1)
        repository.update(PRACTICE, a_patient("a", gender="female"))
        repository.update(PRACTICE, a_patient("new"))
        bulk.work()
        manifest = bulk.manifest(status)
        found = bulk.lines(manifest)
        seen = {one["id"]: (one["gender"], one["meta"]["versionId"]) for one in found}
        assert seen == dict.fromkeys(("a", "b", "c"), ("male", "1"))
        last = max(datetime.fromisoformat(one["meta"]["lastUpdated"]) for one in found)
        assert last <= datetime.fromisoformat(manifest["transactionTime"])


class TestRights:
    """The server SHALL limit the data returned to what the client is authorized for."""

    def test_an_office_exports_what_it_sees(self, bulk: Bulk, app: Flask, repository: Repository) -> None:
        for office in ("mine", "theirs"):
            repository.update(PRACTICE, {"resourceType": "Organization", "id": office, "name": office})
            repository.update(an_office(office), a_patient(f"of-{office}"))
        repository.delete(an_office("theirs"), "Patient", "of-theirs")
        app.config["ACCESS"] = an_office("mine")
        manifest = bulk.export("$export?_since=2020-01-01T00:00:00Z")
        assert ids(bulk.lines(manifest, type="Patient")) == {"of-mine"}
        assert manifest["deleted"] == []

    def test_only_types_that_may_be_read_and_searched(self, bulk: Bulk, three: None, app: Flask) -> None:
        app.config["ACCESS"] = Access(
            "client:x", (Scope("system", "Patient", "rs"), Scope("system", "Observation", "r")), None
        )
        assert ids(bulk.lines(bulk.export())) == {"a", "b", "c"}
        assert_outcome(bulk.client.get("/fhir/$export?_type=Observation", headers=ASYNC), 403, "forbidden")
        app.config["ACCESS"] = Access("client:y", (Scope("system", "Patient", "c"),), None)
        assert_outcome(bulk.client.get("/fhir/$export", headers=ASYNC), 403, "forbidden")

    def test_scopes_with_parameters_narrow_it(
        self, bulk: Bulk, three: None, app: Flask, repository: Repository
    ) -> None:
        """Lines, what was deleted, and what a changed resource was; and the same scopes are needed for the files."""
        clauses = clauses_of("Patient", "gender=female")
        assert clauses is not None
        scopes = (Scope("system", "Patient", "rs", clauses), Scope("system", "Observation", "rs"))
        for id, gender in (("f", "female"), ("m", "male"), ("gone-f", "female"), ("gone-m", "male")):
            repository.update(PRACTICE, a_patient(id, gender=gender))
        for id in ("gone-f", "gone-m"):
            repository.delete(PRACTICE, "Patient", id)
        app.config["ACCESS"] = Access(PRACTICE.subject, scopes, None)
        manifest = bulk.export("$export?_type=Patient&_since=2020-01-01T00:00:00Z")
        assert ids(bulk.lines(manifest, type="Patient")) == {"f"}
        deleted = [line["entry"][0]["request"]["url"] for line in bulk.lines(manifest, kind="deleted")]
        assert deleted == ["Patient/gone-f"]
        url = manifest["output"][0]["url"].removeprefix("http://127.0.0.1:8080")
        other = clauses_of("Patient", "gender=male") or ()
        app.config["ACCESS"] = Access(PRACTICE.subject, (Scope("system", "Patient", "rs", other), scopes[1]), None)
        assert_outcome(bulk.client.get(url), 403, "forbidden")
        app.config["ACCESS"] = PRACTICE
        assert bulk.client.get(url).status_code == 200

    def test_a_compartment_narrows_it(self, bulk: Bulk, three: None, app: Flask) -> None:
        within = frozenset({"@any", "@Patient/a"})
        app.config["ACCESS"] = Access(PRACTICE.subject, PRACTICE.scopes, None, compartment=within)
        assert ids(bulk.lines(bulk.export("$export?_type=Patient"))) == {"a"}

    def test_it_is_for_who_asked(self, bulk: Bulk, three: None, app: Flask) -> None:
        status = bulk.kick_off()
        bulk.work()
        url = bulk.manifest(status)["output"][0]["url"].removeprefix("http://127.0.0.1:8080")
        app.config["ACCESS"] = Access("user:other", PRACTICE.scopes, None)
        for path in (status, url):
            assert_outcome(bulk.client.get(path), 404, "not-found")
        assert_outcome(bulk.client.delete(status), 404, "not-found")
        app.config["ACCESS"] = PRACTICE
        assert bulk.client.get(url).status_code == 200

    @pytest.mark.parametrize(
        "now",
        [
            Access(PRACTICE.subject, (Scope("system", "Patient", "rs"),), None),
            Access(PRACTICE.subject, PRACTICE.scopes, frozenset({"@any"})),
        ],
        ids=["fewer scopes", "a smaller audience"],
    )
    def test_rights_are_checked_again_at_the_files(self, bulk: Bulk, three: None, app: Flask, now: Access) -> None:
        status = bulk.kick_off()
        bulk.work()
        url = bulk.manifest(status)["output"][0]["url"].removeprefix("http://127.0.0.1:8080")
        app.config["ACCESS"] = now
        for path in (status, url):
            assert_outcome(bulk.client.get(path), 403, "forbidden")

    def test_versions_are_seen_through_their_views(self, bulk: Bulk, three: None, repository: Repository) -> None:
        repository.views["Organization"] = lambda access, version: replace(
            version, body=b'{"resourceType":"Organization","id":"masked"}'
        )
        assert ids(bulk.lines(bulk.export("$export?_type=Organization"))) == {"masked"}


class TestEnd:
    """https://hl7.org/fhir/uv/bulkdata/STU2/export.html#bulk-data-delete-request"""

    def test_a_job_that_waits_can_be_cancelled(self, bulk: Bulk, three: None) -> None:
        status = bulk.kick_off()
        assert bulk.client.delete(status).status_code == 202
        assert_outcome(bulk.client.get(status), 404, "not-found")
        assert_outcome(bulk.client.delete(status), 404, "not-found")
        bulk.work()
        assert not list(bulk.folder.glob("*"))

    def test_a_job_that_runs_can_be_cancelled(self, bulk: Bulk, three: None, monkeypatch: pytest.MonkeyPatch) -> None:
        status = bulk.kick_off()
        write = bulk_files.Output.write

        def write_and_cancel(*arguments: object) -> None:
            write(*arguments)  # type: ignore[arg-type]
            assert bulk.client.delete(status).status_code in (202, 404)

        monkeypatch.setattr(bulk_files.Output, "write", write_and_cancel)
        bulk.worker(slice_s=0).run_next(threading.Event())
        assert_outcome(bulk.client.get(status), 404, "not-found")
        assert not list(bulk.folder.iterdir())

    def test_a_job_that_is_done_can_be_removed(self, bulk: Bulk, three: None) -> None:
        status = bulk.kick_off()
        bulk.work()
        assert bulk.client.delete(status).status_code == 202
        assert_outcome(bulk.client.get(status), 404, "not-found")
        assert not list(bulk.folder.iterdir())


class TestCrash:
    def test_another_worker_goes_on_and_no_line_is_lost_or_doubled(
        self, bulk: Bulk, repository: Repository, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """A worker dies at every single line in turn, with lines written that it had not noted yet."""
        patients = [Draft("update", a_patient(f"p{number}")) for number in range(12)]
        repository.write(PRACTICE, patients)
        status = bulk.kick_off()
        write = bulk_files.Output.write
        written = 0

        class Killed(BaseException):
            pass

        def write_and_die(output: bulk_files.Output, *arguments: object) -> None:
            nonlocal written
            write(output, *arguments)  # type: ignore[arg-type]
            written += 1
            if written % 3 == 0:
                for _, file in output._open.values():
                    file.flush()
                raise Killed

        monkeypatch.setattr(bulk_files.Output, "write", write_and_die)
        monkeypatch.setattr("fhir_server.bulk.worker.ATTEMPTS", 1000)
        monkeypatch.setattr("fhir_server.bulk.turn.Turn.is_due", lambda turn: written % 2 == 0)
        deaths = 0
        while bulk.client.get(status).status_code == 202:
            bulk.moved += LEASE + timedelta(seconds=1)
            try:
                bulk.worker().run_next(threading.Event())
            except Killed:
                deaths += 1
        assert deaths > 3
        found = [one["id"] for one in bulk.lines(bulk.manifest(status))]
        assert sorted(found) == sorted(f"p{number}" for number in range(12))

    def test_two_workers_never_have_one_job(self, bulk: Bulk, three: None) -> None:
        bulk.kick_off()
        first = bulk.jobs.claim()
        assert first is not None
        assert bulk.jobs.claim() is None
        bulk.moved = LEASE + timedelta(seconds=1)
        second = bulk.jobs.claim()
        assert second is not None
        assert second.id == first.id
        with pytest.raises(Exception, match=first.id):
            bulk.jobs.save(first)
        bulk.jobs.save(second)

    def test_a_long_job_leaves_others_their_turn(self, bulk: Bulk, three: None) -> None:
        long, short = bulk.kick_off(), bulk.kick_off("$export?_type=Organization")
        worker, stop = bulk.worker(slice_s=0), threading.Event()
        worker.run_next(stop)
        worker.run_next(stop)
        worker.run_next(stop)
        worker.run_next(stop)
        assert bulk.client.get(long).status_code == 202
        assert bulk.client.get(short).status_code == 200
