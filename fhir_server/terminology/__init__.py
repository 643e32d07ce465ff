"""Terminology: what is in code systems and value sets, and how codes map. https://hl7.org/fhir/R4/terminology-service.html"""
