"""A sidecar as an addon of mitmproxy. The file of tokens is named by TOKENS."""

import json
import os
from pathlib import Path

from mitmproxy import http

tokens = json.loads(Path(os.environ["TOKENS"]).read_text())


def requestheaders(flow: http.HTTPFlow) -> None:
    parts = flow.request.path.split("/", 3)
    token = tokens.get(parts[1][1:])
    if token is None or len(parts) < 4:
        flow.response = http.Response.make(403, b"denied")
        return
    flow.request.path = "/" + parts[3]
    flow.request.headers["Authorization"] = f"Bearer {token}"
