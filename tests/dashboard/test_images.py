"""Which bytes are an image that can be shown."""

import base64
import io

import pytest
from PIL import Image

from dashboard.images import WIDTH_PIXELS, small


def encoded(kind: str, width: int = 600, height: int = 300, mode: str = "RGB") -> bytes:
    """A picture of one colour, as a file."""
    file = io.BytesIO()
    Image.new(mode, (width, height)).save(file, kind)
    return file.getvalue()


@pytest.mark.parametrize(
    ("kind", "mode"), [("PNG", "RGBA"), ("PNG", "P"), ("JPEG", "CMYK"), ("WEBP", "RGB"), ("GIF", "L")]
)
def test_images(kind: str, mode: str) -> None:
    """Of all kinds and colours, in the width of a message."""
    painted = small(base64.b64encode(encoded(kind, mode=mode)).decode())
    assert painted is not None
    assert Image.open(io.BytesIO(painted)).size == (WIDTH_PIXELS, WIDTH_PIXELS // 2)


@pytest.mark.parametrize(
    "data",
    [b"", b"no image " * 90, encoded("PNG")[:200], encoded("JPEG")[:700], encoded("PNG")[:8] + b"\0" * 60, b"GIF89a"],
)
def test_what_is_none(data: bytes) -> None:
    """Text, half a file, a beginning alone."""
    assert small(base64.b64encode(data).decode()) is None


def test_what_is_not_even_base64() -> None:
    """As an import may bring it."""
    assert small("é") is None
    assert small("a") is None


def test_too_many_pixels() -> None:
    """Are not unpacked: some bytes can be gigabytes."""
    assert small(base64.b64encode(encoded("PNG", 9_000, 9_000, "1")).decode()) is None
