"""Who is on stage, and what each of them does through the public interfaces of the server."""

import secrets
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from importlib.resources import as_file, files
from io import BytesIO
from typing import Any

import pydicom
import requests
from dicomweb_client.api import DICOMwebClient
from PIL import Image
from pydicom.uid import generate_uid

from conformance import CANONICAL
from radloop.demo.stage import Caller, StepFailed, patiently

BACKPORT = "http://hl7.org/fhir/uv/subscriptions-backport/StructureDefinition"
TOPICS = f"{CANONICAL}/SubscriptionTopic"
PLACER = "urn:oid:2.999.7.1"  # the numbering of the demonstration EHR
OFFICE = "Organization/lakeside"
PHYSICIAN = "PractitionerRole/lakeside-role"
PRACTICE = "Organization/practice"


@dataclass(frozen=True, slots=True)
class Referral:
    """References of one referral. system: whose number it is."""

    number: str
    patient: str
    order: str
    task: str
    system: str = PLACER


class Ehr:
    """The EHR of the referring office: places orders, hears by rest-hook."""

    def __init__(self, caller: Caller, endpoint: str, secret: str) -> None:
        self.caller = caller
        self._endpoint = endpoint
        self._secret = secret

    def subscribe(self, topic: str, filter: str) -> str:
        """A rest-hook Subscription with full resources; its id."""
        channel = {
            "type": "rest-hook",
            "endpoint": self._endpoint,
            "payload": "application/fhir+json",
            "_payload": _content("full-resource"),
            "header": [f"Authorization: Bearer {self._secret}"],
        }
        return self.caller.create(_subscription(topic, filter, channel))["id"]

    def refer(self, patient: dict, exam: str, priority: str) -> Referral:
        """Send one referral as a transaction; the same placer number would make no second one."""
        number = f"LK-{secrets.token_hex(4).upper()}"
        bundle = _referral_bundle(number, patient, exam, priority)
        answer = self.caller.post("", bundle)
        places = [entry["response"]["location"].split("/_history/")[0] for entry in answer["entry"]]
        patient_, _, order, task = ("/".join(place.split("/")[-2:]) for place in places)
        return Referral(number, patient_, order, task)

    def business_status(self, referral: Referral) -> str:
        return business_status(self.caller.get(referral.task))


class App:
    """A SMART app that the physician is logged in to: hears by websocket, answers the survey."""

    def __init__(self, caller: Caller) -> None:
        self.caller = caller
        self.subscription = ""

    def subscribe(self, topic: str, filter: str) -> None:
        channel = {"type": "websocket", "payload": "application/fhir+json", "_payload": _content("id-only")}
        self.subscription = self.caller.create(_subscription(topic, filter, channel))["id"]

    def binding(self) -> tuple[str, str]:
        """Websocket address and a fresh token for it."""
        answer = self.caller.get(f"Subscription/{self.subscription}/$get-ws-binding-token")
        values = {parameter["name"]: parameter for parameter in answer["parameter"]}
        return values["websocket-url"]["valueUrl"], values["token"]["valueString"]

    def answer_survey(self, referral: Referral) -> dict:
        """Post the feedback for a referral."""
        questionnaire = self.caller.find("Questionnaire", url=f"{CANONICAL}/Questionnaire/referral-feedback")[0]
        items = [answer for item in questionnaire["item"] for answer in _answers(item)]
        return self.caller.create(
            {
                "resourceType": "QuestionnaireResponse",
                "questionnaire": f"{questionnaire['url']}|{questionnaire['version']}",
                "status": "completed",
                "basedOn": [{"reference": referral.order}],
                "subject": {"reference": referral.patient},
                "author": {"reference": PHYSICIAN},
                "authored": _now(),
                "item": items,
            }
        )


class Desk:
    """The practice's front desk and its radiologist."""

    def __init__(self, caller: Caller, origin: str) -> None:
        self.caller = caller
        self._origin = origin

    def accept(self, referral: Referral) -> None:
        task = self.caller.get(referral.task)
        task["status"] = "accepted"
        self.caller.update(task)

    def book(self, referral: Referral, service: str) -> dict:
        """Find the next free time, hold it and book it; the booked Appointment."""
        found = self._operate(
            "$find",
            start={"valueDateTime": self.now()},
            end={"valueDateTime": self.now(days=7)},
            **{"visit-type": {"valueString": service}, "referral-identifier": _numbered(referral)},
        )
        proposed = [entry["resource"] for entry in found.get("entry", [])]
        if not proposed:
            raise StepFailed("no free time was found")
        reference = {"valueReference": {"reference": f"Appointment/{proposed[0]['id']}"}}
        held = self._operate("$hold", **{"appointment-reference": reference})["entry"][0]["resource"]
        reference = {"valueReference": {"reference": f"Appointment/{held['id']}"}}
        booked = self._operate("$book", **{"appointment-reference": reference, "order-reference": _order(referral)})
        return booked["entry"][0]["resource"]

    def mark(self, appointment: dict, status: str) -> None:
        """Set the status of an Appointment, such as `arrived`."""
        current = self.caller.get(f"Appointment/{appointment['id']}")
        self.caller.update({**current, "status": status})

    def report(self, referral: Referral, study: dict, text: str) -> dict:
        """A final DiagnosticReport."""
        return self.caller.create(
            {
                "resourceType": "DiagnosticReport",
                "status": "final",
                "basedOn": [{"reference": referral.order}],
                "category": [
                    {"coding": [{"system": "http://terminology.hl7.org/CodeSystem/v2-0074", "code": "RAD"}]}
                ],
                "code": {"text": "Radiology report"},
                "subject": {"reference": referral.patient},
                "effectiveDateTime": _now(),
                "issued": _now(),
                "performer": [{"reference": PRACTICE}],
                "imagingStudy": [{"reference": f"ImagingStudy/{study['id']}"}],
                "conclusion": text,
            }
        )

    def move_clock(self, minutes: float) -> None:
        """Set how far the practice's clock is ahead of the real time."""
        self.caller.post(f"{self._origin}/demo/clock", {"minutes": minutes})

    def now(self, days: int = 0) -> str:
        return _now(days)

    def _operate(self, name: str, **parameters: dict) -> dict:
        entries = [{"name": name, **value} for name, value in parameters.items()]
        return self.caller.post(f"Appointment/{name}", {"resourceType": "Parameters", "parameter": entries})


class Modality:
    """A CT scanner with its archive link: takes patient and order from the worklist, stores by STOW-RS."""

    def __init__(self, token: Callable[[], str], dicomweb: str) -> None:
        self._token = token
        self._dicomweb = dicomweb

    def scan(self, patient: dict, accession: str) -> tuple[str, list[pydicom.Dataset]]:
        """The sample CT series as it would come off the scanner for this order: (StudyInstanceUID, slices)."""
        study, series = generate_uid(), generate_uid()
        slices, now = list(_series()), datetime.now(UTC)
        for slice_ in slices:
            slice_.StudyInstanceUID, slice_.SeriesInstanceUID = study, series
            slice_.SOPInstanceUID = slice_.file_meta.MediaStorageSOPInstanceUID = generate_uid()
            slice_.AccessionNumber = accession
            for name in ("StudyDate", "SeriesDate", "AcquisitionDate", "ContentDate"):
                setattr(slice_, name, now.strftime("%Y%m%d"))
            for name in ("StudyTime", "SeriesTime", "AcquisitionTime", "ContentTime"):
                setattr(slice_, name, now.strftime("%H%M%S"))
            slice_.TimezoneOffsetFromUTC = "+0000"
            slice_.PatientID = _record_number(patient)
            slice_.PatientName = "^".join([patient["name"][0]["family"], *patient["name"][0]["given"]])
            slice_.PatientBirthDate = patient["birthDate"].replace("-", "")
            slice_.PatientSex = {"male": "M", "female": "F"}.get(patient["gender"], "O")
            # Text says which character set it is in, as DICOM wants it (PS3.3 C.12.1.1.2).
            slice_.SpecificCharacterSet = "ISO_IR 192"
        return study, slices

    def store(self, study: str, slices: list[pydicom.Dataset]) -> None:
        """STOW-RS; sends everything again while the server is away, which is harmless."""

        answer = patiently(lambda: self._client().store_instances(slices, study_instance_uid=study))
        if failed := answer.get("FailedSOPSequence"):
            raise StepFailed(f"STOW-RS refused {len(failed)} instances")
        if len(answer.ReferencedSOPSequence) != len(slices):
            raise StepFailed(f"STOW-RS stored {len(answer.ReferencedSOPSequence)} of {len(slices)} instances")

    def look_back(self, study: str) -> Iterator[str]:
        """QIDO-RS, metadata, a frame and a rendered JPEG of what was stored; a line about each."""
        client = self._client()
        found = patiently(lambda: client.search_for_studies(search_filters={"StudyInstanceUID": study}))
        if len(found) != 1:
            raise StepFailed(f"QIDO-RS found {len(found)} studies")
        series = patiently(lambda: client.search_for_series(study))[0]["0020000E"]["Value"][0]
        instances = patiently(lambda: client.search_for_instances(study, series))
        yield f"QIDO-RS: 1 study, 1 series, {len(instances)} instances"
        metadata = patiently(lambda: client.retrieve_series_metadata(study, series))
        yield f"WADO-RS metadata: {len(metadata)} instances, {len(metadata[0])} attributes in the first"
        instance = metadata[0]["00080018"]["Value"][0]
        frame = patiently(lambda: client.retrieve_instance_frames(study, series, instance, [1]))[0]
        rows, columns = metadata[0]["00280010"]["Value"][0], metadata[0]["00280011"]["Value"][0]
        yield f"WADO-RS frame 1: {len(frame):,} bytes ({rows} x {columns})"
        jpeg = patiently(
            lambda: client.retrieve_instance_rendered(study, series, instance, media_types=("image/jpeg",))
        )
        with Image.open(BytesIO(jpeg)) as image:
            image.load()
            if image.format != "JPEG" or image.size != (columns, rows) or image.convert("L").getextrema()[0] == 255:
                raise StepFailed("the rendered image is not what was stored")
            yield f"rendered: JPEG {image.width} x {image.height}, {len(jpeg):,} bytes"

    def _client(self) -> DICOMwebClient:
        session = requests.Session()
        session.headers["Authorization"] = f"Bearer {self._token()}"
        return DICOMwebClient(self._dicomweb, session=session)


def business_status(task: dict) -> str:
    """The code of the referral's business status."""
    coding = task.get("businessStatus", {}).get("coding", [])
    return next(
        (c["code"] for c in coding if c.get("system") == f"{CANONICAL}/CodeSystem/referral-business-status"), ""
    )


def _subscription(topic: str, filter: str, channel: dict) -> dict:
    return {
        "resourceType": "Subscription",
        "meta": {"profile": [f"{BACKPORT}/backport-subscription"]},
        "status": "requested",
        "reason": "Demonstration of a referral",
        "criteria": f"{TOPICS}/{topic}",
        "_criteria": {"extension": [{"url": f"{BACKPORT}/backport-filter-criteria", "valueString": filter}]},
        "channel": channel,
    }


def _content(level: str) -> dict:
    return {"extension": [{"url": f"{BACKPORT}/backport-payload-content", "valueCode": level}]}


def _referral_bundle(number: str, patient: dict, exam: str, priority: str) -> dict:
    urn = {name: f"urn:uuid:{_uuid()}" for name in ("patient", "practitioner", "order", "task")}
    identifier = {
        "type": {"coding": [{"system": "http://terminology.hl7.org/CodeSystem/v2-0203", "code": "PLAC"}]},
        "system": PLACER,
        "value": number,
    }
    order = {
        "resourceType": "ServiceRequest",
        "identifier": [identifier],
        "status": "active",
        "intent": "order",
        "category": [{"coding": [{"system": "http://snomed.info/sct", "code": "363679005", "display": "Imaging"}]}],
        "priority": priority,
        "code": {"text": exam},
        "subject": {"reference": urn["patient"]},
        "authoredOn": _now(),
        "requester": {"reference": PHYSICIAN},
        "performer": [{"reference": PRACTICE}],
        "reasonCode": [{"text": "Pain in the right lower abdomen for three weeks"}],
    }
    task = {
        "resourceType": "Task",
        "identifier": [identifier],
        "status": "requested",
        "intent": "order",
        "priority": priority,
        "code": {"coding": [{"system": "http://hl7.org/fhir/CodeSystem/task-code", "code": "fulfill"}]},
        "focus": {"reference": urn["order"]},
        "for": {"reference": urn["patient"]},
        "authoredOn": _now(),
        "requester": {"reference": OFFICE},
        "owner": {"reference": PRACTICE},
    }
    practitioner = {
        "resourceType": "Practitioner",
        "identifier": [{"system": f"{PLACER}.1", "value": "physician-1"}],
        "name": [{"family": "Lindqvist", "given": ["Ana"], "prefix": ["Dr."]}],
    }
    record = f"{patient['identifier'][1]['system']}|{_record_number(patient)}"
    return {
        "resourceType": "Bundle",
        "type": "transaction",
        "entry": [
            _entry(urn["patient"], patient, f"identifier={record}"),
            _entry(urn["practitioner"], practitioner, f"identifier={PLACER}.1|physician-1"),
            _entry(urn["order"], order, f"identifier={PLACER}|{number}"),
            _entry(urn["task"], task, f"identifier={PLACER}|{number}"),
        ],
    }


def _entry(full_url: str, resource: dict, if_none_exist: str) -> dict:
    request = {"method": "POST", "url": resource["resourceType"], "ifNoneExist": if_none_exist}
    return {"fullUrl": full_url, "resource": resource, "request": request}


def _record_number(patient: dict) -> str:
    """The medical record number that a sample Patient comes with."""
    return patient["identifier"][1]["value"]


def _numbered(referral: Referral) -> dict:
    return {"valueIdentifier": {"system": referral.system, "value": referral.number}}


def _order(referral: Referral) -> dict:
    return {"valueReference": {"reference": referral.order}}


def _answers(item: dict) -> Iterator[dict]:
    """An answer to a question of the survey, by its type."""
    values: dict[str, dict[str, Any]] = {
        "integer": {"valueInteger": 5},
        "boolean": {"valueBoolean": True},
        "text": {"valueString": "The appointment came quickly. Could the report mention prior exams?"},
        "string": {"valueString": "Thank you"},
    }
    if item["type"] == "group":
        yield {"linkId": item["linkId"], "item": [a for child in item["item"] for a in _answers(child)]}
    elif item["type"] == "choice":
        option = item["answerOption"][-1]
        yield {"linkId": item["linkId"], "answer": [{k: v for k, v in option.items() if k.startswith("value")}]}
    elif item["type"] in values:
        yield {"linkId": item["linkId"], "answer": [values[item["type"]]]}


def _series() -> Iterator[pydicom.Dataset]:
    with as_file(files("radloop") / "data" / "dicom" / "ct-series") as folder:
        for file in sorted(folder.glob("*.dcm")):
            yield pydicom.dcmread(file)


def _now(days: int = 0) -> str:
    return (datetime.now(UTC) + timedelta(days=days)).isoformat(timespec="seconds")


def _uuid() -> str:
    return str(uuid.uuid4())
