"""Heads of HTTP/1.x messages, read once and strictly: what two readers could read differently is refused. Knows no socket.

An own parser on purpose: a lenient parser behind a strict check is two readings of the same bytes. Whatever passes here is
split by the very rules that checked it (attack 20).  Source: RFC 9112.
"""

from __future__ import annotations

import re

from connectors_grpc.inject.memo import LONGEST, Memo, secretive
from connectors_grpc.inject.plan import Fresh, Policy

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


class Block:
    """A request's lines, read. `marks` holds those that decide something, by lower-case name; `shown` those that may hold a key.

    A plain class, as all that is made for every request: a dataclass's `__init__` is never compiled. `passed` is what of it goes
    out under `policy`, once somebody has worked that out.
    """

    __slots__ = ("fields", "keep_alive", "length", "marks", "passed", "policy", "shown", "text")

    def __init__(self, text: bytes, fields: Fields, marks: Marks, shown: Fields) -> None:
        if b"host" not in marks:
            raise Malformed("There must be one Host line.")
        self.text = text
        self.fields = fields
        self.marks = marks
        self.shown = shown
        self.length = _length(marks, 0)
        connection = marks.get(b"connection", b"keep-alive")
        self.keep_alive = connection == b"keep-alive" or b"close" not in _options(connection)
        self.policy: Policy | None = None
        self.passed: bytes | None = None


class RequestHead:
    """A request's head: its first line, and its block's lines."""

    __slots__ = ("block", "fields", "http_1_1", "keep_alive", "length", "marks", "method", "target")

    def __init__(self, method: bytes, target: bytes, http_1_1: bool, block: Block) -> None:
        self.method = method
        self.target = target
        self.http_1_1 = http_1_1
        self.block = block
        self.fields = block.fields
        self.marks = block.marks
        self.length = block.length
        self.keep_alive = http_1_1 and block.keep_alive
        if self.length == CHUNKED and not http_1_1:
            raise Malformed("Transfer-Encoding stands in HTTP/1.0.")


class ResponseHead:
    """An answer's head. `line` is its first, as we write it. `length` is CHUNKED, UNTIL_CLOSE, or a number of bytes.

    `written` has, line by line, what the app gets where that is known; `fresh` are the others, still to be judged.
    """

    __slots__ = ("fresh", "keep_alive", "length", "line", "lines", "status", "written")

    def __init__(
        self, status: int, line: bytes, lines: list[bytes], written: list[bytes | None], fresh: list[Fresh],
        length: int, keep_alive: bool,
    ) -> None:  # fmt: skip
        self.status = status
        self.line = line
        self.lines = lines
        self.written = written
        self.fresh = fresh
        self.length = length
        self.keep_alive = keep_alive

    @property
    def fields(self) -> Fields:
        """Names and values. Split only for who asks: few answers need it."""
        return [(name, value.strip()) for name, _, value in (line.partition(b":") for line in self.lines)]


SINGLE = frozenset(
    (b"host", b"content-length", b"transfer-encoding", b"x-tenant-id", b"x-connectors-key", b"expect", b"origin",
     b"sec-fetch-site", b"connection", b"upgrade")
)  # fmt: skip
"""Lines that decide something. Twice is once too often, `connection` apart."""
SHOWN = frozenset((b"authorization", b"x-api-key", b"x-connectors-key"))
"""Where an app's key may stand."""
_FRAMING = frozenset((b"content-length", b"transfer-encoding"))
_NOTHING: dict[bytes, bytes] = {}

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
_LONGEST_OWN = 4096


class Own:
    """What one connection remembers until it ends: lines that may hold a secret, since an app sends the same key again; and the
    last block, since nearly always it sends all of it again.
    """

    __slots__ = ("last", "lines")

    def __init__(self) -> None:
        self.lines: dict[bytes, Line] = {}
        self.last: Block | None = None

    def keep(self, line: bytes, read: Line) -> None:
        """Remember a line, within bounds."""
        if len(self.lines) >= _MOST_OWN:
            self.lines.clear()
        self.lines[line] = read


def forget_lines() -> None:
    """Nothing that an upstream said by mistake is remembered any longer."""
    _DECIDING.known.clear()
    _STATUSES.known.clear()


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


def head_end(data: bytes, own: Own, start: int = 0) -> int:
    """Where the first head in `data` ends, or -1; its end is not before `start`. A block that came before is not searched."""
    last = own.last
    if last is not None:
        at = data.find(b"\r\n")
        if data.startswith(last.text, at):
            return at + len(last.text)
    end = data.find(b"\r\n\r\n", start)
    return end + 4 if end >= 0 else -1


def parse_request(head: bytes, own: Own | None = None) -> RequestHead:
    """A request's head, with its final empty line. `own` is what its connection remembers.

    Raises: Malformed (400; 414 target, 431 head too large).
    """
    if len(head) > LONGEST_HEAD:
        raise Malformed("The head is too large.", 431)
    at = head.find(b"\r\n")
    match = _REQUEST_LINE.fullmatch(head, 0, at)
    if match is None:
        raise Malformed("The request line is not `METHOD /target HTTP/1.1`.")
    method, target, minor = match.groups()
    if len(target) > LONGEST_TARGET:
        raise Malformed("The request target is too long.", 414)
    block = None if own is None else own.last
    if block is None or not head.startswith(block.text, at) or at + len(block.text) != len(head):
        block = _block(head[at:], own)
    return RequestHead(method, target, minor == b"1", block)


def _block(text: bytes, own: Own | None) -> Block:
    """Read the lines behind a request line, and remember them. Raises: Malformed."""
    lines = _lines(text)
    fields = list(map(_LINES.known.get, lines))
    marks: Marks = {}
    shown: Fields = []
    for at, pair in enumerate(fields):
        if pair is None:
            line = lines[at]
            mark, name, value = (
                _DECIDING.known.get(line)
                or (own.lines.get(line) if own is not None else None)
                or _line(line, own, _LINES)
            )
            fields[at] = name, value
            if mark is not None:
                _mark(marks, mark, value, SINGLE)
                if mark in SHOWN:
                    shown.append((mark, value))
    block = Block(text, fields, marks, shown)  # type: ignore[arg-type]
    if own is not None and len(text) <= _LONGEST_OWN:
        own.last = block
    return block


def parse_response(head: bytes, method: bytes, known: dict[bytes, bytes] = _NOTHING) -> ResponseHead:
    """An answer's head, with its final empty line. `known` are lines that need no second look, as they are passed on.

    Raises: Malformed (the connection can't be trusted any further).
    """
    if len(head) > LONGEST_HEAD:
        raise Malformed("The head is too large.", 431)
    end = head.find(b"\r\n")
    first = head[:end]
    http_1_1, status, line = _STATUSES.known.get(first) or _status(first)
    lines = _lines(head[end:])
    written = list(map(known.get, lines))
    fresh: list[Fresh] = []
    marks: Marks = {}
    at = -1
    for _ in range(written.count(None)):
        at = written.index(None, at + 1)
        raw = lines[at]
        mark, name, value = _DECIDING.known.get(raw) or _line(raw, None, None)
        fresh.append((at, raw, name, value, mark is None))
        if mark is not None:
            _mark(marks, mark, value, _FRAMING)
    length = _length(marks, UNTIL_CLOSE)
    if length == CHUNKED and not http_1_1:
        raise Malformed("Transfer-Encoding stands in HTTP/1.0.")
    if method == b"HEAD" or status < 200 or status in (204, 304):
        length = 0
    connection = marks.get(b"connection")
    if connection is None or connection == b"keep-alive":
        keep_alive = http_1_1 or connection is not None
    else:
        keep_alive = b"close" not in _options(connection) if http_1_1 else b"keep-alive" in _options(connection)
    return ResponseHead(status, line, lines, written, fresh, length, keep_alive and length != UNTIL_CLOSE)


def parse_trailers(section: bytes) -> Fields:
    """The fields of a trailer section, with its final empty line; none may speak of framing, even to be dropped.

    Raises: Malformed.  Source: RFC 9112 section 7.1.2, RFC 9110 section 6.5.1.
    """
    fields: Fields = []
    for line in _lines(b"\r\n" + section):
        mark, name, value = _line(line, None, None)
        if mark in _FRAMING:
            raise Malformed("A trailer speaks of framing.")
        fields.append((name, value))
    return fields


def _status(line: bytes) -> tuple[bool, int, bytes]:
    """Read a status line for the first time. Raises: Malformed."""
    match = _STATUS_LINE.fullmatch(line)
    if match is None:
        raise Malformed("The status line is malformed.")
    read = match[1] == b"1", int(match[2]), b"HTTP/1.1 %b %b\r\n" % (match[2], match[3] or b"")
    if len(line) <= LONGEST:
        _STATUSES.keep(match[2], line, read)
    return read


def _lines(text: bytes) -> list[bytes]:
    """The lines from the first line's end on, not looked at: what is in a line is checked where it is read for the first time."""
    lines = text[:-4].split(b"\r\n")
    if len(lines) > MOST_FIELDS + 1:
        raise Malformed("The head has too many lines.", 431)
    del lines[0]
    return lines


def _line(line: bytes, own: Own | None, harmless: Memo[bytes, tuple[bytes, bytes]] | None) -> Line:
    """Read a line for the first time; remember it, `harmless` those that decide nothing. Raises: Malformed."""
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
    if len(line) <= LONGEST and (mark is not None or harmless is not None):
        if mark in SHOWN or secretive(name):
            if own is not None:
                own.keep(line, read)
        elif mark is not None:
            _DECIDING.keep(name, line, read)
        elif harmless is not None:
            harmless.keep(name, line, (name, value))
    return read


def _mark(marks: Marks, mark: bytes, value: bytes, single: frozenset[bytes]) -> None:
    """Note a line that decides something. Raises: Malformed, if it is one of `single` and stands a second time."""
    if mark in marks:
        if mark == b"connection":
            value = marks[mark] + b"," + value
        elif mark in single:
            raise Malformed("A line that may stand once stands twice.")
    marks[mark] = value


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


def _length(marks: Marks, absent: int) -> int:
    """Where the body ends.  Source: RFC 9112 section 6.3, without its leniencies."""
    coding = marks.get(b"transfer-encoding")
    length = marks.get(b"content-length")
    if coding is not None:
        if length is not None:
            raise Malformed("Transfer-Encoding stands with Content-Length.")
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
