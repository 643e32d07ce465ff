"""The demonstration practice as FHIR resources: rooms, devices, services, a fortnight of slots, three
referring offices. All names and places are invented; patients come from the synthetic sample in data/fhir.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import date, datetime, time, timedelta
from importlib.resources import files
from zoneinfo import ZoneInfo

from fhir_server import fhir_json

SNOMED = "http://snomed.info/sct"
OPENS, CLOSES = time(0, 0), time(23, 30)  # a demonstration can be looked at by night
DAYS = 14


@dataclass(frozen=True, slots=True)
class Modality:
    """One room with its device. code: SNOMED CT procedure; minutes: room time of an ordinary exam."""

    key: str
    code: str
    display: str
    service: str
    minutes: int


@dataclass(frozen=True, slots=True)
class Office:
    """A referring office and its physician."""

    key: str
    name: str
    given: str
    family: str
    phone: str
    email: str


MODALITIES = (
    Modality("ct", "77477000", "Computerized axial tomography", "Computed tomography", 30),
    Modality("mr", "113091000", "Magnetic resonance imaging", "Magnetic resonance", 45),
    Modality("us", "16310003", "Ultrasonography", "Ultrasound", 30),
)
OFFICES = (
    Office("lakeside", "Lakeside Family Medicine", "Ana", "Lindqvist", "+1-555-0110", "office@lakeside.example"),
    Office("hillcrest", "Hillcrest Orthopaedics", "Tomas", "Okafor", "+1-555-0120", "desk@hillcrest.example"),
    Office("oldtown", "Old Town Surgery", "Mirela", "Santos", "+1-555-0130", "hello@oldtown.example"),
)
PRACTICE_NAME = "Harbor Radiology"
PRACTICE_PHONE = "+1-555-0100"


def resources(practice: str, today: date, zone: ZoneInfo) -> Iterator[dict]:
    """Everything but people who are ill. practice: its reference, `Organization/practice`."""
    yield _organization(practice.partition("/")[2], PRACTICE_NAME, PRACTICE_PHONE)
    yield {
        "resourceType": "Location",
        "id": "site",
        "status": "active",
        "name": f"{PRACTICE_NAME}, Pier Street 4",
        "managingOrganization": {"reference": practice},
        "telecom": [{"system": "phone", "value": PRACTICE_PHONE}],
    }
    for modality in MODALITIES:
        yield from _room(practice, modality)
        yield from _slots(modality, today, zone)
    for office in OFFICES:
        yield _organization(office.key, office.name, office.phone)
        yield from _physician(office)


def patients() -> list[dict]:
    """Ten synthetic Patients."""
    lines = (files("radloop") / "data" / "fhir" / "synthea-patients.ndjson").read_bytes().splitlines()
    return [fhir_json.loads(line) for line in lines]


def _organization(id: str, name: str, phone: str) -> dict:
    kind = {"system": "http://terminology.hl7.org/CodeSystem/organization-type", "code": "prov"}
    return {
        "resourceType": "Organization",
        "id": id,
        "active": True,
        "type": [{"coding": [kind]}],
        "name": name,
        "telecom": [{"system": "phone", "value": phone}],
    }


def _physician(office: Office) -> Iterator[dict]:
    name = {"family": office.family, "given": [office.given], "prefix": ["Dr."]}
    id = f"{office.key}-physician"
    yield {"resourceType": "Practitioner", "id": id, "active": True, "name": [name]}
    yield {
        "resourceType": "PractitionerRole",
        "id": f"{office.key}-role",
        "active": True,
        "practitioner": {"reference": f"Practitioner/{id}", "display": f"Dr. {office.given} {office.family}"},
        "organization": {"reference": f"Organization/{office.key}", "display": office.name},
        "telecom": [{"system": "phone", "value": office.phone}],
    }


def _room(practice: str, modality: Modality) -> Iterator[dict]:
    kind = _service_type(modality)
    room, device, service = f"room-{modality.key}", f"device-{modality.key}", f"service-{modality.key}"
    yield {
        "resourceType": "Location",
        "id": room,
        "status": "active",
        "name": f"{modality.service} room",
        "partOf": {"reference": "Location/site"},
        "managingOrganization": {"reference": practice},
    }
    yield {
        "resourceType": "Device",
        "id": device,
        "status": "active",
        "deviceName": [{"name": f"{modality.service} scanner", "type": "user-friendly-name"}],
        "location": {"reference": f"Location/{room}"},
    }
    yield {
        "resourceType": "HealthcareService",
        "id": service,
        "active": True,
        "providedBy": {"reference": practice},
        "type": [kind],
        "location": [{"reference": f"Location/{room}"}],
        "name": modality.service,
        "appointmentRequired": True,
    }
    yield {
        "resourceType": "Schedule",
        "id": f"schedule-{modality.key}",
        "active": True,
        "serviceType": [kind],
        "actor": [
            {"reference": f"HealthcareService/{service}"},
            {"reference": f"Location/{room}", "display": f"{modality.service} room"},
            {"reference": f"Device/{device}"},
        ],
    }


def _slots(modality: Modality, today: date, zone: ZoneInfo) -> Iterator[dict]:
    for day in range(DAYS):
        opens = datetime.combine(today + timedelta(days=day), OPENS, zone)
        closes = datetime.combine(today + timedelta(days=day), CLOSES, zone)
        # Counted in UTC, so that a day of 23 or 25 hours has slots of the right length.
        start, length = opens.astimezone(ZoneInfo("UTC")), timedelta(minutes=modality.minutes)
        while start + length <= closes.astimezone(ZoneInfo("UTC")):
            yield {
                "resourceType": "Slot",
                "id": f"{modality.key}-{start:%Y%m%d%H%M}",
                "serviceType": [_service_type(modality)],
                "schedule": {"reference": f"Schedule/schedule-{modality.key}"},
                "status": "free",
                "start": start.astimezone(zone).isoformat(),
                "end": (start + length).astimezone(zone).isoformat(),
            }
            start += length


def _service_type(modality: Modality) -> dict:
    return {"coding": [{"system": SNOMED, "code": modality.code, "display": modality.display}]}
