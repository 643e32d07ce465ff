"""What the CapabilityStatement says of images."""

from fhir_server.capability import Capability


def capability(dicomweb_base: str) -> Capability:
    """How to get from an ImagingStudy to its images."""
    text = (
        f"Images by DICOMweb (STOW-RS, QIDO-RS, WADO-RS) at {dicomweb_base}, with the same access token. Written by "
        "the server from stored studies; `endpoint` names the address, to which clients add /studies/{uid}."
    )
    return Capability(resources={"ImagingStudy": {"documentation": text}})
