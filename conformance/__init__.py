"""FHIR R4 definitions and our own topics, code systems and questionnaires, as data."""

from conformance.access import AccessRules, access_rules
from conformance.canonical import CANONICAL
from conformance.definitions import SearchParameter, compartment, compartments, resource_types, search_parameters
from conformance.layout import Element, layout
from conformance.resources import conformance_resources
from conformance.topics import MODIFIERS, Topic, read_topics, topic_pages, topics

__all__ = [
    "CANONICAL",
    "MODIFIERS",
    "AccessRules",
    "Element",
    "SearchParameter",
    "Topic",
    "access_rules",
    "compartment",
    "compartments",
    "conformance_resources",
    "layout",
    "read_topics",
    "resource_types",
    "search_parameters",
    "topic_pages",
    "topics",
]
