"""The base of the canonical addresses that this server defines itself."""

CANONICAL = "https://radloop.example/fhir"
