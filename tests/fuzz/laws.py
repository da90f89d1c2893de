"""What must hold of the engine for any bytes from either side: for hypothesis in the tests, and for the guided fuzzer."""

from __future__ import annotations

from collections.abc import Sequence

from tests.fuzz.wire import BEFORE, HOST, KEY, TOKEN, Message, Wire, read_answer, read_requests


def request_law(data: bytes, size: int | None = None) -> list[Message]:
    """The upstream gets whole requests that h11 too read in the app's bytes, in that order, with our token, and nothing else.

    What h11 refuses is refused; what we pass, h11 reads as the app's h11 would. Returns what the upstream got.
    """
    wire = Wire.of()
    wire.send(data, size)
    theirs, _ = read_requests(data)
    got: list[Message] = []
    for pipe in wire.pipes:
        passed, ending = read_requests(bytes(pipe.out))
        assert ending != "refused", bytes(pipe.out)
        for message in passed:
            assert [value for name, value in message.fields if name == b"authorization"] == [TOKEN]
            assert [value for name, value in message.fields if name == b"host"] == [b"api.test"]
            assert not {b"x-api-key", b"x-connectors-key"} & {name for name, _ in message.fields}
        got += passed
    wanted = [((method, target.removeprefix(BEFORE)), body) for (method, target), body in (m.core for m in theirs)]
    assert subsequence([message.core for message in got], wanted), (got, theirs)
    assert TOKEN not in wire.app.out
    return got


def answer_law(data: bytes, *, method: bytes = b"GET", ended: bool, size: int | None = None) -> Message | None:
    """The app reads what h11 reads in the upstream's bytes, or our own refusal, or sees the connection break.

    Returns what the app read.
    """
    wire = Wire.of(1)
    asked = b"%b %b/x HTTP/1.1\r\nHost: %b\r\nAuthorization: Bearer %b\r\n\r\n"
    wire.send(asked % (method, BEFORE, HOST, KEY.encode()), serve=False)
    up = wire.busy()
    assert up is not None
    wire.app.out.clear()
    wire.reply(up, data, size)
    if ended and not up.transport.is_closing():
        up.connection_lost(None)
    in_order = (wire.app.closed or wire.app.ended) and not wire.app.aborted
    ours, ending = read_answer(method, bytes(wire.app.out), ended=in_order)
    theirs, _ = read_answer(method, data, ended=ended)
    assert ending != "refused" or wire.app.aborted, bytes(wire.app.out)
    if ours is None:
        return None
    if any(name == b"x-connectors-error" for name, _ in ours.fields):
        assert ours.line == (b"502",)
        return None
    assert theirs is not None, (data, ours)
    assert ours.core == theirs.core, (ours, theirs)
    return ours


def subsequence(part: Sequence[object], whole: Sequence[object]) -> bool:
    """Whether `part` stands in `whole`, in order."""
    rest = iter(whole)
    return all(item in rest for item in part)
