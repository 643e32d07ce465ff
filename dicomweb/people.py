"""A FHIR Patient as the attributes that images carry of a patient. Pure functions. PS3.3 C.2.2, C.7.1.1."""

MAX_TEXT = 64  # of LO, and of a group of components of PN
_SEXES = {"male": "M", "female": "F", "other": "O"}


def patient_attributes(patient: dict) -> dict[str, str]:
    """Keyword -> value; empty where the record does not say."""
    return {
        "PatientName": person_name(patient),
        "PatientID": patient_id(patient),
        "PatientBirthDate": birth_date(patient),
        "PatientSex": _SEXES.get(patient.get("gender", ""), ""),
    }


def patient_id(patient: dict) -> str:
    """The medical record number; else the first identifier; else the id of the resource."""
    named = [i for i in patient.get("identifier", []) if i.get("value") and len(i["value"]) <= MAX_TEXT]
    records = [i for i in named if any(c.get("code") == "MR" for c in i.get("type", {}).get("coding", []))]
    return next((_plain(i["value"]) for i in (*records, *named)), patient["id"])


def person_name(patient: dict) -> str:
    """`Family^Given^^Prefix^Suffix` of the official name, else of the first."""
    names = patient.get("name", [])
    name = next((n for n in names if n.get("use") == "official"), names[0] if names else {})
    given = [_component(part) for part in name.get("given", [])]
    parts = [
        _component(name.get("family") or ("" if given else name.get("text", ""))),
        given[0] if given else "",
        " ".join(given[1:]),
        " ".join(map(_component, name.get("prefix", []))),
        " ".join(map(_component, name.get("suffix", []))),
    ]
    return "^".join(parts)[:MAX_TEXT].rstrip("^")


def birth_date(patient: dict) -> str:
    """YYYYMMDD; empty unless the whole date is known."""
    date = patient.get("birthDate", "").replace("-", "")
    return date if len(date) == 8 else ""


def _plain(text: str) -> str:
    return "".join(sign for sign in text.replace("\\", " ") if sign.isprintable()).strip()


def _component(text: str) -> str:
    return _plain(text.replace("^", " ").replace("=", " "))
