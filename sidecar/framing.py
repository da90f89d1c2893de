"""Heads of HTTP/1.x messages, read once and strictly: what two readers could read differently is refused. Knows no socket.

An own parser on purpose: a lenient parser behind a strict check is two readings of the same bytes. Whatever passes here is
split by the very rules that checked it (attack 20).  Source: RFC 9112.
"""

from __future__ import annotations

import re

from connectors_grpc.inject.memo import LONGEST, Memo, secretive

Fields = list[tuple[bytes, bytes]]
Marks = dict[bytes, bytes]
Line = tuple[bytes | None, bytes, bytes]
"""A line that was read: what it decides, if anything; name, value."""

CHUNKED = -1
"""In place of a length: the body is chunked."""
UNTIL_CLOSE = -2
"""In place of a length: the body ends with the connection. Only answers have that."""

MOST_FIELDS = 128
LONGEST_TARGET = 16 * 1024
LONGEST_HEAD = 64 * 1024


class Malformed(Exception):
    """Not HTTP as we take it. `args[0]` is a constant text; `status` what an app is told."""

    def __init__(self, text: str, status: int = 400) -> None:
        super().__init__(text)
        self.status = status


class RequestHead:
    """A request's head. `marks` holds the lines that decide something, by lower-case name; `shown` those that may hold a key.

    A plain class, as all that is made for every request: a dataclass's `__init__` is never compiled.
    """

    __slots__ = ("fields", "http_1_1", "keep_alive", "length", "marks", "method", "shown", "target")

    def __init__(
        self, method: bytes, target: bytes, http_1_1: bool, fields: Fields, marks: Marks, shown: Fields
    ) -> None:
        self.method = method
        self.target = target
        self.http_1_1 = http_1_1
        self.fields = fields
        self.marks = marks
        self.shown = shown
        self.length = _length(marks, http_1_1, 0)
        connection = marks.get(b"connection", b"keep-alive")
        self.keep_alive = http_1_1 and (connection == b"keep-alive" or b"close" not in _options(connection))


class ResponseHead:
    """An answer's head. `line` is its first, as we write it. `length` is CHUNKED, UNTIL_CLOSE, or a number of bytes."""

    __slots__ = ("fields", "keep_alive", "length", "line", "status")

    def __init__(self, status: int, line: bytes, fields: Fields, length: int, keep_alive: bool) -> None:
        self.status = status
        self.line = line
        self.fields = fields
        self.length = length
        self.keep_alive = keep_alive


SINGLE = frozenset(
    (b"host", b"content-length", b"transfer-encoding", b"x-tenant-id", b"x-connectors-key", b"expect", b"origin",
     b"sec-fetch-site", b"connection", b"upgrade")
)  # fmt: skip
"""Lines that decide something. Twice is once too often, `connection` apart."""
SHOWN = frozenset((b"authorization", b"x-api-key", b"x-connectors-key"))
"""Where an app's key may stand."""

_PRINTED = bytes(range(0x20, 0x7F)) + bytes(range(0x80, 0x100)) + b"\t"
_TEXT = _PRINTED + b"\r\n"
_NAME = re.compile(rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]{1,256}")
_REQUEST_LINE = re.compile(rb"([A-Z][A-Z-]{0,31}) ([\x21-\x7e]+) HTTP/1\.([01])")
_STATUS_LINE = re.compile(rb"HTTP/1\.([01]) ([1-5][0-9]{2})(?: ([\t\x20-\x7e\x80-\xff]*))?")
_LENGTH = re.compile(rb"[0-9]{1,18}")
_KNOWN: dict[bytes, bytes | None] = {}
"""Names seen, valid by `_NAME`: None if the line decides nothing. A cache, bounded by _MOST_KNOWN."""
_MOST_KNOWN = 2048
_LINES: Memo[bytes, tuple[bytes, bytes]] = Memo()
"""Whole lines seen, valid, that decide nothing and can hold no key, with name and value."""
_DECIDING: Memo[bytes, Line] = Memo()
"""Lines seen, valid, that decide something but show no key."""
_STATUSES: Memo[bytes, tuple[bool, int, bytes]] = Memo()
"""Status lines seen, valid: whether HTTP/1.1, the status, the line as we write it."""
_MOST_OWN = 16


class Own(dict[bytes, Line]):
    """One connection's lines that may hold a secret: an app sends the same key again. Forgotten with the connection."""

    __slots__ = ()

    def keep(self, line: bytes, read: Line) -> None:
        """Remember, within bounds."""
        if len(self) >= _MOST_OWN:
            self.clear()
        self[line] = read


def forget_lines() -> None:
    """Nothing that an upstream said by mistake is remembered any longer."""
    _LINES.clear()
    _STATUSES.clear()


def still_text(part: bytes, before: bytes) -> bool:
    """Whether an unfinished head may go on: no control character, no bare LF or CR. `before` is the byte before `part`."""
    if part.translate(None, _TEXT):
        return False
    joined = before + part
    pairs = joined.count(b"\r\n")
    return (
        joined.count(b"\n") - before.startswith(b"\n") == pairs
        and joined.count(b"\r") - joined.endswith(b"\r") == pairs
    )


def parse_request(head: bytes, own: Own | None = None) -> RequestHead:
    """A request's head, with its final empty line. `own` is what its connection remembers.

    Raises: Malformed (400; 414 target, 431 head too large).
    """
    lines = _lines(head)
    match = _REQUEST_LINE.fullmatch(lines[0])
    if match is None:
        raise Malformed("The request line is not `METHOD /target HTTP/1.1`.")
    method, target, minor = match.groups()
    if len(target) > LONGEST_TARGET:
        raise Malformed("The request target is too long.", 414)
    fields, marks, shown = _fields(lines, own)
    http_1_1 = minor == b"1"
    if b"host" not in marks:
        raise Malformed("There must be one Host line.")
    return RequestHead(method, target, http_1_1, fields, marks, shown)


def parse_response(head: bytes, method: bytes) -> ResponseHead:
    """An answer's head, with its final empty line. Raises: Malformed (the connection can't be trusted any further)."""
    lines = _lines(head)
    http_1_1, status, line = _STATUSES.get(lines[0]) or _status(lines[0])
    fields, marks, _ = _fields(lines, None, request=False)
    length = _length(marks, http_1_1, UNTIL_CLOSE)
    if method == b"HEAD" or status < 200 or status in (204, 304):
        length = 0
    connection = marks.get(b"connection")
    if connection is None or connection == b"keep-alive":
        keep_alive = http_1_1 or connection is not None
    else:
        keep_alive = b"close" not in _options(connection) if http_1_1 else b"keep-alive" in _options(connection)
    return ResponseHead(status, line, fields, length, keep_alive and length != UNTIL_CLOSE)


def parse_trailers(section: bytes) -> Fields:
    """The fields of a trailer section, with its final empty line.  Raises: Malformed.  Source: RFC 9112 section 7.1.2."""
    return _fields(_lines(b"\r\n" + section), None, request=False)[0]


def _status(line: bytes) -> tuple[bool, int, bytes]:
    """Read a status line for the first time. Raises: Malformed."""
    match = _STATUS_LINE.fullmatch(line)
    if match is None:
        raise Malformed("The status line is malformed.")
    read = match[1] == b"1", int(match[2]), b"HTTP/1.1 %b %b\r\n" % (match[2], match[3] or b"")
    if len(line) <= LONGEST:
        _STATUSES.keep(line, read)
    return read


def _lines(head: bytes) -> list[bytes]:
    """The lines, not looked at: what is in a line is checked where the line is read for the first time."""
    if len(head) > LONGEST_HEAD:
        raise Malformed("The head is too large.", 431)
    lines = head[:-4].split(b"\r\n")
    if len(lines) > MOST_FIELDS + 1:
        raise Malformed("The head has too many lines.", 431)
    return lines


def _fields(lines: list[bytes], own: Own | None, *, request: bool = True) -> tuple[Fields, Marks, Fields]:
    del lines[0]
    marks: Marks = {}
    shown: Fields = []
    fields = list(map(_LINES.get, lines))
    for at, pair in enumerate(fields):
        if pair is None:
            line = lines[at]
            read = _DECIDING.get(line) or (own and own.get(line)) or _line(line, own)
            mark, name, value = read
            fields[at] = name, value
            if mark is None:
                continue
            if mark in marks:
                value = _again(marks, mark, value, request)
            marks[mark] = value
            if mark in SHOWN:
                shown.append((mark, value))
    return fields, marks, shown  # type: ignore[return-value]


def _line(line: bytes, own: Own | None) -> Line:
    """Read a line for the first time. Raises: Malformed."""
    if line.translate(None, _PRINTED):
        raise Malformed("The head has a control character, or a bare CR or LF.")
    name, colon, value = line.partition(b":")
    if not colon:
        raise Malformed("A header line has no colon.")
    value = value.strip()
    try:
        mark = _KNOWN[name]
    except KeyError:
        mark = _judge(name)
    read = mark, name, value
    if len(line) <= LONGEST:
        if mark in SHOWN or secretive(name):
            if own is not None:
                own.keep(line, read)
        elif mark is None:
            _LINES.keep(line, (name, value))
        else:
            _DECIDING.keep(line, read)
    return read


def _again(marks: Marks, mark: bytes, value: bytes, request: bool) -> bytes:
    """A deciding line stands a second time. Raises: Malformed, if it may not."""
    if mark == b"connection":
        return marks[mark] + b"," + value
    if mark in SINGLE and (request or mark in (b"content-length", b"transfer-encoding")):
        raise Malformed("A line that may stand once stands twice.")
    return value


def _judge(name: bytes) -> bytes | None:
    """Check a name that is new. A folded line and a space before the colon fail here."""
    if _NAME.fullmatch(name) is None:
        raise Malformed("A header line is malformed.")
    normal = name.lower().replace(b"_", b"-")
    if b"_" in name and normal in SINGLE:
        raise Malformed("A header name has `_` where `-` belongs.")
    mark = normal if normal in SINGLE or normal in SHOWN else None
    if len(_KNOWN) < _MOST_KNOWN and len(name) <= 64:
        _KNOWN[name] = mark
    return mark


def _length(marks: Marks, http_1_1: bool, absent: int) -> int:
    """Where the body ends.  Source: RFC 9112 section 6.3, without its leniencies."""
    coding = marks.get(b"transfer-encoding")
    length = marks.get(b"content-length")
    if coding is not None:
        if length is not None or not http_1_1:
            raise Malformed("Transfer-Encoding stands with Content-Length, or in HTTP/1.0.")
        if coding.lower() != b"chunked":
            raise Malformed("The only transfer coding taken is `chunked`.")
        return CHUNKED
    if length is None:
        return absent
    if _LENGTH.fullmatch(length) is None:
        raise Malformed("Content-Length is not a number.")
    return int(length)


def _options(value: bytes) -> list[bytes]:
    return [option.strip() for option in value.lower().split(b",")]
