"""FHIR R4 definitions and our own topics, code systems and questionnaires, as data."""
