"""FHIR R4 REST API over one write path: every change is a version, and every version is in one stream."""
