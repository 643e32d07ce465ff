"""What people send is looked at before it is kept: its type is told by its content, never by its name, and what it
says of the place and the camera is removed.
"""

from pathlib import Path

from dicomweb.boxes import Box, Content, boxes
from dicomweb.failures import cannot_understand
from dicomweb.wrap import JPEG, MP4, PDF, PNG, looked_into

HEAD_BYTES = 1024
_SIGNATURES = ((b"\xff\xd8\xff", JPEG), (b"\x89PNG\r\n\x1a\n", PNG))
_QUICKTIME = b"qt  "
# Application segments of a JPEG that decoders need: JFIF, the colour profile, Adobe's colour transform.
_KEPT_SEGMENTS = {0xE0, 0xE2, 0xEE}
_APPLICATION, _COMMENT, _SCAN = range(0xE0, 0xF0), 0xFE, 0xDA
# Boxes of an MP4 file that tell of the camera, the place and the owner.
_PRIVATE_BOXES = {b"udta", b"meta", b"uuid"}
_WITH_BOXES = {b"moov", b"trak", b"mdia", b"minf"}
_MAX_BOXES = 10_000


def sniffed(head: bytes) -> str | None:
    """The media type of a file by its first bytes; None for one that is not taken."""
    for signature, media_type in _SIGNATURES:
        if head.startswith(signature):
            return media_type
    if head[4:8] == b"ftyp":
        return None if head[8:12] == _QUICKTIME else MP4
    return PDF if b"%PDF-" in head[:HEAD_BYTES] else None


def cleaned_jpeg(content: bytes) -> bytes:
    """The same picture without Exif, XMP, IPTC and comments. Raises StoreFailure."""
    at, kept = 2, [content[:2]]
    while at + 4 <= len(content) and content[at] == 0xFF:
        marker = content[at + 1]
        if marker == _SCAN:
            return b"".join([*kept, content[at:]])
        if marker == 0xFF:  # a fill byte
            at += 1
            continue
        end = at + 2 + int.from_bytes(content[at + 2 : at + 4], "big")
        if (marker not in _APPLICATION and marker != _COMMENT) or marker in _KEPT_SEGMENTS:
            kept.append(content[at:end])
        at = end
    raise cannot_understand("the content is no photo that can be read")


def clean_film(path: Path) -> None:
    """Make the private boxes of an MP4 file free space, in place: no other box moves. Raises StoreFailure."""
    with looked_into(path) as content:
        private = _private(content, 0, len(content), [])
    with path.open("r+b") as file:
        for box in private:
            file.seek(box.begin + 4)
            file.write(b"free")
            file.seek(box.body)
            left = box.end - box.body
            while left > 0:
                left -= file.write(bytes(min(left, 1 << 20)))


def _private(content: Content, begin: int, end: int, seen: list[Box]) -> list[Box]:
    found: list[Box] = []
    for box in boxes(content, begin, end):
        seen.append(box)
        if len(seen) > _MAX_BOXES:
            raise cannot_understand("the film is broken")
        if box.name in _PRIVATE_BOXES:
            found.append(box)
        elif box.name in _WITH_BOXES:
            found += _private(content, box.body, box.end, seen)
    return found
