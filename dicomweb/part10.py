"""Reading a received DICOM file (PS3.10) without trusting it: bounded in memory, and every fault a StoreFailure."""

import contextlib
import logging
import os
import struct
import tempfile
import warnings
import zlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import BinaryIO

from pydicom.dataset import Dataset
from pydicom.errors import BytesLengthException, InvalidDicomError
from pydicom.filereader import read_dataset, read_preamble
from pydicom.uid import DeflatedExplicitVRLittleEndian, ExplicitVRBigEndian, ImplicitVRLittleEndian

from dicomweb.failures import OUT_OF_RESOURCES, StoreFailure, cannot_understand

# Everything before the pixel data, values above DEFER_BYTES left out. The largest real headers (slide microscopy with
# a functional group for each of 100,000 tiles) stay below; the reads bound what pydicom holds for each element.
MAX_HEADER_BYTES = 128 * 1024 * 1024
MAX_READS = 4_000_000
DEFER_BYTES = 1024 * 1024
MAX_INFLATED_BYTES = 1024 * 1024 * 1024
MAX_DEPTH = 64  # of sequences
UNDEFINED = 0xFFFFFFFF
PIXEL_TAGS = (0x7FE00008, 0x7FE00009, 0x7FE00010)  # float, double float, integer

# What pydicom and the codecs of text and numbers raise on bytes that are not what they should be.
HOSTILE = (
    ArithmeticError,
    AttributeError,
    EOFError,
    InvalidDicomError,
    BytesLengthException,
    LookupError,
    MemoryError,
    NotImplementedError,
    RecursionError,
    SyntaxError,  # of XML that is none
    TypeError,
    ValueError,
    struct.error,
    zlib.error,
)
_MISTAKES = (AttributeError, TypeError, UnboundLocalError)

# What pydicom says about a value quotes it, and a value may be a patient's name.
warnings.filterwarnings("ignore", module=r"pydicom(\.|$)")
logging.getLogger("pydicom").setLevel(logging.CRITICAL)


@dataclass(frozen=True, slots=True)
class PixelElement:
    """Where the pixel data is: value offset and length in `Part10.file`; UNDEFINED for encapsulated pixel data."""

    tag: int
    vr: str | None  # None in implicit VR
    offset: int
    length: int


@dataclass(slots=True)
class Part10:
    """A file as read. inflated_from: where the deflated data set begins in the stored object, and then `file` and
    all offsets are those of the inflated data set; None for the other transfer syntaxes."""

    media_class: str  # Media Storage SOP Class UID
    transfer_syntax: str
    dataset: Dataset
    pixel_element: PixelElement | None
    file: "Bounded"
    inflated_from: int | None


class Bounded:
    """A file for pydicom that never gives more than there is, nor more in all than a header may have."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self.size = file.seek(0, os.SEEK_END)
        self._bytes = self._reads = 0
        self._at = file.seek(0)  # to ask the file takes the system each time, and pydicom asks for each element

    def read(self, size: int = -1) -> bytes:
        """Up to `size` bytes; nothing at the end. Raises StoreFailure when the file ends within them."""
        left = self.size - self._at
        if left == 0:
            return b""
        if size < 0 or size > left:
            raise cannot_understand("the file ends inside an element")
        self._bytes += size
        self._reads += 1
        if self._bytes > MAX_HEADER_BYTES or self._reads > MAX_READS:
            raise StoreFailure(OUT_OF_RESOURCES, "the data set is too large without its pixel data")
        data = self._file.read(size)
        self._at += len(data)
        return data

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        if whence == os.SEEK_SET and not 0 <= offset <= self.size:
            raise cannot_understand("the file ends inside an element")
        self._at = self._file.seek(offset, whence)
        return self._at

    def tell(self) -> int:
        return self._at

    def at(self, offset: int, length: int) -> bytes:
        """Exactly that range. Raises StoreFailure when the file ends before."""
        self.seek(offset)
        data = self.read(length) if length else b""
        if len(data) != length:
            raise cannot_understand("the file ends inside an element")
        return data

    def part(self, begin: int, end: int) -> bytes:
        """That range as it is, whatever a header may have: the caller knows how long it is."""
        self.seek(begin)
        data = self._file.read(end - begin)
        self._at += len(data)
        return data


@contextlib.contextmanager
def opened(file: BinaryIO) -> Iterator[Part10]:
    """Read the file up to its pixel data. Raises StoreFailure, whatever the file is."""
    with contextlib.ExitStack() as stack:
        with refusing():
            result = _read(file, stack)
        yield result


@contextlib.contextmanager
def refusing(*, shaped: bool = True) -> Iterator[None]:
    """What reading a hostile file raises, as a StoreFailure. The error's own text may quote a value: not told.

    An error that only a mistake of ours raises is not of the file, and passes. shaped: what our own lines take apart
    is bytes and data sets, not JSON of which a client has chosen the shape.
    """
    try:
        yield
    except StoreFailure:
        raise
    except OSError as error:
        if error.errno:  # the disk, not the file's content: pydicom raises a bare OSError for that
            raise
        raise cannot_understand("the file is no readable DICOM file") from None
    except HOSTILE as error:
        if shaped and _is_ours(error):
            raise
        raise cannot_understand(f"the file is no readable DICOM file ({type(error).__name__})") from None


def _is_ours(error: BaseException) -> bool:
    """Whether a line of ours raised it, and not pydicom or Python's libraries, which meet with what is in the file
    and say so by any of these errors."""
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    raised_in = trace.tb_frame.f_globals.get("__name__", "") if trace is not None else ""
    return isinstance(error, _MISTAKES) and raised_in.startswith(__name__.partition(".")[0])


def inflate(chunks: Iterable[bytes]) -> Iterator[bytes]:
    """A deflated data set (PS3.5 annex A.5), piece by piece. Raises StoreFailure beyond MAX_INFLATED_BYTES."""
    inflater, total = zlib.decompressobj(-zlib.MAX_WBITS), 0
    for chunk in chunks:
        data = chunk
        while data and not inflater.eof:
            piece = inflater.decompress(data, DEFER_BYTES)
            data = inflater.unconsumed_tail
            total += len(piece)
            if total > MAX_INFLATED_BYTES:
                raise StoreFailure(OUT_OF_RESOURCES, "the deflated data set is too large")
            yield piece
    if not inflater.eof:
        raise cannot_understand("the deflated data set ends too early")


def _read(file: BinaryIO, stack: contextlib.ExitStack) -> Part10:
    source = Bounded(file)
    read_preamble(source, force=False)  # type: ignore[arg-type]  # reads, seeks and tells: all that it needs
    meta = read_dataset(source, False, True, stop_when=lambda tag, _vr, _length: tag >> 16 != 2)  # type: ignore[arg-type]
    transfer_syntax = uid(meta, 0x00020010)
    if not transfer_syntax:
        raise cannot_understand("the file does not name its transfer syntax (0002,0010)")
    inflated_from = None
    if transfer_syntax == DeflatedExplicitVRLittleEndian:
        inflated_from = source.tell()
        inflated = stack.enter_context(tempfile.TemporaryFile())  # noqa: SIM115  # the stack closes it
        for piece in inflate(iter(lambda: file.read(DEFER_BYTES), b"")):
            inflated.write(piece)
        source = Bounded(inflated)
    found: list[PixelElement] = []

    def at_pixel_data(tag: int, vr: str | None, length: int) -> bool:
        # The value begins here: pydicom asks when it has read the element's header. It asks with the length 0, and
        # at another place, when it finds the file in another encoding than its transfer syntax says; then the next
        # call overwrites this one.
        if tag in PIXEL_TAGS:
            found[:] = [PixelElement(int(tag), vr, source.tell(), length)]
        return tag in PIXEL_TAGS

    dataset = read_dataset(
        source,  # type: ignore[arg-type]
        transfer_syntax == ImplicitVRLittleEndian,
        transfer_syntax != ExplicitVRBigEndian,
        stop_when=at_pixel_data,
        defer_size=DEFER_BYTES,
    )
    pixel_element = found[0] if found else None
    if pixel_element is not None and pixel_element.length != UNDEFINED:
        source.seek(pixel_element.offset + pixel_element.length)  # refuses a file that ends before
    return Part10(uid(meta, 0x00020002), transfer_syntax, dataset, pixel_element, source, inflated_from)


def uid(dataset: Dataset, tag: int) -> str:
    """The UID under a tag as the file has it; empty when there is none, or no text."""
    element = dataset.get_item(tag, keep_deferred=True)
    value = element.value if element is not None else None
    return value.rstrip(b"\0 ").decode("ascii", "replace") if isinstance(value, bytes) else ""
