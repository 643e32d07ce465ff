"""Every transfer syntax read and written: lossless ones bit by bit. PS3.5 section 8.2 and annex A, PS3.18 8.7.3."""

import struct
import zlib
from io import BytesIO

import numpy as np
import pydicom
import pytest
from flask.testing import FlaskClient
from pydicom.dataset import Dataset
from pydicom.encaps import encapsulate, generate_frames

from dicomweb import codecs, pixels, transcode
from dicomweb.codecs import CodecFault
from dicomweb.pixels import EncodedFrame, Undecodable
from tests.dicomweb.conftest import DATA, Stow, a_slice
from tests.dicomweb.test_wado import address, content, mr

LITTLE = "1.2.840.10008.1.2.1"
LOSSLESS = sorted(codecs.ENCODED - codecs.LOSSY)
NOISE = np.random.default_rng(5).integers(0, 65536, (48, 56)).astype("<u2")
COLOURS = np.random.default_rng(6).integers(0, 256, (20, 30, 3)).astype("u1")


def frame_of(array: np.ndarray, stored: int, photometric: str = "MONOCHROME2", **values: object) -> EncodedFrame:
    """A native frame of that array."""
    rows, columns, samples = (*array.shape, 1)[:3]
    allocated, signed = array.dtype.itemsize * 8, array.dtype.kind == "i"
    known = {
        "data": array.tobytes(), "encapsulated": False, "transfer_syntax": LITTLE, "keyword": "PixelData",
        "vr": "OW", "rows": rows, "columns": columns, "samples": samples, "bits_allocated": allocated,
        "bits_stored": stored, "signed": signed, "planar": 0, "photometric": photometric,
    }  # fmt: skip
    return EncodedFrame(**(known | values))  # type: ignore[arg-type]


FRAMES = {
    "16 bits": frame_of(NOISE, 16),
    "16 bits signed": frame_of(NOISE.view("<i2"), 16),
    "12 bits": frame_of(NOISE >> 4, 12),
    "12 bits signed": frame_of(((NOISE >> 4).astype("<i4") - 2048).astype("<i2"), 12),
    "10 bits": frame_of(NOISE >> 6, 10),
    "8 bits": frame_of((NOISE >> 8).astype("u1"), 8),
    "8 bits signed": frame_of((NOISE >> 8).astype("u1").view("i1"), 8),
    "7 bits": frame_of((NOISE >> 9).astype("u1"), 7),
    "colours": frame_of(COLOURS, 8, "RGB"),
    "colours of 16 bits": frame_of(COLOURS.astype("<u2") * 257, 16, "RGB"),
    "a palette": frame_of((NOISE >> 8).astype("u1"), 8, "PALETTE COLOR"),
}


def there(frame: EncodedFrame, syntax: str) -> EncodedFrame:
    """The frame in that transfer syntax."""
    return EncodedFrame(
        **{name: getattr(frame, name) for name in EncodedFrame.__slots__}
        | {"data": transcode.frame_in(frame, syntax), "encapsulated": True, "transfer_syntax": syntax}
    )


class TestCodecs:
    @pytest.mark.parametrize("name", FRAMES)
    @pytest.mark.parametrize("syntax", LOSSLESS)
    def test_lossless_is_bit_exact(self, syntax: str, name: str) -> None:
        assert pixels.decoded(there(FRAMES[name], syntax)) == FRAMES[name].data

    @pytest.mark.parametrize("name", ["16 bits", "12 bits", "10 bits", "8 bits", "7 bits", "colours"])
    def test_near_lossless_jpeg_ls_differs_by_no_more_than_it_says(self, name: str) -> None:
        frame = FRAMES[name]
        got, _ = pixels.decode(there(frame, codecs.JPEG_LS_NEAR), raw=True)
        expected, _ = pixels.decode(frame, raw=True)
        difference = np.abs(got.astype(int) - expected)
        assert 0 < difference.max() <= codecs.NEAR

    def test_lossy_jpeg_is_the_image_but_not_its_bits(self) -> None:
        ramp = np.add.outer(np.arange(64), np.arange(64))
        for syntax, frame in (
            (codecs.JPEG_BASELINE, frame_of(ramp.astype("u1"), 8)),
            (codecs.JPEG_EXTENDED, frame_of((ramp * 32).astype("<u2"), 12)),
            (codecs.JPEG_BASELINE, frame_of(np.stack([ramp, 255 - ramp, ramp // 2], -1).astype("u1"), 8, "RGB")),
        ):
            encoded = there(frame, syntax)
            got, _ = pixels.decode(encoded if frame.samples == 1 else frame_of_ybr(encoded), raw=False)
            expected, _ = pixels.decode(frame, raw=False)
            assert np.abs(got.astype(int) - expected).max() <= 2 ** (frame.stored - 6)

    @pytest.mark.parametrize("name", ["16 bits signed", "12 bits signed", "8 bits signed", "a palette"])
    def test_what_loss_would_turn_into_something_else_is_not_compressed_with_loss(self, name: str) -> None:
        for syntax in codecs.LOSSY:
            with pytest.raises(Undecodable):
                transcode.frame_in(FRAMES[name], syntax)

    @pytest.mark.parametrize("syntax", LOSSLESS)
    def test_unused_high_bits_are_no_part_of_the_image(self, syntax: str) -> None:
        dirty = frame_of(NOISE | 0xF000, 12)
        shown, _ = pixels.decode(there(dirty, syntax), raw=False)
        assert np.array_equal(shown, NOISE & 0x0FFF)

    def test_stored_bits_that_are_not_the_lowest(self) -> None:
        frame = frame_of(NOISE << 4, 12, high_bit=15)
        assert np.array_equal(pixels.decode(frame, raw=False)[0], NOISE & 0x0FFF)

    @pytest.mark.parametrize("syntax", sorted(codecs.DECODED))
    @pytest.mark.parametrize("data", [b"", b"\0", b"\xff\xd8", b"\xff\x4f\xff\x51", bytes(200), b"\xff" * 200])
    def test_what_is_no_stream_is_refused(self, syntax: str, data: bytes) -> None:
        frame = frame_of(NOISE, 16, data=data, encapsulated=True, transfer_syntax=syntax)
        with pytest.raises(Undecodable):
            pixels.decode(frame, raw=True)

    @pytest.mark.parametrize("syntax", [codecs.JPEG_LOSSLESS_SV1, codecs.JPEG_LS, codecs.JPEG_2000, codecs.HTJ2K])
    def test_a_stream_of_another_size_than_the_data_set_says_is_not_decoded(self, syntax: str) -> None:
        encoded = there(FRAMES["16 bits"], syntax).data
        with pytest.raises(CodecFault, match="as the data set says"):
            codecs.decode(syntax, encoded, 4096, 4096, 1, 16)

    @pytest.mark.parametrize("syntax", [codecs.JPEG_2000, codecs.HTJ2K])
    @pytest.mark.parametrize("at", [24, 28, 32, 36])
    @pytest.mark.parametrize("value", [b"\0\0\0\0", b"\xff\xff\xff\x7f", b"\0\0\0\1"])
    def test_tiles_that_do_not_cover_the_image_are_not_searched_for(self, syntax: str, at: int, value: bytes) -> None:
        """ISO 15444-1 B.3; a decoder may look for them for ever."""
        data = there(FRAMES["16 bits"], syntax).data
        try:
            codecs.decode(syntax, data[:at] + value + data[at + 4 :], 48, 56, 1, 16)
        except CodecFault:
            pass
        else:
            assert value != b"\xff\xff\xff\x7f" or at < 32

    def test_a_panic_of_a_codec_is_a_fault_of_the_stream(self) -> None:
        header = struct.pack("<16L", 2, 64, 88, *[0] * 13)
        noise = "8206e7e35594aa6b342f5d0a3a5e4842fab428f762e6e282e5c1657c78c3a967b36711eb3906a7c8603d71d409e7a54d"
        with pytest.raises(CodecFault):
            codecs.decode(codecs.RLE, header + bytes.fromhex(noise), 4, 4, 1, 16)

    def test_an_inflated_frame_is_as_large_as_its_data_set_says(self) -> None:
        deflater = zlib.compressobj(wbits=-15)
        bomb = deflater.compress(bytes(50_000_000)) + deflater.flush()
        frame = frame_of(NOISE, 16, data=bomb, encapsulated=True, transfer_syntax=codecs.DEFLATED_FRAME)
        assert len(pixels.decoded(frame)) == NOISE.nbytes

    def test_what_the_deflated_frames_and_packed_bits_are(self) -> None:
        bits = (NOISE & 1).astype("u1")
        packed = np.packbits(bits.ravel(), bitorder="little").tobytes()
        deflater = zlib.compressobj(wbits=-15)
        one_bit = frame_of(
            bits, 1, bits_allocated=1, data=deflater.compress(packed) + deflater.flush(), encapsulated=True,
            transfer_syntax=codecs.DEFLATED_FRAME,
        )  # fmt: skip
        assert np.array_equal(pixels.decode(one_bit, raw=False)[0], bits)
        assert pixels.decoded(one_bit) == packed


def frame_of_ybr(frame: EncodedFrame) -> EncodedFrame:
    return EncodedFrame(
        **{name: getattr(frame, name) for name in EncodedFrame.__slots__} | {"photometric": "YBR_FULL"}
    )


class TestColours:
    """PS3.3 C.7.6.3.1.2"""

    def test_ybr_full_is_the_formula_of_the_standard(self) -> None:
        ybr = np.random.default_rng(7).integers(0, 256, (40, 40, 3)).astype("u1")
        y, b, r = (ybr[..., plane].astype(float) for plane in range(3))
        exact = np.stack(
            [y + 1.402 * (r - 128), y - 0.344136 * (b - 128) - 0.714136 * (r - 128), y + 1.772 * (b - 128)], axis=-1
        )
        shown, photometric = pixels.decode(frame_of(ybr, 8, "YBR_FULL"), raw=False)
        assert photometric == "RGB"
        assert np.abs(shown - np.clip(exact, 0, 255)).max() <= 0.5 + 1e-3

    def test_ybr_full_422_shares_its_chrominance(self) -> None:
        quads = np.array([[[10, 20, 100, 200], [30, 40, 90, 128]]], "u1")
        frame = frame_of(COLOURS[:1, :4], 8, "YBR_FULL_422", data=quads.tobytes())
        got, photometric = pixels.decode(frame, raw=True)
        assert photometric == "YBR_FULL"
        assert got.tolist() == [[[10, 100, 200], [20, 100, 200], [30, 90, 128], [40, 90, 128]]]

    def test_planes_and_pixels_are_the_same_image(self) -> None:
        planes = np.ascontiguousarray(np.moveaxis(COLOURS, -1, 0))
        frame = frame_of(COLOURS, 8, "RGB", data=planes.tobytes(), planar=1)
        assert pixels.decoded(frame) == COLOURS.tobytes()

    def test_there_and_back(self) -> None:
        back = pixels.rgb(pixels.ybr(COLOURS), 8)
        assert np.abs(back.astype(int) - COLOURS).max() <= 2


class TestFramesOfTheService:
    @pytest.mark.parametrize("name", ["MR_small", "MR_small_RLE", "MR_small_jp2klossless"])
    @pytest.mark.parametrize("syntax", LOSSLESS)
    def test_a_frame_in_the_syntax_asked_for(self, stow: Stow, client: FlaskClient, name: str, syntax: str) -> None:
        dataset = mr(name)
        stow(dataset)
        accept = f'multipart/related; type="application/octet-stream"; transfer-syntax={syntax}'
        ((media_type, data),) = content(client.get(f"{address(dataset)}/frames/1", headers={"Accept": accept}))
        assert media_type.endswith(f"; transfer-syntax={syntax}")
        frame = frame_of(np.zeros((64, 64), "<i2"), 16, data=data, encapsulated=True, transfer_syntax=syntax)
        expected = pydicom.dcmread(DATA / "MR_small.dcm").PixelData
        assert pixels.decoded(frame) == expected

    @pytest.mark.parametrize(("media_type", "syntax"), sorted(transcode.DEFAULTS.items()))
    def test_a_media_type_alone_stands_for_its_lossless_syntax(
        self, stow: Stow, client: FlaskClient, media_type: str, syntax: str
    ) -> None:
        dataset = mr("MR_small")
        stow(dataset)
        alone = client.get(f"{address(dataset)}/frames/1", headers={"Accept": media_type})
        assert alone.headers["Content-Type"] == f"{media_type}; transfer-syntax={syntax}"

    def test_what_cannot_be_held_is_406_and_the_next_range_is_taken(self, stow: Stow, client: FlaskClient) -> None:
        dataset = mr("MR_small")
        stow(dataset)
        baseline = f"image/jpeg; transfer-syntax={codecs.JPEG_BASELINE}"
        url = f"{address(dataset)}/frames/1"
        assert client.get(url, headers={"Accept": baseline}).status_code == 406
        answer = client.get(url, headers={"Accept": f"{baseline}, image/jls;q=0.5"})
        assert answer.headers["Content-Type"].startswith("image/jls")


def retrieved(client: FlaskClient, dataset: Dataset, syntax: str) -> Dataset:
    accept = f"application/dicom; transfer-syntax={syntax}" if syntax else "application/dicom"
    answer = client.get(address(dataset), headers={"Accept": accept})
    assert answer.status_code == 200, answer.text
    read = pydicom.dcmread(BytesIO(answer.data))
    assert answer.headers["Content-Type"] == f"application/dicom; transfer-syntax={read.file_meta.TransferSyntaxUID}"
    return read


class TestInstancesOfTheService:
    @pytest.mark.parametrize(
        "name",
        ["MR_small", "MR_small_bigendian", "MR_small_RLE", "MR_small_jp2klossless", "MR_small_jpeg_ls_lossless"],
    )
    def test_the_same_image_and_the_same_data_set(self, stow: Stow, client: FlaskClient, name: str) -> None:
        dataset = mr(name)
        assert stow(dataset).status_code == 200
        expected = pydicom.dcmread(DATA / "MR_small.dcm").pixel_array
        for syntax in (LITTLE, codecs.RLE, codecs.JPEG_2000_LOSSLESS, codecs.JPEG_LS, ""):
            read = retrieved(client, dataset, syntax)
            assert read.file_meta.TransferSyntaxUID == (syntax or LITTLE)
            assert np.array_equal(read.pixel_array, expected)
            assert read.SOPInstanceUID == read.file_meta.MediaStorageSOPInstanceUID == dataset.SOPInstanceUID
            assert "LossyImageCompression" not in read
            assert read.PatientName == dataset.PatientName
            assert read.ImagePositionPatient == dataset.ImagePositionPatient

    def test_several_frames(self, stow: Stow, client: FlaskClient) -> None:
        values = np.arange(5 * 12, dtype="<u2").reshape(5, 3, 4)
        dataset = a_slice(NumberOfFrames=5, pixels=values, PixelRepresentation=0)
        stow(dataset)
        for syntax in (codecs.RLE, codecs.JPEG_LS):
            assert np.array_equal(retrieved(client, dataset, syntax).pixel_array, values)

    def test_bits_are_unpacked_and_packed_again(self, stow: Stow, client: FlaskClient) -> None:
        bits = np.random.default_rng(3).integers(0, 2, (2, 4, 8), dtype=np.uint8)
        packed = [np.packbits(frame.ravel(), bitorder="little").tobytes() for frame in bits]
        dataset = a_slice(
            NumberOfFrames=2, Rows=4, Columns=8, BitsAllocated=1, BitsStored=1, HighBit=0, PixelRepresentation=0,
            TransferSyntaxUID=codecs.RLE,
            pixels=encapsulate([codecs.encode(codecs.RLE, np.frombuffer(p, "u1").reshape(1, 4), 8) for p in packed]),
        )  # fmt: skip
        dataset["PixelData"].VR, dataset["PixelData"].is_undefined_length = "OB", True
        assert stow(dataset).status_code == 200
        assert retrieved(client, dataset, LITTLE).PixelData == b"".join(packed)

    def test_a_lossy_image_is_another_image_and_says_so(self, stow: Stow, client: FlaskClient) -> None:
        """PS3.3 C.7.6.1.1.5"""
        ramp = np.add.outer(np.arange(64), np.arange(64)).astype("u1")
        dataset = a_slice(
            Rows=64, Columns=64, BitsAllocated=8, BitsStored=8, HighBit=7, PixelRepresentation=0, pixels=ramp,
            ImageType=["ORIGINAL", "PRIMARY", "AXIAL"],
        )  # fmt: skip
        stow(dataset)
        read = retrieved(client, dataset, codecs.JPEG_BASELINE)
        assert read.SOPInstanceUID == transcode.derived_uid(dataset.SOPInstanceUID, codecs.JPEG_BASELINE)
        assert list(read.ImageType) == ["DERIVED", "PRIMARY", "AXIAL"]
        assert (read.LossyImageCompression, read.LossyImageCompressionMethod) == ("01", "ISO_10918_1")
        stream = next(generate_frames(read.PixelData, number_of_frames=1))
        assert float(read.LossyImageCompressionRatio) == pytest.approx(ramp.nbytes / len(stream), rel=0.02)
        assert read.SourceImageSequence[0].ReferencedSOPInstanceUID == dataset.SOPInstanceUID

    def test_colours_come_back_as_the_data_set_says(self, stow: Stow, client: FlaskClient) -> None:
        file = DATA / "SC_ybr_full_422_uncompressed.dcm"
        dataset = pydicom.dcmread(file)
        stow(file.read_bytes())
        read = retrieved(client, dataset, codecs.JPEG_LS)
        assert read.PhotometricInterpretation == "YBR_FULL"
        assert np.abs(read.pixel_array.astype(int) - dataset.pixel_array).max() <= 1

    def test_an_overlay_in_unused_bits_is_not_lost_unseen(self, stow: Stow, client: FlaskClient) -> None:
        dataset = a_slice(BitsStored=12, HighBit=11)
        dataset.add_new(0x60000100, "US", 16)
        dataset.add_new(0x60000102, "US", 12)
        stow(dataset)
        accept = f"application/dicom; transfer-syntax={codecs.JPEG_LS}"
        assert client.get(address(dataset), headers={"Accept": accept}).status_code == 406

    def test_no_image_and_nothing_to_decode(self, stow: Stow, client: FlaskClient) -> None:
        report = a_slice(pixels=None, Modality="SR", TransferSyntaxUID="1.2.840.10008.1.2")
        stow(report)
        read = retrieved(client, report, "")
        assert read.file_meta.TransferSyntaxUID == LITTLE
        assert read.PatientName == "Doe^Jane"
