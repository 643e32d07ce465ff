"""What is audited, as a table: a row for each kind of event, as IHE BALP 1.1 and DICOM PS3.15 A.5.3 code it."""

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

DCM = "http://dicom.nema.org/resources/ontology/DCM"
TYPES = "http://terminology.hl7.org/CodeSystem/audit-event-type"
INTERACTIONS = "http://hl7.org/fhir/restful-interaction"


@dataclass(frozen=True, slots=True)
class Coding:
    system: str
    code: str
    display: str = ""

    def as_fhir(self) -> dict:
        return {"system": self.system, "code": self.code} | ({"display": self.display} if self.display else {})


DESTINATION = Coding(DCM, "110152", "Destination Role ID")
SOURCE = Coding(DCM, "110153", "Source Role ID")
APPLICATION = Coding(DCM, "110150", "Application")
CUSTODIAN = Coding("http://terminology.hl7.org/CodeSystem/provenance-participant-type", "custodian", "Custodian")


@dataclass(frozen=True, slots=True)
class Kind:
    """profile: the last part of BALP's name of it, such as `Read`; with a patient `PatientRead`. Empty for none.

    client, server: the roles of who asks and of this server. split: one AuditEvent a patient, without the data.
    purpose: what data leave for; with it, the profile is the same whether a patient is known or not.
    """

    type: Coding
    subtype: Coding | None
    action: str
    profile: str = ""
    client: Coding = APPLICATION
    server: Coding = CUSTODIAN
    split: bool = False
    purpose: Coding | None = None


def _rest() -> dict[str, Kind]:
    rest = Coding(TYPES, "rest", "RESTful Operation")
    out, into, at = (DESTINATION, SOURCE), (SOURCE, DESTINATION), (APPLICATION, CUSTODIAN)
    rows = {  # interactions: action, profile, roles of client and server, whether it is a query
        "read vread history-instance history-type history-system": ("R", "Read", out, False),
        "search search-type search-system": ("E", "Query", into, True),
        "create": ("C", "Create", into, False),
        "update patch": ("U", "Update", into, False),
        "delete": ("D", "Delete", at, False),
        "operation transaction batch": ("E", "", into, False),
    }
    return {
        code: Kind(rest, Coding(INTERACTIONS, code), action, profile, *roles, split=split)
        for codes, (action, profile, roles, split) in rows.items()
        for code in codes.split()
    }


_ALERT = Coding(DCM, "110113", "Security Alert")
_AUTHENTICATION = Coding(DCM, "110114", "User Authentication")
_INSTANCES = Coding(DCM, "110103", "DICOM Instances Accessed")
_RESTRICTED = Coding(DCM, "110132", "Use of Restricted Function")

KINDS: Mapping[str, Kind] = MappingProxyType(
    {
        **_rest(),
        "refused": Kind(_ALERT, _RESTRICTED, "E"),
        # Data go to somebody who did not ask for them at that moment.
        "disclosed": Kind(
            Coding(DCM, "110106", "Export"),
            Coding("http://terminology.hl7.org/CodeSystem/iso-21089-lifecycle", "disclose", "Disclose"),
            "R",
            "PrivacyDisclosure.Source",
            client=DESTINATION,
            server=SOURCE,
            purpose=Coding("http://terminology.hl7.org/CodeSystem/v3-ActReason", "TREAT", "treatment"),
        ),
        # DICOMweb, where a study is what is seen, stored or deleted.
        "images-read": Kind(_INSTANCES, None, "R", client=DESTINATION, server=SOURCE),
        "images-create": Kind(
            Coding(DCM, "110104", "DICOM Instances Transferred"), None, "C", client=SOURCE, server=DESTINATION
        ),
        "images-delete": Kind(_INSTANCES, None, "D"),
        "images-search": Kind(
            Coding(DCM, "110112", "Query"), None, "E", client=SOURCE, server=DESTINATION, split=True
        ),
        # Who comes in, and what they may do.
        "login": Kind(_AUTHENTICATION, Coding(DCM, "110122", "Login"), "E"),
        "logout": Kind(_AUTHENTICATION, Coding(DCM, "110123", "Logout"), "E"),
        "token": Kind(_AUTHENTICATION, Coding("urn:ihe:event-type-code", "ITI-71", "Get Access Token"), "E"),
        "token-end": Kind(_ALERT, Coding(DCM, "110135", "Object Security Attributes Changed"), "D"),
        "consent": Kind(_ALERT, Coding(DCM, "110135", "Object Security Attributes Changed"), "C"),
        "user-changed": Kind(_ALERT, Coding(DCM, "110137", "User security Attributes Changed"), "U"),
        "client-changed": Kind(_ALERT, Coding(DCM, "110129", "Security Configuration"), "U"),
        # What a person did on a page, beside the writes that it led to.
        "act": Kind(Coding(DCM, "110110", "Patient Record"), None, "U", client=SOURCE, server=DESTINATION),
    }
)
