"""What a request asks for, checked: options, a code, a picture."""

from __future__ import annotations

from collections.abc import Mapping
from io import BytesIO
from typing import Any

import numpy as np
from dhn.files import parse_json
from dhn.search.index import Index
from dhn.search.items import Options
from dhn.search.server.limits import Limits
from dhn.search.server.middleware import RequestError, received
from PIL import Image
from starlette.formparsers import MultiPartException, MultiPartParser
from starlette.requests import Request

FORMATS = ("JPEG", "PNG", "WEBP")  # as Pillow calls them
OPTIONS = ("top", "radius", "label", "unique")
SWITCH = {"1": True, "true": True, "0": False, "false": False}


def options(given: Mapping[str, Any], index: Index, limits: Limits) -> Options:
    """The options among a request's parameters, as text or as JSON values; an empty text is none.

    Raises RequestError for values that are not in their range.
    """
    chosen = {name: given[name] for name in OPTIONS if given.get(name) not in (None, "")}
    if "top" in chosen:
        chosen["top"] = whole_number("top", chosen["top"], 1, limits.top)
    if "radius" in chosen:
        chosen["radius"] = whole_number("radius", chosen["radius"], 0, index.bits)
    if isinstance(chosen.get("label"), str) and chosen["label"] not in index.label_names:
        chosen["label"] = received(chosen["label"])
    if "label" in chosen and chosen["label"] not in index.label_names:
        names = ", ".join(index.label_names[:20]) or "no labels"
        raise RequestError(400, f"label {chosen['label']!r}: expected one of the index: {names}")
    if "unique" in chosen and not isinstance(chosen["unique"], bool):
        text = str(chosen["unique"])  # of any type, in JSON
        if text not in SWITCH:
            raise RequestError(400, f"unique {text[:40]!r}: expected 1 or 0")
        chosen["unique"] = SWITCH[text]
    return Options(**chosen)


def whole_number(name: str, value: object, least: int, most: int) -> int:
    """A parameter that is a whole number in a range. Raises RequestError."""
    text = str(value)
    number = int(text) if text.isascii() and text.isdigit() and len(text) < 10 and not isinstance(value, bool) else -1
    if not least <= number <= most:
        raise RequestError(400, f"{name} {text[:40]!r}: expected a whole number from {least} to {most}")
    return number


def refuse_unknown(given: Mapping[str, Any], *names: str) -> None:
    """Raise RequestError for a parameter that nobody reads: it would be lost without a word."""
    unread = sorted(set(given) - set(names))
    if unread:
        raise RequestError(400, f"parameter {unread[0]!r} is unknown: expected {', '.join(names)}")


def code(values: object, bits: int) -> np.ndarray:
    """A real-valued code (1, K) float32 of a list of numbers, or of a text with commas. Raises RequestError."""
    if isinstance(values, str):
        values = values.split(",")
    if not isinstance(values, list) or len(values) != bits:
        count = len(values) if isinstance(values, list) else "none"
        raise RequestError(400, f"code: expected {bits} numbers, one a bit, found {count}")
    try:
        numbers = [float(value) for value in values if not isinstance(value, bool)]
        with np.errstate(over="ignore"):  # infinity, which is refused below
            found = np.array(numbers, np.float32).reshape(1, bits)
    except (TypeError, ValueError, OverflowError):
        raise RequestError(400, "code: expected numbers, found something else among them") from None
    if not np.isfinite(found).all():
        raise RequestError(400, "code: expected finite numbers")
    return found


async def json_object(request: Request) -> dict[str, Any]:
    """The JSON object that is a request's body. Raises RequestError."""
    try:
        found = parse_json(await request.body())
    except ValueError:
        raise RequestError(400, "body: expected a JSON object, found text that is none") from None
    if not isinstance(found, dict):
        raise RequestError(400, f"body: expected a JSON object, found {type(found).__name__}")
    return found


class InMemoryParser(MultiPartParser):
    """Starlette's parser of forms, without its temporary files: what is uploaded stays in memory."""

    def __init__(self, request: Request, limits: Limits) -> None:
        super().__init__(request.headers, request.stream(), max_files=1, max_fields=len(OPTIONS), max_part_size=1024)
        self.spool_max_size = limits.upload_bytes + 1


async def form(request: Request, limits: Limits) -> tuple[bytes, str, dict[str, Any]]:
    """(encoded picture, its file name, options as text) of a form with the file field `image`. Raises RequestError."""
    try:
        fields = await InMemoryParser(request, limits).parse()
    except (MultiPartException, ValueError) as error:
        raise RequestError(400, f"body: expected a form with the file field image ({error})") from None
    try:
        texts = {name: value for name, value in fields.multi_items() if isinstance(value, str)}
        refuse_unknown(fields, "image", *OPTIONS)
        image = fields.get("image")
        if image is None or isinstance(image, str):
            raise RequestError(400, "image: expected a file in this field of the form, found none")
        return await image.read(), image.filename or "image", texts
    finally:
        await fields.close()


def check_picture(data: bytes, limits: Limits) -> None:
    """Raise RequestError unless bytes begin as a JPEG, PNG or WebP picture with no more pixels than the limit.

    Only the header is read: a file of a kilobyte can stand for 3.6 billion pixels.
    """
    too_large = f"image: expected at most {limits.pixels:,} pixels, found %s; make it smaller"
    try:
        with Image.open(BytesIO(data), formats=FORMATS) as picture:
            width, height = picture.size
    except Image.DecompressionBombError:
        raise RequestError(413, too_large % "far more") from None
    except (OSError, ValueError, SyntaxError, EOFError, MemoryError):
        found = f"{len(data):,} bytes that begin {bytes(data[:8])!r}"
        raise RequestError(415, f"image: expected a JPEG, PNG or WebP picture, found {found}") from None
    if width * height > limits.pixels:
        raise RequestError(413, too_large % f"{width} x {height}")
