"""A stored file with other values at its top: what a person has corrected. Pixel data and all else stay as they are,
and what the values were is kept in the file (Original Attributes Sequence, PS3.3 C.12.1.1.9).
"""

import shutil
import zlib
from collections.abc import Mapping
from copy import deepcopy
from dataclasses import dataclass
from datetime import datetime
from io import BytesIO
from typing import BinaryIO

from pydicom.dataset import Dataset
from pydicom.filebase import DicomBytesIO
from pydicom.filereader import read_dataset, read_preamble
from pydicom.filewriter import write_dataset
from pydicom.uid import ExplicitVRBigEndian, ImplicitVRLittleEndian

from dicomweb import part10
from dicomweb.failures import OUT_OF_RESOURCES, StoreFailure

MAX_REWRITTEN_BYTES = 256 * 1024 * 1024  # all but the pixel data
_LONG_FORM = {"OB", "OD", "OF", "OL", "OV", "OW", "UN"}
_UTF8 = "ISO_IR 192"
SYSTEM = "RADLOOP"


@dataclass(frozen=True, slots=True)
class Change:
    """values: keyword -> text, empty for an empty value. dropped: keywords of attributes that go. at: when."""

    values: Mapping[str, str]
    dropped: frozenset[str]
    at: datetime


def rewrite(source: BinaryIO, change: Change, target: BinaryIO) -> None:
    """Write the file of `source` with the change to `target`. Raises StoreFailure."""
    with part10.opened(source) as found, part10.refusing():
        pixels = found.pixel_element
        end = found.file.size
        if pixels is not None:
            end = pixels.offset - (12 if pixels.vr in _LONG_FORM else 8)
        source.seek(0)
        read_preamble(source, force=False)
        read_dataset(source, False, True, stop_when=lambda tag, _vr, _length: tag >> 16 != 2)
        deflated, begin = found.inflated_from is not None, source.tell()
        if end > MAX_REWRITTEN_BYTES:
            raise StoreFailure(OUT_OF_RESOURCES, "the data set is too large to be written anew")
        source.seek(0)
        target.write(source.read(begin))
        body = found.file.part(0 if deflated else begin, end)
        syntax = found.transfer_syntax
        written = _changed(body, change, syntax == ImplicitVRLittleEndian, syntax != ExplicitVRBigEndian)
        if not deflated:
            target.write(written)
            source.seek(end)
            shutil.copyfileobj(source, target, part10.DEFER_BYTES)
            return
        packer = zlib.compressobj(wbits=-zlib.MAX_WBITS)
        packed = packer.compress(written) + packer.compress(found.file.part(end, found.file.size)) + packer.flush()
        target.write(packed + b"\0" * (len(packed) % 2))


def _changed(body: bytes, change: Change, implicit: bool, little: bool) -> bytes:
    dataset = read_dataset(BytesIO(body), implicit, little)
    unicode = not all(value.isascii() for value in change.values.values())
    if unicode:
        dataset.decode()
    before = Dataset()
    for keyword in (*change.values, *change.dropped):
        if keyword in dataset:
            before.add(deepcopy(dataset[keyword]))
    if unicode:
        dataset.SpecificCharacterSet = _UTF8
    for keyword, value in change.values.items():
        setattr(dataset, keyword, value)
    for keyword in change.dropped & set(dataset.dir()):
        delattr(dataset, keyword)
    note = Dataset()
    note.SourceOfPreviousValues, note.ModifyingSystem, note.ReasonForTheAttributeModification = "", SYSTEM, "CORRECT"
    note.AttributeModificationDateTime = change.at.strftime("%Y%m%d%H%M%S.%f%z")
    note.ModifiedAttributesSequence = [before]
    dataset.OriginalAttributesSequence = [*dataset.get("OriginalAttributesSequence", []), note]
    written = DicomBytesIO()
    written.is_little_endian, written.is_implicit_VR = little, implicit
    write_dataset(written, dataset)
    return written.getvalue()
