"""DICOMweb (PS3.18) over a blob store, and the projection of studies to FHIR ImagingStudy."""
