"""Vendors' APIs, as far as their SDKs' tests go: each answers one recorded request in the vendor's own shape.

Where the vendor writes absolute URLs (`Link`, `Location`, fields of bodies), so do these, with the vendor's own name.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from email.parser import BytesParser
from typing import Any
from urllib.parse import parse_qs, urlsplit

from tests.sidecar.harness import Got

Vendor = Callable[[Got], bytes]


def reply(status: int, document: object, *lines: str) -> bytes:
    """JSON on the wire, with further header lines."""
    body = json.dumps(document).encode()
    head = [f"HTTP/1.1 {status} X", "Content-Type: application/json", f"Content-Length: {len(body)}", *lines]
    return "\r\n".join(head).encode() + b"\r\n\r\n" + body


def asked(got: Got) -> tuple[str, str, dict[str, str]]:
    """Method, path and query of a request; of repeated parameters the last."""
    method, target, _ = got.line.decode().split(" ")
    parts = urlsplit(target)
    return method, parts.path, {name: values[-1] for name, values in parse_qs(parts.query).items()}


def parts_of(got: Got) -> list[bytes]:
    """The payloads of a multipart body."""
    head = b"Content-Type: " + got.all(b"content-type")[0] + b"\r\n\r\n"
    return [part.get_payload(decode=True) for part in BytesParser().parsebytes(head + got.body).get_payload()]  # type: ignore[union-attr, misc]


def github(own: str) -> Vendor:
    """GitHub's: pages by `Link` to /repositories/1, a repository that moved, GraphQL. `own` is its base URL."""

    def answer(got: Got) -> bytes:
        method, path, query = asked(got)
        match method, path:
            case "GET", "/user":
                return reply(200, {"login": "octo", "id": 1, "url": f"{own}/users/octo"})
            case "GET", "/repos/o/r/issues" | "/repositories/1/issues":
                return issues(int(query.get("page", "1")), query)
            case "POST", "/repos/o/r/issues":
                made = issue(7, json.loads(got.body)["title"])
                return reply(201, made, f"Location: {own}/repos/o/r/issues/7")
            case "GET", "/repos/o/old":
                where = f"{own}/repositories/1"
                return reply(301, {"message": "Moved Permanently", "url": where}, f"Location: {where}")
            case "GET", "/repositories/1" | "/repos/o/r":
                return reply(200, {"id": 1, "name": "r", "full_name": "o/r", "url": f"{own}/repos/o/r"})
            case "POST", "/graphql":
                return reply(200, {"data": {"viewer": {"login": "octo"}}})
        return reply(
            404, {"message": "Not Found", "documentation_url": "https://docs.github.com/rest", "status": "404"}
        )

    def issue(number: int, title: str) -> dict[str, Any]:
        return {"id": number, "number": number, "title": title, "url": f"{own}/repos/o/r/issues/{number}"}

    def issues(page: int, query: dict[str, str]) -> bytes:
        first = 2 * page - 1
        rest = "&".join(f"{name}={value}" for name, value in query.items() if name != "page")
        links = [f'<{own}/repositories/1/issues?{rest}&page=3>; rel="last"']
        if page < 3:
            links.insert(0, f'<{own}/repositories/1/issues?{rest}&page={page + 1}>; rel="next"')
        found = [issue(number, "t") for number in (first, first + 1)]
        return reply(200, found, "Link: " + ", ".join(links), "X-RateLimit-Remaining: 4999")

    return answer


def slack(own: str) -> Vendor:
    """Slack's, below /api: pages by cursors, uploads to a signed URL of `own`, a limit once (`limited`)."""
    limited = [True]

    def answer(got: Got) -> bytes:
        _, path, query = asked(got)
        form = {name: values[-1] for name, values in parse_qs(got.body.decode("latin-1")).items()} | query
        match path:
            case "/api/conversations.list":
                last = form.get("cursor") == "two"
                following = {"next_cursor": "" if last else "two"}
                found = [{"id": "C2" if last else "C1"}]
                return reply(200, {"ok": True, "channels": found, "response_metadata": following})
            case "/api/chat.postMessage" if limited.pop() if limited else False:
                return reply(429, {"ok": False, "error": "ratelimited"}, "Retry-After: 1")
            case "/api/chat.postMessage":
                text = json.loads(got.body)["text"] if got.body.startswith(b"{") else form["text"]
                return reply(200, {"ok": True, "ts": "1.2", "message": {"text": text}})
            case "/api/files.getUploadURLExternal":
                return reply(200, {"ok": True, "upload_url": f"{own}/upload/v1/signed", "file_id": "F1"})
            case "/upload/v1/signed":
                return b"HTTP/1.1 200 X\r\nContent-Type: text/plain\r\nContent-Length: 2\r\n\r\nOK"
            case "/api/files.completeUploadExternal":
                return reply(200, {"ok": True, "files": [{"id": "F1", "title": "a.txt"}]})
        return reply(200, {"ok": False, "error": "unknown_method"})

    return answer


def jira(own: str) -> Vendor:
    """Jira's, below /ex/jira/c1: pages by tokens, an issue made, an attachment."""
    base = "/ex/jira/c1/rest/api/"

    def answer(got: Got) -> bytes:
        method, path, query = asked(got)
        if not path.startswith(base):
            return reply(404, {"errorMessages": ["no such site"]})
        body = got.body
        match method, path.removeprefix(base).partition("/")[2]:
            case "GET", "issue/K-1":
                return reply(200, {"id": "1", "key": "K-1", "self": f"{own}{path}", "fields": {"summary": "s"}})
            case "GET" | "POST", "search/jql":
                last = query.get("nextPageToken") == "two" or b'"two"' in body
                following = {"isLast": True} if last else {"isLast": False, "nextPageToken": "two"}
                return reply(200, {"issues": [{"key": "K-2" if last else "K-1"}], **following})
            case "POST", "issue":
                made = f"{own}{base}2/issue/9"
                return reply(201, {"id": "9", "key": "K-9", "self": made}, f"Location: {made}")
            case "POST", "issue/K-1/attachments":
                return reply(200, [{"filename": "a.txt", "size": len(parts_of(got)[0])}])
        return reply(404, {"errorMessages": ["Issue does not exist"], "errors": {}})

    return answer


def notion(own: str) -> Vendor:
    """Notion's: search, pages by cursors, a file."""

    def answer(got: Got) -> bytes:
        method, path, query = asked(got)
        match method, path:
            case "POST", "/v1/search":
                return reply(200, {"object": "list", "results": [{"object": "page", "id": "p1"}], "has_more": False})
            case "GET", "/v1/blocks/p1/children":
                start = int(query.get("start_cursor", "1"))
                found = [{"object": "block", "id": f"b{number}"} for number in (start, start + 1)]
                following = str(start + 2) if start < 4 else None
                return reply(
                    200,
                    {"object": "list", "results": found, "has_more": following is not None, "next_cursor": following},
                )
            case "POST", "/v1/file_uploads":
                return reply(200, {"object": "file_upload", "id": "u1", "upload_url": f"{own}/v1/file_uploads/u1/send"})
            case "POST", "/v1/file_uploads/u1/send":
                whole = len(parts_of(got)[0]) == 300_000
                return reply(200, {"object": "file_upload", "id": "u1", "status": "uploaded" if whole else "failed"})
        return reply(404, {"object": "error", "status": 404, "code": "object_not_found", "message": "no"})

    return answer


def stripe(own: str) -> Vendor:
    """Stripe's: pages by the last id, a form."""

    def answer(got: Got) -> bytes:
        method, path, query = asked(got)
        match method, path:
            case "GET", "/v1/customers":
                start = int(query.get("starting_after", "cus_0").removeprefix("cus_"))
                found = [{"id": f"cus_{number}", "object": "customer"} for number in (start + 1, start + 2)]
                return reply(200, {"object": "list", "url": path, "data": found, "has_more": start < 4})
            case "POST", "/v1/customers":
                form = parse_qs(got.body.decode())
                assert form["metadata[plan]"] == ["Ä & b"]
                return reply(200, {"id": "cus_9", "object": "customer", "email": form["email"][0]})
        missing = {"type": "invalid_request_error", "code": "resource_missing", "message": f"No such: {own}"}
        return reply(404, {"error": missing})

    return answer
