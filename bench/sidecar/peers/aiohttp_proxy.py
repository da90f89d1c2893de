"""A sidecar as one writes it with aiohttp. Arguments: port, upstream's URL, file of tokens, CA."""

import json
import ssl
import sys
from pathlib import Path

import aiohttp
import uvloop
from aiohttp import web
from multidict import CIMultiDict
from yarl import URL

PORT, UPSTREAM, TOKENS, CA = sys.argv[1:]
HOP = frozenset(("connection", "keep-alive", "transfer-encoding", "te", "trailer", "upgrade", "host", "authorization"))
tokens = json.loads(Path(TOKENS).read_text())


async def handle(request: web.Request) -> web.StreamResponse:
    parts = request.raw_path.split("/", 3)
    token = tokens.get(parts[1][1:])
    if token is None or len(parts) < 4:
        return web.Response(status=403, text="denied")
    headers = CIMultiDict((k, v) for k, v in request.headers.items() if k.lower() not in HOP)
    headers["Authorization"] = f"Bearer {token}"
    body = request.content if request.body_exists else None
    url = URL(f"{UPSTREAM}/{parts[3]}", encoded=True)
    async with request.app["client"].request(
        request.method, url, headers=headers, data=body, allow_redirects=False
    ) as got:
        answer = web.StreamResponse(
            status=got.status, headers=CIMultiDict((k, v) for k, v in got.headers.items() if k.lower() not in HOP)
        )
        await answer.prepare(request)
        async for piece in got.content.iter_any():
            await answer.write(piece)
        await answer.write_eof()
        return answer


async def client(app: web.Application):
    context = ssl.create_default_context(cafile=CA) if UPSTREAM.startswith("https") else False
    connector = aiohttp.TCPConnector(limit=256, ssl=context)
    timeout = aiohttp.ClientTimeout(total=60)
    async with aiohttp.ClientSession(connector=connector, auto_decompress=False, timeout=timeout) as session:
        app["client"] = session
        yield


def main() -> None:
    app = web.Application(client_max_size=1 << 30)
    app.cleanup_ctx.append(client)
    app.router.add_route("*", "/{rest:.*}", handle)
    web.run_app(app, host="127.0.0.1", port=int(PORT), access_log=None, print=None, loop=uvloop.new_event_loop())


main()
