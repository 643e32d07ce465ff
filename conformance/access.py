"""Who sees what, as data for `fhir_server.scope`. Paths are dotted element paths to References."""

from collections.abc import Mapping
from dataclasses import dataclass

from conformance.definitions import resource_types


@dataclass(frozen=True, slots=True)
class AccessRules:
    """The rules by resource type.

    catalogue: seen by every caller. publishers: subjects whose resources every caller sees. owner_only: seen by who
    wrote it first. writer_organization: seen by the organization of the writer. organizations: and by these
    organizations. standing_for: types that stand for an organization where one is expected. inherited: and by the
    organizations that see these. grants: whoever sees this sees these too. corrected: that another order was named by
    mistake gives nobody a right to stay.
    """

    catalogue: frozenset[str]
    publishers: frozenset[str]
    owner_only: frozenset[str]
    writer_organization: frozenset[str]
    organizations: Mapping[str, tuple[str, ...]]
    standing_for: Mapping[str, tuple[str, ...]]
    inherited: Mapping[str, tuple[str, ...]]
    grants: Mapping[str, tuple[str, ...]]
    corrected: frozenset[str]


# The directory, the definitions, and the times that can be booked. Nothing of a patient is in any of them.
_CATALOGUE = frozenset(
    """
    ActivityDefinition CapabilityStatement ChargeItemDefinition CodeSystem CompartmentDefinition ConceptMap
    Endpoint EventDefinition GraphDefinition HealthcareService ImplementationGuide InsurancePlan Library
    Location Measure MessageDefinition NamingSystem OperationDefinition Organization OrganizationAffiliation
    PlanDefinition Practitioner PractitionerRole Questionnaire Schedule SearchParameter Slot
    StructureDefinition StructureMap TerminologyCapabilities TestScript ValueSet
    """.split()
)
_OWNER_ONLY = frozenset({"Subscription"})

_RULES = AccessRules(
    catalogue=_CATALOGUE,
    publishers=frozenset({"system:conformance"}),
    owner_only=_OWNER_ONLY,
    # An office sees what it wrote itself, whatever that is.
    writer_organization=resource_types() - _CATALOGUE - _OWNER_ONLY,
    organizations={
        "Communication": ("sender", "recipient"),
        "DocumentReference": ("author", "custodian"),
        "QuestionnaireResponse": ("author", "source"),
        "ServiceRequest": ("requester", "performer"),
        "Task": ("requester", "owner"),
    },
    standing_for={"PractitionerRole": ("organization",)},
    inherited={
        "Appointment": ("basedOn",),
        "AppointmentResponse": ("appointment",),
        "Binary": ("securityContext",),
        "Communication": ("basedOn", "partOf", "about"),
        "DiagnosticReport": ("basedOn",),
        "DocumentReference": ("context.related",),
        "Encounter": ("basedOn",),
        "ImagingStudy": ("basedOn",),
        "Observation": ("basedOn",),
        "Procedure": ("basedOn",),
        "Provenance": ("target",),
        "QuestionnaireResponse": ("basedOn",),
        "Task": ("focus", "basedOn", "partOf"),
    },
    grants={
        "DiagnosticReport": ("result",),
        "ServiceRequest": ("subject", "insurance", "reasonReference", "supportingInfo"),
        "Task": ("focus", "for"),
    },
    corrected=frozenset({"ImagingStudy"}),
)


def access_rules() -> AccessRules:
    """The rules of this server."""
    return _RULES
