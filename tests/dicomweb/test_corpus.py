"""Every file of the large corpus, real and malformed, through the whole service."""

import json
import zlib
from collections import Counter
from io import BytesIO
from pathlib import Path

import numpy as np
import orjson
import pytest
from flask.testing import FlaskClient
from pydicom.pixels import pixel_array

from dicomweb.instance import read_instance
from dicomweb.pixels import decode
from dicomweb.projection import Projector
from dicomweb.records import StoredInstance
from dicomweb.wado import encoded_frames
from fhir_server.repository import Repository
from tests.dicomweb.conftest import PRACTICE, Stow

# Address below an instance, and what is accepted there.
READS = (
    ("frames/1", "multipart/related; type=application/octet-stream; transfer-syntax=*"),
    ("frames/1", "*/*"),
    ("rendered", "image/png"),
    ("thumbnail", "image/jpeg"),
)
# What is refused, and why: failure reasons of PS3.4 table B.2-1 and PS3.18 annex I.
NO_UID, NO_DICOM, DIRECTORY, DUPLICATE = 0xA900, 0xC000, 0x0122, 0x0111
REFUSED = {
    NO_UID: """charsets/chrSQEncoding.dcm charsets/chrSQEncoding1.dcm malformed/UN_sequence.dcm
        malformed/empty_charset_LEI.dcm malformed/nested_priv_SQ.dcm malformed/no_meta_group_length.dcm
        malformed/priv_SQ.dcm malformed-made/invalid-uid.dcm malformed-made/no-sop-instance-uid.dcm
        palettes/fall.dcm palettes/hotiron.dcm palettes/hotmetalblue.dcm palettes/pet.dcm palettes/pet20step.dcm
        palettes/spring.dcm palettes/summer.dcm palettes/winter.dcm sc/SC_rgb_jls_lossy_line.dcm
        sc/SC_rgb_jls_lossy_sample.dcm transfer-syntaxes/other/HTJ2KLossless_08_RGB.dcm
        transfer-syntaxes/other/HTJ2K_08_RGB.dcm transfer-syntaxes/other/JLSL_08_07_0_1F.dcm
        transfer-syntaxes/other/JLSL_16_15_1_1F.dcm transfer-syntaxes/other/JPEGLSNearLossless_08.dcm
        transfer-syntaxes/other/JPEGLSNearLossless_16.dcm""",
    NO_DICOM: """malformed/ExplVR_BigEndNoMeta.dcm malformed/ExplVR_LitEndNoMeta.dcm malformed/MR_truncated.dcm
        malformed/meta_missing_tsyntax.dcm malformed/no_meta.dcm malformed/rtplan_truncated.dcm
        malformed-made/empty.dcm malformed-made/no-preamble-with-meta.dcm malformed-made/preamble-only.dcm
        malformed-made/text.dcm malformed-made/truncated-in-header.dcm rt/small/rtstruct.dcm
        transfer-syntaxes/other/JLSN_RGB_ILV0.dcm""",
    DIRECTORY: """dicomdir/DICOMDIR dicomdir/DICOMDIR-bigEnd dicomdir/DICOMDIR-empty.dcm dicomdir/DICOMDIR-implicit
        dicomdir/DICOMDIR-nooffset dicomdir/DICOMDIR-nopatient dicomdir/DICOMDIR-reordered""",
}
REFUSED_BY_NAME = {name: reason for reason, names in REFUSED.items() for name in names.split()}
# Stored, but not shown: a fragment contains the delimiter of its sequence, which damages the stream.
NOT_SHOWN = {"malformed/JPEG2000-embedded-sequence-delimiter.dcm"}
DUPLICATES = 31  # one object in several encodings, under one UID
NO_FRAMES = {"video/mpeg4-avc-720p.dcm"}  # one stream, that is not cut into frames


@pytest.fixture(scope="module")
def corpus(shared_data: Path) -> list[tuple[str, bytes]]:
    folder = shared_data / "dicom"
    index = json.loads((folder / "index.json").read_text())["files"]
    return [(entry["file"], (folder / entry["file"]).read_bytes()) for entry in index]


def test_every_file_is_stored_or_refused_with_its_reason_and_what_is_stored_is_shown(
    corpus: list[tuple[str, bytes]],
    stow: Stow,
    client: FlaskClient,
    projector: Projector,
    repository: Repository,
) -> None:
    statuses: Counter[int] = Counter()
    refused: dict[str, int] = {}
    for name, file in corpus:
        answer = stow(file)
        statuses[answer.status_code] += 1
        assert answer.status_code in (200, 202, 409), name
        if answer.status_code == 409:
            (failure,) = answer.json["00081198"]["Value"]
            refused[name] = failure["00081197"]["Value"][0]
            continue
        url = answer.json["00081199"]["Value"][0]["00081190"]["Value"][0].partition("127.0.0.1:8080")[2]
        (metadata,) = client.get(f"{url}/metadata").json
        assert metadata["00080018"]["Value"][0] in url, name
        has_pixels = any(tag in metadata for tag in ("7FE00008", "7FE00009", "7FE00010"))
        # One slice of the long series stands for the others, which are alike.
        for path, accept in READS if "breast-rt/ct-" not in name or "ct-001" in name else READS[:1]:
            got = client.get(f"{url}/{path}", headers={"Accept": accept})
            if path == "frames/1":
                shown = has_pixels and name not in NO_FRAMES and (name not in NOT_SHOWN or accept != "*/*")
            else:
                shown = name not in NOT_SHOWN
            assert got.status_code == (200 if shown else 406), (name, path, accept, got.status_code)
        assert client.get(url).data.count(file) == 1, name
    duplicates = {name for name, reason in refused.items() if reason == DUPLICATE}
    assert {name: reason for name, reason in refused.items() if name not in duplicates} == REFUSED_BY_NAME
    assert len(duplicates) == DUPLICATES
    assert statuses[200] + statuses[202] == len(corpus) - len(refused)
    while projector.project_due():
        pass
    studies = client.get("/dicomweb/studies").json
    found = repository.search(PRACTICE, "ImagingStudy", "_summary=count", strict=True)
    assert found.total == len(studies) > 50
    assert len(client.get("/dicomweb/instances?limit=10000").json) == statuses[200] + statuses[202]


def test_pixels_are_what_another_reader_reads(corpus: list[tuple[str, bytes]]) -> None:
    """Of every file that pydicom can decode, one by one, also those whose UID another one has."""
    compared = 0
    for name, file in corpus:
        if "breast-rt/ct-" in name and "ct-001" not in name:
            continue
        try:
            instance = read_instance(BytesIO(file))
            expected = pixel_array(BytesIO(file), index=0)
        except Exception:  # what it is that one of the two cannot read, the other test names
            continue
        if instance.frames is None or instance.inflated_from is not None:
            continue
        stored = StoredInstance(
            instance.study, instance.series, instance.sop_instance, instance.sop_class, instance.transfer_syntax, "",
            instance.frames, None, zlib.compress(orjson.dumps(instance.attributes)), instance.bulk,
        )  # fmt: skip
        data = instance.frames.read(1, lambda at, n, f=file: f[at : at + n], even="1.2.2" in instance.transfer_syntax)  # type: ignore[misc]
        shown, _ = decode(encoded_frames(stored)(data), raw=False)
        lossy = instance.transfer_syntax in ("1.2.840.10008.1.2.4.50", "1.2.840.10008.1.2.4.203")
        assert shown.shape == expected.shape, name
        assert np.abs(shown.astype("f8") - expected).max() <= (1 if lossy else 0), name  # decoders round in their way
        compared += 1
    assert compared > 120
