"""A sheet of what the server shows of every object of a folder of DICOM files: `python -m docs.contact_sheet FOLDER`.

Each is stored, parsed and rendered as the service does it; what is refused has its reason below. Slices of one series
beyond the third are left out.
"""

import sys
import tempfile
from collections import Counter
from io import BytesIO
from pathlib import Path

import click
from PIL import Image, ImageDraw

from dicomweb.blobs import BlobStore, FolderBlobStore
from dicomweb.drawing import Viewport, font
from dicomweb.failures import StoreFailure
from dicomweb.instance import receive
from dicomweb.pool import PixelPool
from dicomweb.records import StoredInstance
from dicomweb.render import PNG, Rendering
from dicomweb.views import Views
from fhir_server.errors import FhirError, NotFound

IMAGES = Path(__file__).parent / "images"
SIDE, CAPTION, COLUMNS = 96, 22, 18
MAX_OF_SERIES = 3
MAX_BYTES = 2**30


def stored(path: Path, blobs: BlobStore) -> StoredInstance:
    """The file in the store, as the service has it. Raises StoreFailure."""
    with path.open("rb") as file:
        spooled = blobs.spool(iter(lambda: file.read(2**18), b""), MAX_BYTES)
    received = receive(spooled)
    blobs.keep([(spooled, received.blob_key)])
    instance = received.instance
    return StoredInstance(
        instance.study, instance.series, instance.sop_instance, instance.sop_class, instance.transfer_syntax,
        received.blob_key, instance.frames, instance.inflated_from, received.metadata, instance.bulk,
    )  # fmt: skip


def sheet(folder: Path, pool: PixelPool) -> tuple[Image.Image, list[str]]:
    """The picture, and the name and reason of each file that has none."""
    files = sorted(
        path for path in folder.rglob("*") if path.is_file() and path.suffix not in (".json", ".md", ".txt")
    )
    refused: list[str] = []
    tiles: list[tuple[str, Image.Image | None]] = []
    with tempfile.TemporaryDirectory() as place:
        blobs = FolderBlobStore(Path(place))
        known: list[tuple[str, StoredInstance]] = []
        for path in files:
            name = str(path.relative_to(folder))
            try:
                known.append((name, stored(path, blobs)))
            except StoreFailure as failure:
                refused.append(f"{name}: not stored, {failure}")
        by_uid = {(s.series, s.sop_instance): s for _, s in reversed(known)}

        def load(series: str, instance: str) -> StoredInstance:
            found = by_uid.get((series, instance))
            if found is None:
                raise NotFound("this instance is not known here")
            return found

        views, of_series = Views(blobs, pool, load), Counter[str]()
        for name, instance in known:
            of_series[f"{Path(name).parent}/{instance.series}"] += 1
            if of_series[f"{Path(name).parent}/{instance.series}"] > MAX_OF_SERIES:
                continue
            try:
                picture = views.view(instance, 1, Rendering(PNG, viewport=Viewport(SIDE, SIDE)))
            except FhirError as error:
                refused.append(f"{name}: {error}")
                tiles.append((name, None))
            else:
                tiles.append((name, Image.open(BytesIO(picture)).convert("RGB")))
    return _laid_out(tiles), refused


def _laid_out(tiles: list[tuple[str, Image.Image | None]]) -> Image.Image:
    rows = -(-len(tiles) // COLUMNS)
    whole = Image.new("RGB", (COLUMNS * (SIDE + 8), rows * (SIDE + CAPTION)), (60, 64, 70))
    draw = ImageDraw.Draw(whole)
    for index, (name, tile) in enumerate(tiles):
        left, top = index % COLUMNS * (SIDE + 8) + 4, index // COLUMNS * (SIDE + CAPTION) + 2
        if tile is not None:
            whole.paste(tile, (left + (SIDE - tile.width) // 2, top + (SIDE - tile.height) // 2))
        else:
            draw.line([(left, top), (left + SIDE, top + SIDE)], (200, 60, 60), 2)
        draw.text((left, top + SIDE + 3), Path(name).stem[-19:], fill=(230, 230, 230), font=font(9))
    return whole


def main(folder: Path) -> None:
    pool = PixelPool(2)
    try:
        picture, refused = sheet(folder, pool)
    finally:
        pool.close()
    IMAGES.mkdir(exist_ok=True)
    picture.save(IMAGES / "contact-sheet.jpg", quality=72)
    click.echo("\n".join(refused))
    click.echo(f"{IMAGES / 'contact-sheet.jpg'}: {picture.width} x {picture.height}")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
