"""A stored study as a FHIR ImagingStudy, and the Endpoint where its images are. Pure functions.
https://hl7.org/fhir/R4/imagingstudy-mappings.html#dicom
"""

import re
from datetime import UTC, datetime, timedelta, timezone, tzinfo

from conformance import CANONICAL
from dicomweb.attributes import SERIES_DATE, SERIES_TIME, STUDY_DATE, STUDY_TIME
from dicomweb.dicom_json import Attributes, integer, text
from dicomweb.matching import Match, StudyAttributes
from dicomweb.records import SeriesContent, StudyContent
from dicomweb.uids import ENDPOINT_ID, imaging_study_id

DCM = "http://dicom.nema.org/resources/ontology/DCM"
SNOMED = "http://snomed.info/sct"
OPENED_ALIKE = "http://fhir.org/argonaut/smart-imaging/StructureDefinition/requires-access-token"
IDENTIFIER_TYPE = "http://terminology.hl7.org/CodeSystem/v2-0203"
# meta.tag of a study that came with its order: photos, letters, films that an office or the front desk added to it.
ATTACHED = (f"{CANONICAL}/CodeSystem/origin", "attached")
# Beyond that an ImagingStudy only counts its instances: 20,000 of them are 3 MB and take a second to check.
MAX_INSTANCES = 20_000
MAX_INTEGER = 2**31 - 1
# Body Part Examined -> SNOMED CT code and display. PS3.16 annex L.
_BODY_PARTS = {
    "ABDOMEN": ("818981001", "Abdomen"),
    "ABDOMENPELVIS": ("818982008", "Abdomen and Pelvis"),
    "BLADDER": ("89837001", "Bladder"),
    "BRAIN": ("12738006", "Brain"),
    "BREAST": ("76752008", "Breast"),
    "CHEST": ("816094009", "Chest"),
    "CSPINE": ("122494005", "Cervical spine"),
    "FOOT": ("56459004", "Foot"),
    "HAND": ("85562004", "Hand"),
    "HEAD": ("69536005", "Head"),
    "HEART": ("80891009", "Heart"),
    "HIP": ("29836001", "Hip"),
    "KIDNEY": ("64033007", "Kidney"),
    "KNEE": ("72696002", "Knee"),
    "LIVER": ("10200004", "Liver"),
    "LSPINE": ("122496007", "Lumbar spine"),
    "LUNG": ("39607008", "Lung"),
    "NECK": ("45048000", "Neck"),
    "PELVIS": ("816092008", "Pelvis"),
    "PROSTATE": ("41216001", "Prostate"),
    "SHOULDER": ("16982005", "Shoulder"),
    "SKULL": ("89546000", "Skull"),
    "SPINE": ("421060004", "Spine"),
    "THYROID": ("69748006", "Thyroid"),
    "TSPINE": ("122495006", "Thoracic spine"),
}
_SIDES = {"L": ("7771000", "Left"), "R": ("24028007", "Right")}
_CODE = re.compile(r"[^\s]+( [^\s]+)*")


def endpoint(dicomweb_base: str, *, tells_of_token: bool = False) -> dict:
    """Where the images of every study are; clients add `/studies/{uid}`.

    tells_of_token: that the token for the ImagingStudy opens it, as SMART Imaging Access (a draft) wants it said.
    """
    connection = "http://terminology.hl7.org/CodeSystem/endpoint-connection-type"
    return ({"extension": [{"url": OPENED_ALIKE, "valueBoolean": True}]} if tells_of_token else {}) | {
        "resourceType": "Endpoint",
        "id": ENDPOINT_ID,
        "status": "active",
        "connectionType": {"system": connection, "code": "dicom-wado-rs"},
        "name": "DICOMweb of the practice",
        "payloadType": [{"coding": [{"system": DCM, "code": "113014", "display": "Study"}]}],
        "payloadMimeType": ["application/dicom"],
        "address": dicomweb_base,
    }


def imaging_study(
    study: StudyAttributes, content: StudyContent, match: Match | None, status: str, zone: tzinfo, before: dict | None
) -> dict:
    """The resource. before: the current one, whose links to order and patient stay once they are made.

    zone: of the practice, for times that do not say theirs.
    """
    attributes = content.attributes
    resource = {
        "resourceType": "ImagingStudy",
        "id": imaging_study_id(study.study_instance_uid),
        "identifier": [
            {"system": "urn:dicom:uid", "value": f"urn:oid:{study.study_instance_uid}"},
            *(_accession(number, match) for number in study.accession_numbers if clean(number)),
        ],
        "status": status,
        "modality": [_modality(code) for code in content.modalities if _CODE.fullmatch(code)],
        "subject": {"reference": match.subject} if match else _logical_subject(study),
        "started": started(attributes, zone),
        "basedOn": [{"reference": order} for order in match.based_on] if match else [],
        "endpoint": [{"reference": f"Endpoint/{ENDPOINT_ID}"}],
        "numberOfSeries": len(content.series),
        "numberOfInstances": content.count,
        "description": clean(text(attributes, "00081030")),
        "series": [_series(series, zone) for series in content.series],
    }
    made = {name: value for name, value in resource.items() if value not in (None, "", [])}
    if content.link is not None and content.link.attached:
        made["meta"] = {"tag": [{"system": ATTACHED[0], "code": ATTACHED[1]}]}
    return _kept(before, made, decided=content.link is not None)


def withdrawn(before: dict) -> dict | None:
    """The resource of a study whose images were deleted, while others refer to it; None when it is so already."""
    if is_withdrawn(before):
        return None
    left = {name: value for name, value in before.items() if name not in ("series", "endpoint")}
    return left | {"status": "entered-in-error", "numberOfSeries": 0, "numberOfInstances": 0}


def is_withdrawn(resource: dict) -> bool:
    return resource["status"] == "entered-in-error" and resource.get("numberOfInstances") == 0


def started(
    attributes: Attributes, zone: tzinfo, date_tag: str = STUDY_DATE, time_tag: str = STUDY_TIME
) -> str | None:
    """Study Date and Time as a FHIR dateTime: the date alone when there is no readable time; None without a date.

    zone: where the images do not say theirs.
    """
    date_, time_ = text(attributes, date_tag).replace(".", ""), text(attributes, time_tag).replace(":", "")
    try:
        day = datetime.strptime(date_, "%Y%m%d").date()  # noqa: DTZ007  # the zone follows below
    except ValueError:
        return None
    whole, _, fraction = time_.partition(".")
    if not re.fullmatch(r"\d{2}(\d{2}){0,2}", whole):
        return day.isoformat()
    hour, minute, second = (int(whole[at : at + 2] or 0) for at in (0, 2, 4))
    try:
        # 60 is a leap second in DICOM, as in FHIR, but not in Python.
        moment = datetime(
            day.year, day.month, day.day, hour, minute, min(second, 59), tzinfo=_offset(attributes) or zone
        )
        exact = moment + timedelta(milliseconds=int(f"{fraction}000"[:3]) if fraction.isdigit() else 0)
        return exact.isoformat(timespec="milliseconds" if exact.microsecond else "seconds")
    except (ValueError, OverflowError):
        return day.isoformat()


def clean(text_: str) -> str:
    """Text that a FHIR string can be: no control characters, no blanks at its ends."""
    return "".join(sign if sign.isprintable() else " " for sign in text_).strip()


def is_attached(resource: dict) -> bool:
    """Whether the study came with its order, and is no result of it."""
    tags = resource.get("meta", {}).get("tag", [])
    return any((tag.get("system"), tag.get("code")) == ATTACHED for tag in tags)


def _kept(before: dict | None, made: dict, *, decided: bool) -> dict:
    """What staff or an earlier match said stays: withdrawn studies, and links to order and patient.

    decided: the links of `made` are a person's decision, and stand.
    """
    if before is None:
        return made
    ours = set(made) | {"basedOn", "started", "description"}
    merged = {name: value for name, value in before.items() if name not in ours} | made
    if before["status"] in ("cancelled", "entered-in-error"):
        merged["status"] = before["status"]
    if decided:
        return merged
    subject = before["subject"].get("reference")
    if before.get("basedOn") or subject not in (None, made["subject"].get("reference")):
        merged["subject"] = before["subject"]
        merged.pop("basedOn", None)
        if "basedOn" in before:
            merged["basedOn"] = before["basedOn"]
    return merged


def _accession(number: str, match: Match | None) -> dict:
    type_ = {"coding": [{"system": IDENTIFIER_TYPE, "code": "ACSN"}]}
    system = {"system": match.accession_system} if match and match.accession_system else {}
    return {"type": type_} | system | {"value": clean(number)}


def _logical_subject(study: StudyAttributes) -> dict:
    """Who the images say it is, without naming one of our patients."""
    name = clean(study.patient_name.replace("^", " "))
    subject: dict = {"type": "Patient"}
    if clean(study.patient_id):
        subject["identifier"] = {"value": clean(study.patient_id)}
        if issuer := clean(study.issuer_of_patient_id):
            subject["identifier"]["assigner"] = {"display": issuer}
    return subject | {"display": name or "Patient not known here"}


def _series(series: SeriesContent, zone: tzinfo) -> dict:
    attributes = series.attributes
    modality = text(attributes, "00080060")
    side = _SIDES.get(text(attributes, "00200060"))
    made = {
        "uid": text(attributes, "0020000E"),
        "number": _unsigned(integer(attributes, "00200011")),
        "modality": _modality(modality if _CODE.fullmatch(modality) else "OT"),
        "description": clean(text(attributes, "0008103E")),
        "numberOfInstances": series.count,
        "bodySite": _body_site(clean(text(attributes, "00180015"))),
        "started": started(attributes, zone, SERIES_DATE, SERIES_TIME),
        "laterality": {"system": SNOMED, "code": side[0], "display": side[1]} if side else None,
        "instance": [
            {
                "uid": uid,
                "sopClass": {"system": "urn:ietf:rfc:3986", "code": f"urn:oid:{sop_class}"},
            }
            | ({"number": number} if _unsigned(number) is not None else {})
            for sop_class, uid, number in series.instances
        ],
    }
    return {name: value for name, value in made.items() if value not in (None, "", [])}


def _modality(code: str) -> dict:
    return {"system": DCM, "code": code}


def _body_site(term: str) -> dict | None:
    if not term:
        return None
    known = _BODY_PARTS.get(term.upper().replace(" ", ""))
    return {"system": SNOMED, "code": known[0], "display": known[1]} if known else {"display": term}


def _unsigned(number: int | None) -> int | None:
    return number if number is not None and 0 <= number <= MAX_INTEGER else None


def _offset(attributes: Attributes) -> tzinfo | None:
    """Timezone Offset From UTC, such as `+0100`."""
    match = re.fullmatch(r"([+-])(\d{2})(\d{2})", text(attributes, "00080201"))
    if not match or int(match[2]) > 14 or int(match[3]) > 59:
        return None
    offset = timedelta(hours=int(match[2]), minutes=int(match[3]))
    return timezone(-offset if match[1] == "-" else offset) if offset else UTC
