"""FHIRPath, as the invariants of profiles are written in it. https://hl7.org/fhirpath/N1/

Search parameters have a subset of their own (`fhir_server.index.path`): they are on the path of every write, need no
types, and come from R4 alone.
"""
