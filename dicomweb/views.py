"""What is shown of an instance, whatever it is: its image, or the picture that stands for it.

Decides from the metadata and reads what is needed; the drawing is done in the pixel pool.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
from pydicom.uid import UID

from dicomweb import bulk, pictures, presentation, wado
from dicomweb.blobs import BlobStore
from dicomweb.dicom_json import Attribute, Attributes, integer, items, number, text
from dicomweb.display import Display, bytes_of, display_of, palette_of
from dicomweb.documents import CONTENT, facts_of, lines_of, person, title_of
from dicomweb.pictures import Channel, Contour
from dicomweb.pixels import Undecodable
from dicomweb.pool import Runner
from dicomweb.records import StoredInstance
from dicomweb.render import Rendering, render
from fhir_server.errors import Gone, NotAcceptable, NotFound

ENCAPSULATED = "00420011"
_WAVEFORMS, _ROI_CONTOURS = "54000100", "30060039"
_MAX_VALUE = 64 * 1024 * 1024  # of what is sent to a process to draw
_MAX_POINTS = 200_000
_VIDEO = {**dict.fromkeys(("100", "101"), "MPEG-2"), **{str(n): "MPEG-4 AVC/H.264" for n in range(102, 107)}}
_VIDEO |= {"107": "HEVC/H.265", "108": "HEVC/H.265"}
_WAVEFORM_TYPES = {"SB": "i1", "UB": "u1", "SS": "<i2", "US": "<u2", "SL": "<i4", "UL": "<u4"}
_COLOURS = ((255, 99, 71), (80, 200, 120), (100, 149, 237), (255, 215, 0), (218, 112, 214), (64, 224, 208))


@dataclass(frozen=True, slots=True)
class Views:
    """load: an instance of the same study by series and instance. Raises NotFound."""

    blobs: BlobStore
    pool: Runner
    load: Callable[[str, str], StoredInstance]

    def view(self, stored: StoredInstance, index: int, wanted: Rendering) -> bytes:
        """A frame or page as an image file. Raises NotFound, NotAcceptable, Unavailable."""
        attributes = stored.attributes
        if wanted.annotation:
            wanted = replace(wanted, corners=corners_of(attributes, wanted.annotation))
        if stored.sop_class in presentation.CLASSES:
            return self._presented(attributes, index, wanted, stored)
        if stored.frames is not None and stored.frames.count:
            return self._image(stored, attributes, index, wanted)
        if ENCAPSULATED in attributes and text(attributes, "00420012") == "application/pdf":
            data = self._value(stored, attributes[ENCAPSULATED])
            return self.pool.run(pictures.pdf_page, data, index, wanted)
        if index != 1:
            raise NotFound("this instance has one picture")
        return self._picture(stored, attributes, wanted)

    def _picture(self, stored: StoredInstance, attributes: Attributes, wanted: Rendering) -> bytes:
        """The picture of what has neither frames nor pages; where it cannot be drawn, what it is in words."""
        run = self.pool.run
        try:
            if stored.frames is not None and stored.transfer_syntax.rpartition(".")[2] in _VIDEO:
                return run(_film, film_lines(stored, attributes), wanted)
            if items(attributes, _WAVEFORMS):
                return run(pictures.waveform, class_name(stored), self._channels(stored, attributes), wanted)
            if items(attributes, CONTENT):
                lines, facts = lines_of(attributes)[:200], facts_of(attributes)
                return run(pictures.document, title_of(attributes), facts, lines, wanted)
            if items(attributes, _ROI_CONTOURS):
                return run(pictures.contours, class_name(stored), *_structures(attributes), wanted)
            luts = palette_of(attributes, lambda path: self._bulk(stored, path))
            if luts and stored.frames is None:
                return run(pictures.colours, text(attributes, "00700080") or "Palette", luts, wanted)
        except (NotAcceptable, Undecodable):
            pass  # broken content; the card below says what it would be
        return run(pictures.card, class_name(stored), card_lines(attributes), wanted)

    def _image(
        self,
        stored: StoredInstance,
        attributes: Attributes,
        index: int,
        wanted: Rendering,
        state: Attributes | None = None,
    ) -> bytes:
        frame = wado.encoded_frame(stored, index, self.blobs)

        def read_bulk(path: str) -> bytes:
            return self._bulk(stored, path)

        display: Display = display_of(attributes, index, read_bulk)
        if state is None:
            return self.pool.run(render, frame, display, wanted)
        display = presentation.applied(display, state, stored.sop_instance, read_bulk)
        shown = presentation.presentation_of(state, stored.sop_instance, read_bulk)
        return self.pool.run(render, frame, replace(display, output_lut=shown.output_lut), wanted, shown)

    def _presented(self, state: Attributes, index: int, wanted: Rendering, stored: StoredInstance) -> bytes:
        """The n-th image that a presentation state is for, as the state wants it."""
        targets = presentation.referenced(state)
        if index > max(1, len(targets)):
            raise NotFound(f"this presentation state is for {len(targets)} images")
        for series, instance, frame in targets[index - 1 : index]:
            try:
                image = self.load(series, instance)
                return self._image(image, image.attributes, frame, wanted, state)
            except (NotFound, Gone):
                break
        lines = [*card_lines(state), "the image that it is for is not here"]
        return self.pool.run(pictures.card, class_name(stored), lines, wanted)

    def _channels(self, stored: StoredInstance, attributes: Attributes) -> list[Channel]:
        group = items(attributes, _WAVEFORMS)[0]
        dtype = _WAVEFORM_TYPES.get(text(group, "54001006"))
        count, rate = integer(group, "003A0005", 0) or 0, number(group, "003A001A") or 0.0
        if dtype is None or not 0 < count <= 64 or rate <= 0:
            raise Undecodable("the waveform is of a kind that is not drawn")
        data = self._value(stored, group.get("54001010", {}))
        row = np.dtype(dtype).itemsize * count
        samples = np.frombuffer(data[: len(data) // row * row], dtype)
        by_channel = samples.reshape(-1, count).T
        defined = items(group, "003A0200")
        channels = []
        for index in range(min(count, len(defined), 24)):
            definition = defined[index]
            source = next(iter(items(definition, "003A0208")), {})
            unit = next(iter(items(definition, "003A0211")), {})
            scale = (number(definition, "003A0210") or 1.0) * (number(definition, "003A0212") or 1.0)
            name = text(source, "00080104").replace("Lead ", "")
            offset = number(definition, "003A0213") or 0.0
            values = by_channel[index].tobytes()
            channels.append(Channel(name, text(unit, "00080100"), rate, scale, offset, dtype, values))
        return channels

    def _value(self, stored: StoredInstance, attribute: Attribute) -> bytes:
        return bytes_of(attribute, lambda path: self._bulk(stored, path))

    def _bulk(self, stored: StoredInstance, path: str) -> bytes:
        if path not in stored.places:
            return b""
        if stored.places[path][1] > _MAX_VALUE:
            raise NotAcceptable("this object is too large to be drawn")
        return bulk.bulk_value(stored, path, self.blobs).whole()


def class_name(stored: StoredInstance) -> str:
    """The name of the SOP class without its last word."""
    return UID(stored.sop_class).name.removesuffix(" Storage")


def corners_of(attributes: Attributes, annotation: tuple[str, ...]) -> tuple[tuple[str, tuple[str, ...]], ...]:
    """The words of the annotation: the patient on the left, the technique on the right. PS3.18 section 8.3.5.1.1."""
    patient = (
        person(text(attributes, "00100010")),
        text(attributes, "00100020"),
        " ".join(filter(None, (text(attributes, "00100030"), text(attributes, "00100040")))),
        text(attributes, "00080020"),
        text(attributes, "00081030"),
    )
    measured = (
        ("00180060", "kV"),
        ("00181151", "mA"),
        ("00180080", "TR ms"),
        ("00180081", "TE ms"),
        ("00180050", "mm"),
    )
    technique = (
        text(attributes, "00080060"),
        text(attributes, "0008103E"),
        *(f"{text(attributes, tag)} {unit}" for tag, unit in measured if text(attributes, tag)),
        f"Image {text(attributes, '00200013')}" if text(attributes, "00200013") else "",
        "LOSSY" if text(attributes, "00282110") == "01" else "",
    )
    sides = (("left", "patient", patient), ("right", "technique", technique))
    return tuple((side, tuple(filter(None, lines))) for side, name, lines in sides if name in annotation)


def card_lines(attributes: Attributes) -> list[str]:
    """What is known of an object that has no picture."""
    known = (
        text(attributes, "00700080") or text(attributes, "30060002") or text(attributes, "300A0002"),
        text(attributes, "00700081") or text(attributes, "0008103E") or text(attributes, "00420010"),
        person(text(attributes, "00100010")),
        text(attributes, "00081030"),
    )
    return list(dict.fromkeys(line for line in known if line))


def film_lines(stored: StoredInstance, attributes: Attributes) -> list[str]:
    """What is known of a film: codec, size, duration."""
    frames = integer(attributes, "00280008", 0) or 0
    rate = number(attributes, "00180040") or number(attributes, "00082144")
    milliseconds = number(attributes, "00181063") or (1000 / rate if rate else 0.0)
    lines = [
        f"{_VIDEO[stored.transfer_syntax.rpartition('.')[2]]}, "
        f"{integer(attributes, '00280011', 0)} x {integer(attributes, '00280010', 0)}"
    ]
    if frames and milliseconds:
        seconds = frames * milliseconds / 1000
        lines.append(f"{int(seconds // 60)}:{seconds % 60:04.1f} min, {frames} frames")
    return lines


def _film(lines: list[str], wanted: Rendering) -> bytes:
    return pictures.card("Video", lines, wanted, film=True)


def _structures(attributes: Attributes) -> tuple[list[Contour], list[tuple[str, tuple[int, int, int]]]]:
    """The contours of the plane that has most of them, and the structures' names."""
    names = {integer(roi, "30060022"): text(roi, "30060026") for roi in items(attributes, "30060020")}
    planes: dict[float, list[Contour]] = {}
    legend: list[tuple[str, tuple[int, int, int]]] = []
    points = 0
    for index, roi in enumerate(items(attributes, _ROI_CONTOURS)):
        given = [v for v in roi.get("3006002A", {}).get("Value", []) if isinstance(v, int) and 0 <= v <= 255]
        colour = (given[0], given[1], given[2]) if len(given) == 3 else _COLOURS[index % len(_COLOURS)]
        legend.append((names.get(integer(roi, "30060084"), ""), colour))
        for contour in items(roi, "30060040"):
            values = [v for v in contour.get("30060050", {}).get("Value", []) if isinstance(v, int | float)]
            line = tuple(zip(values[::3], values[1::3], strict=False))
            points += len(line)
            if len(values) < 3 or points > _MAX_POINTS:
                continue
            closed = text(contour, "30060042").startswith("CLOSED")
            planes.setdefault(round(float(values[2]), 2), []).append(Contour(colour, line, closed))
    most = max(planes.values(), key=lambda lines: (len({line.colour for line in lines}), len(lines)), default=[])
    seen = {line.colour for line in most}
    return most, [entry for entry in legend if entry[1] in seen and entry[0]]
