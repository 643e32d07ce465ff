"""The DICOM conformance statement, `conformance/dicom.md`: what can be is taken from the code that does it.

`python -m dicomweb.statement` writes it anew. PS3.2.
"""

import csv
import textwrap
from collections.abc import Iterable, Iterator
from pathlib import Path

from pydicom.uid import EncapsulatedPDFStorage, VideoPhotographicImageStorage, VLPhotographicImageStorage

from dicomweb import accept, failures, qido, wrap
from dicomweb.attributes import LEVELS, Attribute, of_level
from dicomweb.instance import MEDIA_DIRECTORY
from dicomweb.routes import MAY_DELETE

FOLDER = Path(__file__).resolve().parents[1] / "conformance"
FILE, TABLE = FOLDER / "dicom.md", FOLDER / "dicom.csv"
REASONS = {
    failures.OUT_OF_RESOURCES: "no room on the disk or in the quota, or a data set too large without its pixel data",
    failures.NOT_THIS_SOP_CLASS: "one of the four UIDs is missing or no UID",
    failures.OTHER_STUDY: "belongs to another study than the address names",
    failures.CANNOT_UNDERSTAND: "is no readable DICOM file; its UIDs are told where they could be read",
    failures.SYNTAX_NOT_SUPPORTED: "bulk data in a media type that is no transfer syntax",
    failures.SOP_CLASS_NOT_SUPPORTED: f"a media directory ({MEDIA_DIRECTORY})",
    failures.PROCESSING: "the bulk data that the metadata names was not sent",
    failures.DUPLICATE_SOP_INSTANCE: "another object is stored under this SOP Instance UID; it stays as it is",
}
_MATCHING = {
    "PN": "single value, wildcards, without case and accents; fuzzy",
    "UI": "list of UIDs",
    "CS": "single value, list, wildcards",
    "DA": "single value, range",
    "TM": "single value, range",
    "IS": "single value",
    "US": "single value",
}
_FHIR = (
    "`started` has the offset of Timezone Offset From UTC, else that of the practice. FHIR compares moments and "
    "takes a date without a zone for a day of UTC; QIDO-RS compares the date that the images say. Outside UTC a day "
    "of the practice is `started=ge2024-01-31T00:00:00+01:00&started=lt2024-02-01T00:00:00+01:00`. A study with "
    "another offset is of its own day for QIDO-RS.",
    "`patient.identifier` knows all numbers of the patient on record, QIDO-RS the Patient ID in the images. Of a "
    "study that belongs to no patient on record it is `patient:identifier`.",
    "FHIR compares accession numbers and modalities without wildcards.",
)


def statement() -> str:
    """The document, in Markdown."""
    return "\n".join(_lines()) + "\n"


def _lines() -> Iterator[str]:
    yield "# DICOM conformance statement"
    yield from _text(
        "Radloop is an origin server of the Studies service of PS3.18: STOW-RS, QIDO-RS and "
        "WADO-RS at `/dicomweb`, and "
        "WADO-URI at `/wado`. This page is written by `python -m dicomweb.statement`; a test keeps it true."
    )
    yield from ("", "## Security")
    yield from _text(
        "Every request needs a bearer token (SMART App Launch, OAuth 2) with scopes of "
        "ImagingStudy: `r` to retrieve, "
        f"`s` to search, `c` to store (the practice), `d` to delete (the roles {', '.join(sorted(MAY_DELETE))}). Who "
        "sees the ImagingStudy of a study sees its images; others get 404, as for what is not "
        "there. A study that was "
        "deleted is 410 to the practice. Answers may be kept by the browser alone and are asked for again each time "
        "(`private, no-cache`, entity tags). Who saw, searched, stored, corrected and deleted what, and what was "
        "refused, is in the audit trail (AuditEvent) before it is answered."
    )
    yield from ("", "## Storing (STOW-RS)")
    yield from _text(
        "Any composite SOP class and any transfer syntax is stored as it was received, byte for byte, and keyed by "
        f"UIDs alone. Media types: `{accept.DICOM}`, and `{accept.DICOM_JSON}` or "
        f"`{accept.DICOM_XML}` with bulk data; "
        f"each in `{accept.MULTIPART}` or alone. The answer is given when the instances survive a loss of power."
    )
    yield from _text(
        "Content that is no DICOM yet may be the bulk data of metadata; what the metadata leaves out of its class "
        "and picture is taken from it:"
    )
    yield ""
    yield from _table(("Media type", "SOP class"), _wrapped())
    yield ""
    yield from _table(("Failure Reason", "When"), ((f"{code:04X}", text) for code, text in sorted(REASONS.items())))
    yield from _text(
        f"Warning Reason {failures.COERCED:04X}: a decimal string was longer than 16 characters, or a "
        "window was none (PS3.3 C.11.2.1.2: a width of 1 or more for LINEAR, above 0 for the others). The file "
        "stays as it is; metadata has the rounded number, and leaves the window out. Why instances "
        "failed is told in words in `Warning` headers (299), each reason once. What the disk keeps free and what all "
        "images may take are settings; reading goes on beyond."
    )
    yield from ("", "## Searching (QIDO-RS)")
    yield from _text(
        f"At most {qido.MAX_LIMIT:,} matches at once, {qido.DEFAULT_LIMIT:,} without `limit`. An "
        f"attribute is named by "
        "keyword or tag. Keys that are not in these tables are refused with 400."
    )
    for level in LEVELS:
        yield from ("", f"### {level.capitalize()}", "")
        yield from _table(("Attribute", "Tag", "Matched", "Returned"), map(_attribute, of_level(level, above=False)))
    yield from ("", "### The same question in FHIR")
    yield from _text(
        "An ImagingStudy follows each study within a moment, and who sees the one sees the other. Patient, accession "
        "number, UIDs, modality and date find the same studies by QIDO-RS and by FHIR search, but for these:"
    )
    yield ""
    for difference in _FHIR:
        yield from textwrap.wrap(
            f"- {difference}", 118, subsequent_indent="  ", break_long_words=False, break_on_hyphens=False
        )
    yield from ("", "## Retrieving (WADO-RS)")
    yield from _text(
        f'Instances as `{accept.MULTIPART}; type="{accept.DICOM}"`, one alone as `{accept.DICOM}`, or all in '
        f"`{accept.ZIP}`. Metadata as `{accept.DICOM_JSON}`, or as `{accept.DICOM_XML}` in parts. All text is UTF-8 "
        "(ISO_IR 192); `charset` may be given and has no effect. Frames as stored have these media types:"
    )
    types: dict[str, list[str]] = {}
    for syntax, media_type in accept.FRAME_TYPES.items():
        types.setdefault(media_type, []).append(syntax)
    yield ""
    yield from _table(("Media type", "Transfer syntaxes"), ((t, ", ".join(s)) for t, s in sorted(types.items())))
    yield from ("", "## Correcting and keeping")
    yield from _text(
        "The practice says whose a study is, merges and splits studies, and deletes them. The files are written anew "
        "with the corrected attributes of patient, study and order; SOP and Series Instance UIDs stay, the values "
        "before are in the Original Attributes Sequence, and the file as received is kept: sent again it is a "
        "success. What arrives later for an address that was corrected waits for a person. Studies older than the "
        "practice keeps them are deleted by a command; nothing is deleted by itself."
    )
    yield from ("", "## Capabilities, one by one", "")
    with TABLE.open(newline="") as file:
        rows = [(r["capability"], r["support"], r["remark"]) for r in csv.DictReader(file)]
    yield from _table(("Capability", "Support", "Remark"), rows)


def _wrapped() -> Iterator[tuple[str, str]]:
    yield ", ".join(wrap.PHOTOS), VLPhotographicImageStorage.name
    yield wrap.PDF, EncapsulatedPDFStorage.name
    yield f"{wrap.MP4} (H.264, H.265)", VideoPhotographicImageStorage.name


def _text(paragraph: str) -> Iterator[str]:
    yield ""
    yield from textwrap.wrap(paragraph, 118, break_long_words=False, break_on_hyphens=False)


def _attribute(attribute: Attribute) -> tuple[str, ...]:
    matched = _MATCHING.get(attribute.vr, "single value, wildcards") if attribute.matched else "no"
    return attribute.keyword, attribute.path, matched, "always" if attribute.default else "when asked for"


def _table(head: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> Iterator[str]:
    yield f"| {' | '.join(head)} |"
    yield f"|{'---|' * len(head)}"
    for row in rows:
        yield f"| {' | '.join(row)} |"


if __name__ == "__main__":
    FILE.write_text(statement())
