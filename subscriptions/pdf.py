"""A page of text as PDF: as much of ISO 32000-1 as a fax needs, without a library."""

from collections.abc import Sequence
from dataclasses import dataclass

WIDTH, HEIGHT = 595, 842  # A4, in points
MARGIN = 72


@dataclass(frozen=True, slots=True)
class Line:
    """One line. size: of its letters, in points; bold: in Helvetica-Bold."""

    text: str
    size: int = 12
    bold: bool = False


def page(lines: Sequence[Line]) -> bytes:
    """One A4 page with these lines from its top; letters outside Windows-1252 become `?`."""
    content, height = [b"BT"], HEIGHT - MARGIN
    for line in lines:
        height -= round(line.size * 1.5)
        font = b"F2" if line.bold else b"F1"
        content.append(b"/%s %d Tf 1 0 0 1 %d %d Tm (%s) Tj" % (font, line.size, MARGIN, height, _text(line.text)))
    content.append(b"ET")
    stream = b"\n".join(content)
    font_of = b"<< /Type /Font /Subtype /Type1 /BaseFont /%s /Encoding /WinAnsiEncoding >>"
    return _file(
        b"<< /Type /Catalog /Pages 2 0 R >>",
        b"<< /Type /Pages /Kids [3 0 R] /Count 1 >>",
        b"<< /Type /Page /Parent 2 0 R /MediaBox [0 0 %d %d] /Contents 4 0 R "
        b"/Resources << /Font << /F1 5 0 R /F2 6 0 R >> >> >>" % (WIDTH, HEIGHT),
        b"<< /Length %d >>\nstream\n%s\nendstream" % (len(stream), stream),
        font_of % b"Helvetica",
        font_of % b"Helvetica-Bold",
    )


def _file(*objects: bytes) -> bytes:
    """The objects, numbered from 1, and the table of where each begins."""
    made, places = b"%PDF-1.4\n", []
    for number, content in enumerate(objects, 1):
        places.append(len(made))
        made += b"%d 0 obj\n%s\nendobj\n" % (number, content)
    table = b"".join(b"%010d 00000 n \n" % place for place in places)
    size = len(objects) + 1
    head = b"xref\n0 %d\n0000000000 65535 f \n%s" % (size, table)
    return made + head + b"trailer\n<< /Size %d /Root 1 0 R >>\nstartxref\n%d\n%%%%EOF\n" % (size, len(made))


def _text(text: str) -> bytes:
    encoded = text.replace("\n", " ").encode("cp1252", errors="replace")
    return encoded.replace(b"\\", b"\\\\").replace(b"(", b"\\(").replace(b")", b"\\)")
