"""The official Notion client, through the sidecar: only the base URL and the token are other than usual.

Reads NOTION_BASE_URL (http://127.0.0.1:15001/~TENANT/CREDENTIAL), APP_KEY_FILE (a key of the role `app`), and NOTION_PATH
(below /v1/; `users/me`, or `whoami` against the demo's simulated provider).
"""

from __future__ import annotations

import os
from pathlib import Path

from notion_client import Client


def main() -> None:
    """Say who the tenant is at Notion."""
    app_key = Path(os.environ["APP_KEY_FILE"]).read_text().strip()
    notion = Client(auth=app_key, base_url=os.environ.get("NOTION_BASE_URL", "http://127.0.0.1:15001/~acme/notion"))
    print(notion.request(path=os.environ.get("NOTION_PATH", "users/me"), method="GET"))


if __name__ == "__main__":
    main()
