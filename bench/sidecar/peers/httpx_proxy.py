"""A sidecar as one writes it with Starlette and httpx. Arguments: port, upstream's URL, file of tokens, CA."""

import json
import ssl
import sys
from pathlib import Path

import httpx
import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response, StreamingResponse
from starlette.routing import Route

PORT, UPSTREAM, TOKENS, CA = sys.argv[1:]
HOP = frozenset(
    (b"connection", b"keep-alive", b"transfer-encoding", b"te", b"trailer", b"upgrade", b"host", b"authorization")
)
tokens = json.loads(Path(TOKENS).read_text())
client = httpx.AsyncClient(
    verify=ssl.create_default_context(cafile=CA), limits=httpx.Limits(max_connections=256, max_keepalive_connections=256),
    timeout=60,
)  # fmt: skip


async def handle(request: Request) -> Response:
    parts = request.scope["raw_path"].decode().split("/", 3)
    token = tokens.get(parts[1][1:])
    if token is None or len(parts) < 4:
        return PlainTextResponse("denied", 403)
    headers = [(k, v) for k, v in request.headers.raw if k not in HOP]
    headers.append((b"authorization", b"Bearer " + token.encode()))
    body = request.stream() if "content-length" in request.headers or "transfer-encoding" in request.headers else None
    asked = client.build_request(request.method, f"{UPSTREAM}/{parts[3]}", headers=headers, content=body)
    got = await client.send(asked, stream=True)
    answer = StreamingResponse(got.aiter_raw(), got.status_code)
    answer.raw_headers = [(k, v) for k, v in got.headers.raw if k.lower() not in HOP]
    answer.background = None

    async def stream():
        try:
            async for piece in got.aiter_raw():
                yield piece
        finally:
            await got.aclose()

    answer.body_iterator = stream()
    return answer


app = Starlette(routes=[Route("/{rest:path}", handle, methods=["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE"])])
uvicorn.run(app, host="127.0.0.1", port=int(PORT), loop="uvloop", http="httptools", access_log=False, log_level="error")
