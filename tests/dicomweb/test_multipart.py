"""multipart/related as a stream. RFC 2046 section 5.1."""

from io import BytesIO

import pytest

from dicomweb.multipart import CHUNK, BrokenMultipart, closing, part_head, parts


class Dribble(BytesIO):
    """A stream that gives a few bytes at a time, whatever is asked for."""

    def __init__(self, data: bytes, step: int) -> None:
        super().__init__(data)
        self.step = step

    def read(self, size: int | None = -1, /) -> bytes:
        return super().read(self.step)


def contents(data: bytes, boundary: str = "b", step: int = CHUNK) -> list[bytes]:
    return [b"".join(part.chunks) for part in parts(Dribble(data, step), boundary)]


TWO = b"--b\r\nContent-Type: application/dicom\r\n\r\none\r\n--b\r\n\r\n\r\n--b--\r\nepilogue"


@pytest.mark.parametrize("step", [1, 2, 3, 7, CHUNK])
def test_parts_are_found_however_the_stream_is_cut(step: int) -> None:
    assert contents(TWO, step=step) == [b"one", b""]
    assert contents(b"preamble\r\n" + TWO, step=step) == [b"one", b""]


@pytest.mark.parametrize("content", [b"\r\n", b"\r\n--", b"\r\n--c\r\n", b"\r\n-", b"a\r\n\r\n--", b"\0" * 300_000])
def test_content_that_looks_like_a_boundary_is_content(content: bytes) -> None:
    data = part_head("b", {"Content-Type": "x/y"}, True) + content + closing("b")
    assert contents(data) == [content]
    assert contents(data, step=5 if len(content) < 100 else 4099) == [content]


def test_a_boundary_may_be_longer_than_the_standard_says() -> None:
    """Orthanc's has 73 characters."""
    boundary = "456332d5-f3bd-4a5f-9f27-c4f893f44ec8-456332d5-f3bd-4a5f-9f27-c4f893f44ec8"
    body = f"--{boundary}\r\n\r\nab\r\n--{boundary}--".encode()
    assert [b"".join(part.chunks) for part in parts(BytesIO(body), boundary)] == [b"ab"]


def test_a_part_that_is_not_read_is_skipped() -> None:
    seen = [part.headers for part in parts(BytesIO(TWO), "b")]
    assert seen == [{"content-type": "application/dicom"}, {}]


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"no boundary at all",
        b"--b",
        b"--b\r\n",
        b"--b\r\n\r\nendless",
        b"--b\r\n\r\nendless\r\n--b",
        b"--b\r\nno colon\r\n\r\n\r\n--b--",
        b"--b garbage\r\n\r\n\r\n--b--",
        b"--b\r\n" + b"x: y\r\n" * 40_000 + b"\r\n\r\n--b--",
        b"x" * 200_000,
    ],
)
def test_a_broken_message_is_refused(data: bytes) -> None:
    with pytest.raises(BrokenMultipart):
        contents(data)


@pytest.mark.parametrize("boundary", ["", " ", "a" * 71, "ä", "a\r\nb", "a "])
def test_a_boundary_has_its_form(boundary: str) -> None:
    with pytest.raises(BrokenMultipart):
        contents(TWO, boundary)


def test_memory_stays_flat_however_large_a_part_is() -> None:
    class Endless:
        sent = 0

        def read(self, size: int = -1, /) -> bytes:
            self.sent += 1
            if self.sent == 1:
                return b"--b\r\n\r\n"
            return b"x" * CHUNK if self.sent < 2000 else closing("b")

    total = largest = 0
    for chunk in next(parts(Endless(), "b")).chunks:
        total += len(chunk)
        largest = max(largest, len(chunk))
    assert total == 1998 * CHUNK
    assert largest <= 2 * CHUNK
