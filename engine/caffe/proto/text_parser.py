"""Protobuf's text format, as the C++ parser takes it that BVLC Caffe reads prototxt with.

Python's own parser differs: it takes `"C:\\data"` and hexadecimal floats, and refuses `- 1.5` and `bias_term: 01`.
Text is read as bytes, in which strings and comments may be of any encoding.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple, NoReturn

from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import Message

from caffe.proto import byte_strings, forks

_TOKEN = re.compile(
    r"""(?P<space>(?:[ \n\t\r\v\f]+|\#[^\n\0]*)+)
      | (?P<name>[A-Za-z_][A-Za-z_0-9]*)
      | (?P<number>0[xX][0-9a-fA-F]*
                 | 0[0-9]+
                 | (?:\.[0-9]+|[0-9]+\.?[0-9]*)(?:[eE][+-]?[0-9]*)?[fF]?)
      | (?P<string>"(?:[^"\\\n\0]|\\.)*"|'(?:[^'\\\n\0]|\\.)*')
      | (?P<symbol>[!#-&(-/:-@\[-`{-~])
    """,
    re.VERBOSE,
)
_OPEN_STRING = re.compile(r"""(["'])(?:(?!\1)[^\\\n\0]|\\.)*\\?""")  # as far as it is one
_DECIMAL = re.compile(r"0|[1-9][0-9]*")
_ESCAPE = re.compile(
    rb"\\(?:([0-7]{1,3})|x([0-9a-fA-F]{1,2})|(u[0-9a-fA-F]{4}|U00[01][0-9a-fA-F]{5})|([abfnrtv\\?'\"])|)"
)
_SIMPLE = dict(zip(b"abfnrtv\\?'\"", b"\a\b\f\n\r\t\v\\?'\"", strict=True))
_SURROGATES = re.compile("[\ud800-\udbff][\udc00-\udfff]")
_BOOLS = {"true": True, "True": True, "t": True, "false": False, "False": False, "f": False}
_LIMITS = {"INT32": 31, "INT64": 63, "UINT32": 32, "UINT64": 64}


class ParseError(ValueError):
    """What is wrong with a text, and at which offset in bytes; None: with the message as a whole."""

    def __init__(self, reason: str, offset: int | None):
        super().__init__(reason)
        self.reason = reason
        self.offset = offset


class Token(NamedTuple):
    """A piece of text; kind is name, integer, float, string, symbol or end."""

    kind: str
    text: str
    offset: int


def parse(data: bytes, message: Message) -> None:
    """Parse the prototxt `data` into `message`.

    Raises:
        ParseError: it is none of such a message.
    """
    if data.startswith(b"\xef\xbb\xbf"):
        raise ParseError(
            "the file begins with a UTF-8 byte order mark (EF BB BF), which BVLC Caffe's parser refuses; "
            "save it as UTF-8 without BOM",
            0,
        )
    _Parser(data).parse(message)


def _tokens(data: bytes) -> Iterator[Token]:
    text = data.decode("latin-1")  # one character a byte
    offset, before = 0, ""
    while offset < len(text):
        match = _TOKEN.match(text, offset)
        if not match:
            raise ParseError(_unexpected(text, offset), offset)
        kind, piece = match.lastgroup or "", match[0]
        after = text[match.end() : match.end() + 1]
        if kind == "number":
            if before == "name" and piece.startswith("."):
                raise ParseError("Need space between identifier and decimal point.", offset)
            kind = _number_kind(piece, offset, after)
        if kind != "space":
            yield Token(kind, piece, offset)
        before = kind
        offset = match.end()
    while True:
        yield Token("end", "", offset)


def _number_kind(piece: str, offset: int, after: str) -> str:
    """integer or float; ParseError where C++'s tokenizer finds a fault."""
    reason = ""
    hexadecimal, octal = piece[:2] in ("0x", "0X"), len(piece) > 1 and piece.isdigit() and piece[0] == "0"
    if hexadecimal and len(piece) == 2:
        reason = '"0x" must be followed by hex digits.'
    elif octal and set(piece) & set("89"):
        reason = "Numbers starting with leading zero must be in octal."
    elif not hexadecimal and re.search(r"[eE][+-]?[fF]?$", piece):
        reason = '"e" must be followed by exponent.'
    elif after == ".":
        reason = (
            "Hex and octal numbers must be integers."
            if hexadecimal or octal
            else "Already saw decimal point or exponent; can't have another one."
        )
    elif (after.isalpha() and after.isascii()) or after == "_":
        reason = "Need space between number and identifier."
    if reason:
        raise ParseError(reason, offset)
    return "integer" if hexadecimal or piece.isdigit() else "float"


def _unexpected(text: str, offset: int) -> str:
    """What is wrong where no token begins."""
    if text[offset] in "\"'":
        string = _OPEN_STRING.match(text, offset)
        stop = string.end() if string else offset
        broken = text[stop : stop + 1] == "\n"
        return "String literals cannot cross line boundaries." if broken else "Unexpected end of string."
    if text[offset] < " " or text[offset] == "\x7f":
        return f"Invalid control characters encountered in text: byte {ord(text[offset])}."
    return f"Interpreting non ascii codepoint {ord(text[offset])}: only strings and comments may hold it."


class _Parser:
    def __init__(self, data: bytes):
        self._next = _tokens(data).__next__
        self.token = self._next()

    def parse(self, message: Message) -> None:
        while self.token.kind != "end":
            self._field(message)
        missing = message.FindInitializationErrors()
        if missing:
            raise ParseError(f"Message missing required fields: {', '.join(missing)}", None)

    # -- tokens

    def _fail(self, reason: str, token: Token | None = None) -> NoReturn:
        raise ParseError(reason, (token or self.token).offset)

    def _advance(self) -> Token:
        token, self.token = self.token, self._next()
        return token

    def _try(self, *symbols: str) -> bool:
        if self.token.text in symbols and self.token.kind == "symbol":
            self.token = self._next()
            return True
        return False

    def _expect(self, symbol: str) -> None:
        if not self._try(symbol):
            self._fail(f'Expected "{symbol}", found "{self.token.text}".')

    # -- fields

    def _field(self, message: Message) -> None:
        descriptor, name = message.DESCRIPTOR, self.token
        if name.kind != "name":
            self._fail(f"Expected identifier, got: {name.text}")
        self._advance()
        field = descriptor.fields_by_name.get(name.text)
        if field is None:
            hint = forks.explain_field(descriptor, name.text)
            self._fail(f'Message type "{descriptor.full_name}" has no field named "{name.text}".{hint}', name)
        repeated = _repeated(field)
        if not repeated and message.HasField(name.text):
            self._fail(f'Non-repeated field "{name.text}" is specified multiple times.', name)
        if field.message_type is not None:
            self._try(":")
            read: Callable[[], Any] = lambda: self._message(  # noqa: E731
                getattr(message, name.text).add() if repeated else getattr(message, name.text)
            )
        else:
            self._expect(":")

            def read() -> None:
                start = self.token
                value = self._value(field)
                try:
                    if repeated:
                        getattr(message, name.text).append(value)
                    else:
                        setattr(message, name.text, value)
                except (TypeError, ValueError) as error:
                    self._fail(f"{descriptor.full_name}.{name.text}: {error}", start)

        if repeated and self._try("["):
            if not self._try("]"):
                read()
                while not self._try("]"):
                    self._expect(",")
                    read()
        else:
            read()
        self._try(";", ",")

    def _message(self, message: Message) -> None:
        close = ">" if self._try("<") else "}"
        if close == "}":
            self._expect("{")
        message.SetInParent()
        while self.token.kind != "symbol" or self.token.text not in (">", "}"):
            if self.token.kind == "end":
                self._fail(f'Expected "{close}", found the end of the text.')
            self._field(message)
        self._expect(close)

    # -- values

    def _value(self, field: FieldDescriptor) -> Any:
        kind = _CPP_TYPES[field.cpp_type]
        if kind in _LIMITS:
            return self._integer(_LIMITS[kind], signed=kind.startswith("INT"))
        if kind in ("FLOAT", "DOUBLE"):
            return self._float()
        if kind == "BOOL":
            return self._bool(field)
        if kind == "ENUM":
            return self._enum(field)
        data = self._string()
        return data if field.type == field.TYPE_BYTES else byte_strings.decode(data)

    def _integer(self, bits: int, signed: bool) -> int:
        negative = signed and self._try("-")
        token = self.token
        if token.kind != "integer":
            self._fail(f"Expected integer, got: {token.text}")
        value = _integer(token.text)
        if value > (1 << bits) - (0 if negative else 1):
            self._fail(f"Integer out of range ({token.text}).")
        self._advance()
        return -value if negative else value

    def _float(self) -> float:
        sign = -1.0 if self._try("-") else 1.0
        token = self.token
        if token.kind == "integer":
            if not _DECIMAL.fullmatch(token.text):
                self._fail(f"Expect a decimal number, got: {token.text}")
            value = float(token.text)
        elif token.kind == "float":
            value = float(token.text.rstrip("fF"))
        elif token.kind == "name" and token.text.lower() in ("inf", "infinity", "nan"):
            value = float(token.text)
        else:
            self._fail(f"Expected double, got: {token.text}")
        self._advance()
        return sign * value

    def _bool(self, field: FieldDescriptor) -> bool:
        if self.token.kind == "integer":
            return bool(self._integer(1, signed=False))
        token = self.token
        if token.kind != "name":
            self._fail(f"Expected identifier, got: {token.text}")
        if token.text not in _BOOLS:
            self._fail(f'Invalid value for boolean field "{field.name}". Value: "{token.text}".')
        self._advance()
        return _BOOLS[token.text]

    def _enum(self, field: FieldDescriptor) -> int:
        token, values = self.token, field.enum_type
        if token.kind == "name":
            value_of_name = values.values_by_name.get(token.text)
            self._advance()
        elif token.kind == "integer" or token.text == "-":
            value = self._integer(31, signed=True)
            token, value_of_name = token._replace(text=str(value)), values.values_by_number.get(value)
        else:
            self._fail(f"Expected integer or identifier, got: {token.text}")
        if value_of_name is None:
            hint = forks.explain_value(values)
            self._fail(f'Unknown enumeration value of "{token.text}" for field "{field.name}".{hint}', token)
        return value_of_name.number

    def _string(self) -> bytes:
        if self.token.kind != "string":
            self._fail(f"Expected string, got: {self.token.text}")
        data = b""
        while self.token.kind == "string":
            data += _unescape(self._advance())
        return data


def _unescape(token: Token) -> bytes:
    """The bytes that a string literal means."""
    body = token.text[1:-1].encode("latin-1")
    if b"\\" not in body:
        return body
    pieces, end = [], 0
    for match in _ESCAPE.finditer(body):
        octal, hexadecimal, code, simple = match.groups()
        pieces.append(body[end : match.start()])
        end = match.end()
        if octal:
            pieces.append(bytes([int(octal, 8) & 0xFF]))
        elif hexadecimal:
            pieces.append(bytes([int(hexadecimal, 16)]))
        elif code:
            pieces.append(_code_points(pieces, int(code[1:], 16)))
        elif simple:
            pieces.append(bytes([_SIMPLE[simple[0]]]))
        else:
            raise ParseError(_bad_escape(body[match.start() :].decode("latin-1")), token.offset + 1 + match.start())
    return b"".join([*pieces, body[end:]])


def _code_points(pieces: list[bytes], code: int) -> bytes:
    """A character of a Unicode escape in UTF-8; the second of a pair of surrogates takes the first one back."""
    if 0xDC00 <= code < 0xE000 and len(pieces) > 1 and pieces[-1] == b"":
        first = pieces[-2].decode("utf-8", "surrogatepass") if len(pieces[-2]) == 3 else ""
        if len(first) == 1 and _SURROGATES.match(first + chr(code)):
            pieces[-2] = b""
            code = 0x10000 + ((ord(first) - 0xD800) << 10) + code - 0xDC00
    if code > 0x10FFFF:  # C++ takes these too: no character, but four bytes
        return bytes([0xF4, *(0x80 | code >> shift & 0x3F for shift in (12, 6, 0))])
    return chr(code).encode("utf-8", "surrogatepass")


def _bad_escape(rest: str) -> str:
    kind = rest[1:2]
    reasons = {
        "x": "Expected hex digits for escape sequence.",
        "u": "Expected four hex digits for \\u escape sequence.",
        "U": "Expected eight hex digits up to 10ffff for \\U escape sequence.",
    }
    reason = reasons.get(kind, "Invalid escape sequence in string literal.")
    return f"{reason} Found \\{kind}; write a backslash as \\\\, or a path with /"


def _integer(text: str) -> int:
    if text[:2] in ("0x", "0X"):
        return int(text[2:], 16)
    return int(text, 8 if text[0] == "0" else 10)


def _repeated(field: FieldDescriptor) -> bool:
    return field.is_repeated if hasattr(type(field), "is_repeated") else field.label == field.LABEL_REPEATED


_CPP_TYPES = dict(
    enumerate(["", "INT32", "INT64", "UINT32", "UINT64", "DOUBLE", "FLOAT", "BOOL", "ENUM", "STRING", "MESSAGE"])
)
