"""An injection compiled to bytes, once a lease, and put into requests: the hot path. Knows no socket."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Self
from urllib.parse import quote_plus, unquote_plus, urlsplit

from connectors_grpc.inject.memo import LONGEST, Memo, shared
from connectors_grpc.inject.target import Target, authority, comparable
from connectors_grpc.inject.templates import Injection

Headers = Sequence[tuple[bytes, bytes]]
Fresh = tuple[int, bytes, bytes, bytes, bool]
"""A line of an answer that is not remembered: where it stands, the line, its name and value, and whether it may be."""

HOP_BY_HOP = frozenset(
    (b"connection", b"keep-alive", b"proxy-connection", b"te", b"trailer", b"transfer-encoding", b"upgrade")
)
"""Meant for one connection only.  Source: RFC 9110 section 7.6.1."""
CONTROL = frozenset((b"x-tenant-id", b"x-connectors-key", b"proxy-authorization", b"proxy-authenticate"))
"""Ours, or between the app and a proxy: never passed on. Every `x-connectors-*` besides."""
FORWARDING = frozenset(
    (b"forwarded", b"via", b"x-real-ip", b"x-forwarded-for", b"x-forwarded-host", b"x-forwarded-proto")
)
"""Says where a request came from; what an app says of that is not believed, and not passed on."""
CREDENTIALS = frozenset((b"authorization", b"x-api-key"))
"""Where SDKs put the app's own key: overwritten or dropped in any case."""


LINKED = frozenset((b"location", b"content-location", b"link"))
"""May point at the upstream."""


class HostNotAllowed(Exception):
    """The host was not sealed with the credential. `args[0]` is the authority."""


class PathNotAllowed(Exception):
    """The path is one of the provider's OAuth endpoints."""


@dataclass(frozen=True, slots=True, eq=False)
class Policy:
    """What plans of one integration have in common: what becomes of a line, by name and whole. Holds no secret.

    `verdicts` and `back` are by name. `sent` and `returned` have lines as they are written, with `b""` for one that is dropped:
    an app's by name and value, an upstream's as it came.
    """

    drop: frozenset[bytes]
    defaults: tuple[tuple[bytes, bytes], ...]
    pass_cookies: bool
    verdicts: dict[bytes, int] = field(default_factory=dict)
    back: dict[bytes, int] = field(default_factory=dict)
    sent: Memo[tuple[bytes, bytes], bytes] = field(default_factory=Memo)
    returned: Memo[bytes, bytes] = field(default_factory=Memo)

    def passed(self, headers: Headers) -> bytes | None:
        """The app's lines that go out, and the defaults, as they are written; None if a line needs a closer look."""
        out = list(map(self.sent.known.get, headers))
        given: list[bytes] = []
        for at, line in enumerate(out):
            if line is None:
                pair = headers[at]
                name = pair[0]
                verdict = self.verdicts.get(name)
                if verdict is None:
                    verdict = self.judge(name)
                written = out[at] = _written(pair, verdict)
                if written is None:
                    return None
                if verdict == _DEFAULTED:
                    given.append(_normal(name))
                elif len(pair[1]) <= LONGEST:
                    self.sent.keep(name, pair, written)
        for normal, default in self.defaults:
            if normal not in given:
                out.append(default)
        return b"".join(out)  # type: ignore[arg-type]

    def judge(self, name: bytes) -> int:
        """What becomes of an app's line."""
        normal = _normal(name)
        if normal == b"connection":
            verdict = _CONNECTION
        elif normal in self.drop or normal.startswith((b"x-connectors-", b"x-forwarded-")):
            verdict = _DROP
        elif normal in (b"cookie", b"cookie2"):
            verdict = _PASS if self.pass_cookies else _DROP
        else:
            verdict = _DEFAULTED if any(normal == name for name, _ in self.defaults) else _PASS
        return self._note(self.verdicts, name, verdict)

    def judge_back(self, name: bytes) -> int:
        """What becomes of an upstream's line."""
        normal = _normal(name)
        if normal == b"connection":
            verdict = _CONNECTION
        elif normal in _NOT_BACK or normal.startswith(b"x-connectors-"):
            verdict = _DROP
        elif normal in (b"set-cookie", b"set-cookie2"):
            verdict = _PASS if self.pass_cookies else _DROP
        else:
            verdict = _LINK if name.lower() in LINKED else _PASS
        return self._note(self.back, name, verdict)

    def _note(self, verdicts: dict[bytes, int], name: bytes, verdict: int) -> int:
        if len(verdicts) < _MOST_VERDICTS and len(name) <= _LONGEST_VERDICT:
            verdicts[name] = verdict
        return verdict


@lru_cache(maxsize=256)
def _policy(drop: frozenset[bytes], defaults: tuple[tuple[bytes, bytes], ...], pass_cookies: bool) -> Policy:
    """One for all tenants of an integration."""
    return Policy(drop, defaults, pass_cookies)


@dataclass(frozen=True, slots=True)
class Plan:
    """An injection compiled to bytes for one base URL. Holds secrets: never logged, `repr` hides it."""

    scheme: str
    authority: bytes
    base_path: bytes
    policy: Policy
    defaults: tuple[tuple[bytes, bytes, bytes], ...]
    query: tuple[tuple[str, str], ...]
    refused: frozenset[bytes]
    secrets: tuple[bytes, ...]
    before: bytes
    after: bytes

    def __repr__(self) -> str:
        return f"Plan({self.authority.decode()})"

    @classmethod
    def of(
        cls,
        injection: Injection,
        *,
        base_url: str,
        allowed_hosts: Iterable[str],
        default_headers: Mapping[str, str],
        refused_urls: Iterable[str] = (),
        pass_cookies: bool = False,
    ) -> Self:
        """Compile. Raises: HostNotAllowed (the base URL's host was not sealed with the credential, attacks 10, 14, 37)."""
        where = authority(base_url)
        parts = urlsplit(base_url)
        if parts.scheme not in ("http", "https") or where not in {host.lower() for host in allowed_hosts}:
            raise HostNotAllowed(where)
        injected = tuple((shared(k.encode()), v.reveal().encode("latin-1")) for k, v in injection.headers.items())
        names = frozenset(_normal(name) for name, _ in injected)
        defaults = tuple((_normal(k.encode()), k.encode(), v.encode("latin-1")) for k, v in default_headers.items())
        query = tuple((name, value.reveal()) for name, value in injection.query.items())
        return cls(
            scheme=shared(parts.scheme),
            authority=shared(where.encode()),
            base_path=shared(parts.path.rstrip("/").encode()),
            policy=_policy(
                names | _NEVER,
                tuple((entry[0], b"%b: %b\r\n" % entry[1:]) for entry in defaults if entry[0] not in names),
                pass_cookies,
            ),
            defaults=shared(tuple(entry for entry in defaults if entry[0] not in names)),
            query=query,
            refused=shared(
                frozenset(comparable(urlsplit(u).path.encode()) for u in refused_urls if authority(u) == where)
            ),
            secrets=_traces(injected, query),
            before=shared(b"Host: %b\r\n" % where.encode()),
            after=b"".join([b"%b: %b\r\n" % pair for pair in injected]),
        )

    def target(self, asked: Target) -> bytes:
        """The request target to send: base path, the app's path and query, the injected query.

        Raises: PathNotAllowed (one of the provider's OAuth endpoints, attack 34).
        """
        path = self.base_path + asked.path
        if self.refused and comparable(path) in self.refused:
            raise PathNotAllowed
        query = asked.query
        if self.query:
            query = self._with_query(query)
        return path if query is None else path + b"?" + query

    def _with_query(self, query: bytes | None) -> bytes:
        ours = {name for name, _ in self.query}
        kept = [pair for pair in (query or b"").split(b"&") if pair]
        kept = [p for p in kept if unquote_plus(p.partition(b"=")[0].decode("latin-1")) not in ours]
        added = [f"{quote_plus(name)}={quote_plus(value)}".encode() for name, value in self.query]
        return b"&".join(kept + added)

    def request_headers(self, headers: Headers) -> list[tuple[bytes, bytes]]:
        """The header lines to send: `Host` first, then the app's without what must not pass, the defaults, the credential.

        Exactly one of each injected name goes out, ours, whatever spelling the app used (`_` for `-` too, attack 16), and
        whatever `Connection` names (attack 17). Framing (`Content-Length`, `Transfer-Encoding`) is the sender's: only
        `Content-Length` passes here.
        """
        out = [(b"Host", self.authority)]
        verdicts = self.policy.verdicts
        given: list[bytes] = []
        named: frozenset[bytes] = frozenset()
        for pair in headers:
            name, value = pair
            verdict = verdicts.get(name)
            if verdict is None:
                verdict = self.policy.judge(name)
            if verdict == _PASS:
                out.append(pair)
            elif verdict == _DEFAULTED:
                given.append(_normal(name))
                out.append(pair)
            elif verdict == _CONNECTION and value not in _USUAL:
                named = named | {_normal(option.strip()) for option in value.split(b",")}
        if named:
            named -= _NEVER_NAMED
            out = [pair for pair in out if _normal(pair[0]) not in named]
        for normal, name, value in self.defaults:
            if normal not in given or normal in named:
                out.append((name, value))
        out += ((name, value) for name, _, value in (line.partition(b": ") for line in self.after.split(b"\r\n")[:-1]))
        return out

    def response_block(self, line: bytes, written: list[bytes | None], fresh: list[Fresh]) -> bytes | None:
        """`response_headers` as they are written, behind the status `line`; None if something needs a closer look: a link, an
        echo, names in `Connection`. `written` has the lines that are remembered, `fresh` the others.
        """
        policy = self.policy
        back = policy.back
        new: list[tuple[bytes, bytes, bytes]] = []
        closer = False
        for at, raw, name, value, harmless in fresh:
            verdict = back.get(name)
            if verdict is None:
                verdict = policy.judge_back(name)
            out = written[at] = _written((name, value), verdict)
            if out is None:
                closer = True
            elif harmless and len(value) <= LONGEST:
                new.append((name, raw, out))
        block = b"\n".join([raw for _, raw, _ in new]) if closer else line + b"".join(written)  # type: ignore[arg-type]
        for secret in self.secrets:
            if secret in block:
                return None  # and an echo is not remembered
        for name, raw, out in new:
            policy.returned.keep(name, raw, out)
        return None if closer else block

    def passed(self, headers: Headers) -> list[tuple[bytes, bytes]]:
        """The lines of the app's that may go out beside the credential: for trailers. None replaces one of ours."""
        return [pair for pair in headers if self.policy.judge(pair[0]) == _PASS]

    def response_headers(self, headers: Headers) -> list[tuple[bytes, bytes]]:
        """The header lines to pass back, in order, duplicates kept.

        Without hop-by-hop lines, `Alt-Svc`, cookies (unless they pass), what only we may say (attack 35), and any line in
        which the upstream echoes the credential (attacks 24, 34).
        """
        verdicts = self.policy.back
        out = []
        named: frozenset[bytes] = frozenset()
        for pair in headers:
            verdict = verdicts.get(pair[0])
            if verdict is None:
                verdict = self.policy.judge_back(pair[0])
            if verdict in (_PASS, _LINK):
                out.append(pair)
            elif verdict == _CONNECTION and pair[1] not in _USUAL:
                named = named | {_normal(option.strip()) for option in pair[1].split(b",")}
        if named:
            named -= _NEVER_NAMED
            out = [pair for pair in out if _normal(pair[0]) not in named]
        if self.echoes(b"\n".join([value for _, value in headers])):
            out = [pair for pair in out if not self.echoes(pair[1])]
        return out

    def echoes(self, text: bytes) -> bool:
        """Whether the upstream says the credential in it."""
        return any([secret in text for secret in self.secrets])  # noqa: C419 - a list is half the price of a generator


def _written(pair: tuple[bytes, bytes], verdict: int) -> bytes | None:
    """A line as it is written, `b""` if it is dropped; None if name and value alone don't settle it."""
    if verdict == _CONNECTION:
        return b"" if pair[1] in _USUAL else None
    if verdict == _LINK:
        return None
    return b"" if verdict == _DROP else pair[0] + b": " + pair[1] + b"\r\n"  # half the price of a format


_DROP, _PASS, _DEFAULTED, _CONNECTION, _LINK = range(5)
_NEVER = CREDENTIALS | CONTROL | FORWARDING | HOP_BY_HOP | {b"host"}
_USUAL = frozenset((b"keep-alive", b"Keep-Alive", b"close"))
"""What Connection says nearly always; it names no field that is not dropped anyway."""
_NEVER_NAMED = frozenset((b"host", b"content-length"))
"""What Connection can't take away: without its length a body would be read as the next message."""
_MOST_VERDICTS = 512
_LONGEST_VERDICT = 64
_NOT_BACK = HOP_BY_HOP | {b"alt-svc", b"proxy-authenticate", b"proxy-authorization"}
_SHORTEST_TRACE = 8


@lru_cache(maxsize=1024)
def _normal(name: bytes) -> bytes:
    return name.lower().replace(b"_", b"-")


def _traces(injected: Iterable[tuple[bytes, bytes]], query: Iterable[tuple[str, str]]) -> tuple[bytes, ...]:
    """What an echo of the credential would contain: the value, and what follows a scheme word (`Bearer `)."""
    values = [value.rpartition(b" ")[2] for _, value in injected]
    for _, value in query:
        values += [value.encode("latin-1"), quote_plus(value).encode()]
    return tuple(dict.fromkeys(value for value in values if len(value) >= _SHORTEST_TRACE))
