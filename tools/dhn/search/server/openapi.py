"""The API in words that programs read: OpenAPI 3.1, served as /openapi.json."""

from __future__ import annotations

from collections.abc import Collection

from dhn.search.server.limits import Limits

TEXT = {"type": "string"}
TEXT_OR_NULL = {"type": ["string", "null"]}
NUMBER_OR_NULL = {"type": ["number", "null"]}
COUNT = {"type": "integer", "minimum": 0}
SWITCH = {"enum": ["0", "1", "false", "true"], "default": "0"}


def named(schema: dict, text: str) -> dict:
    """A schema with a description."""
    return schema | {"description": text}


def record(optional: Collection[str] = (), /, **properties: dict) -> dict:
    """The schema of an object with these properties and no others; all but the optional ones are there."""
    required = [name for name in properties if name not in optional]
    return {"type": "object", "additionalProperties": False, "required": required, "properties": properties}


def schema(name: str) -> dict:
    """A reference to one of the schemas below."""
    return {"$ref": f"#/components/schemas/{name}"}


def listed(items: dict) -> dict:
    """The schema of a list."""
    return {"type": "array", "items": items}


def answer(text: str, content: dict) -> dict:
    """An answer in JSON of a schema."""
    return {"description": text, "content": {"application/json": {"schema": content}}}


def refusals(**texts: str) -> dict:
    """Answers in JSON that refuse a request: "e404" is the status 404. Any request may meet 421 and 503."""
    always = {"e421": "a Host header that is not this server's", "e503": "as much to do as the server takes"}
    found = {status[1:]: answer(text, schema("Error")) for status, text in sorted((texts | always).items())}
    found["503"]["headers"] = {"retry-after": {"schema": {"type": "string"}, "description": "seconds to wait"}}
    return found


def parameter(name: str, content: dict, where: str = "query") -> dict:
    """A parameter of a request, described as its schema is."""
    return {"name": name, "in": where, "required": where == "path", "schema": content}


LABELS = named({"type": ["array", "null"], "items": TEXT}, "names of the labels; null where they are unknown")
CODE = named(listed({"type": "number"}), "a real-valued code, a number a bit; at least 0 is the bit 1")
MEDIA_TYPES = ("image/jpeg", "image/png", "image/webp")  # of pictures that are sent
BAD = "a parameter that is unknown, or out of its range"


def description(limits: Limits) -> dict:
    """The OpenAPI description of the API of a server with these limits."""
    top = {"type": "integer", "minimum": 1, "maximum": limits.top}
    options = {
        "top": named(top | {"default": 20}, "how many results"),
        "radius": named(COUNT, "only images within this Hamming distance, in bits"),
        "label": named(TEXT, "only images that carry this label"),
        "unique": named({"type": "boolean", "default": False}, "of images with equal real-valued codes only the first"),
    }
    texts = options | {"unique": named(SWITCH, options["unique"]["description"])}  # in an address or a form
    item = {
        "row": named(COUNT, "position in the index, from 0"),
        "key": TEXT,
        "labels": LABELS,
        "path": named(TEXT_OR_NULL, "of the picture, as the data set lists it"),
    }
    schemas = {
        "Error": record(error=named(TEXT, "one sentence")),
        "Item": record(**item),
        "Result": record(
            rank={"type": "integer", "minimum": 1},
            **item,
            distance=named(COUNT, "Hamming distance in bits"),
            similarity=named({"type": "number"}, "inner product of the real-valued codes"),
        ),
        "Query": record(
            ("key", "labels", "image", "code", "radius", "label", "unique"),
            key=TEXT,
            labels=LABELS,
            image=named(TEXT, "the file name of the picture"),
            code=CODE,
            top=top,
            radius=COUNT,
            label=TEXT,
            unique={"const": True},
            ties=named({"const": "product"}, "equal distances: the greater similarity first, then by key"),
        ),
        "Answer": record(query=schema("Query"), results=listed(schema("Result"))),
        "About": record(
            dataset=TEXT_OR_NULL,
            form=named(TEXT_OR_NULL, "such as JPEG copies"),
            split=TEXT_OR_NULL,
            run=named(TEXT_OR_NULL, "the folder of the net and its weights"),
            weights_sha256=TEXT_OR_NULL,
            bits={"type": "integer", "minimum": 1},
            count=COUNT,
            distinct=named(COUNT, "distinct binary codes"),
            score=record(
                protocol=TEXT,
                R=COUNT,
                map=named({"type": "number"}, "mean average precision, ties in the order of the database"),
                map_expected=named({"type": "number"}, "over all orders of ties"),
                map_low={"type": "number"},
                map_high={"type": "number"},
                caveats=listed(TEXT),
            )
            | {"type": ["object", "null"]},
            label_names=listed(TEXT),
            pictures=named({"type": "boolean"}, "whether the index has pictures"),
            encoder=named({"type": "boolean"}, "whether it takes pictures"),
            report=named({"type": "boolean"}, "whether /report is there"),
            top=named(top, "most results of one answer"),
        ),
        "Health": record(
            status={"const": "ok"}, images=COUNT, problem=named(TEXT_OR_NULL, "why a changed index is not used")
        ),
    }
    found = answer("the results", schema("Answer"))
    csv = {"text/csv": {"schema": TEXT}}
    image = {"image": named({"type": "string", "contentMediaType": "image/*"}, "a JPEG, PNG or WebP picture")}
    search_get = {
        "summary": "Search by an image of the index, or by a code",
        "parameters": [
            parameter("key", named(TEXT, "an image of the index; either this or a code")),
            parameter("code", named(TEXT, "a real-valued code: numbers with commas, one a bit")),
            parameter("format", {"enum": ["json", "csv"], "default": "json"}),
            *(parameter(name, content) for name, content in texts.items()),
        ],
        "responses": {"200": found | {"content": found["content"] | csv}} | refusals(e400=BAD, e404="no such key"),
    }
    search_post = {
        "summary": "Search by a picture, or by a code",
        "description": "The picture is decoded, turned into a code by the net of the index, and not kept.",
        "requestBody": {
            "required": True,
            "content": {
                "multipart/form-data": {"schema": record(tuple(texts), **image, **texts)},
                "application/json": {"schema": record(tuple(options), code=CODE, **options)},
            },
        },
        "responses": {"200": found}
        | refusals(
            e400=BAD,
            e403="asked by another site's page",
            e408="the body took too long",
            e409="an index that names no net",
            e413="too many bytes or pixels",
            e415="no JPEG, PNG or WebP picture",
            e422="a damaged picture",
        ),
    }
    items = {
        "summary": "Some images of the index, drawn at random",
        "parameters": [
            parameter("count", top | {"default": 24}),
            parameter("seed", COUNT | {"maximum": 999_999_999, "default": 0}),
            parameter("label", options["label"]),
        ],
        "responses": {"200": answer("the images", record(items=listed(schema("Item"))))} | refusals(e400=BAD),
    }
    types = {name: {"schema": {"type": "string", "contentMediaType": name}} for name in MEDIA_TYPES}
    picture = {
        "summary": "The picture of an image of the index",
        "parameters": [parameter("key", named(TEXT, "its key, percent-encoded"), "path")],
        "responses": {"200": {"description": "the picture", "content": types}}
        | refusals(e404="no such key, or no picture of it"),
    }
    about = {"summary": "What the index is", "responses": {"200": answer("it", schema("About"))} | refusals()}
    health = {"summary": "Whether the server answers", "responses": {"200": answer("it does", schema("Health"))}}
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "Search by picture",
            "version": "1",
            "description": "The nearest images of a picture by the Hamming distance of their binary codes. Results "
            "stand in the order of the distance, then of the greater similarity, then of the key. The answer to a "
            "search is the object that the command `search --json` prints.",
        },
        "paths": {
            "/api/search": {"get": search_get, "post": search_post},
            "/api/items": {"get": items},
            "/api/items/{key}/image": {"get": picture},
            "/api/about": {"get": about},
            "/healthz": {"get": health},
        },
        "components": {"schemas": schemas},
    }
