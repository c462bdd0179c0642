"""Images that people attach, or that a chat brought along: whether they are any, and small ones to show."""

import base64
import io
import struct

import streamlit as st
from PIL import Image, ImageOps

WIDTH_PIXELS = 240
PIXELS_MOST = 80_000_000
"""A picture of more is not unpacked: it would take a third of a gigabyte."""
BROKEN = (OSError, ValueError, TypeError, LookupError, ArithmeticError, EOFError, SyntaxError, struct.error)
"""What Pillow raises over bytes that are no image, or only the beginning of one."""


def decoded(encoded: str) -> bytes | None:
    """The file; None: it is not Base64."""
    try:
        return base64.b64decode(encoded)
    except ValueError:
        return None


@st.cache_data(max_entries=200, show_spinner=False)
def small(encoded: str) -> bytes | None:
    """A PNG of WIDTH_PIXELS at most of an image in Base64; None: it cannot be shown."""
    try:
        with Image.open(io.BytesIO(decoded(encoded) or b"")) as image:
            if image.width * image.height > PIXELS_MOST:
                return None
            image.draft("RGB", (WIDTH_PIXELS * 2, WIDTH_PIXELS * 2))  # a JPEG is read smaller at once
            upright = ImageOps.exif_transpose(image)
            upright.thumbnail((WIDTH_PIXELS, WIDTH_PIXELS * 4))
            painted = io.BytesIO()
            upright.convert("RGBA").save(painted, "PNG")
    except (*BROKEN, Image.DecompressionBombError):
        return None
    return painted.getvalue()
