"""Vendors' own SDKs through the sidecar, with nothing changed but their base URL and their token. Notion's for Python apart."""

from __future__ import annotations

import asyncio
import base64
import json
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import github
import githubkit
import pytest
import pytest_asyncio
import slack_sdk
from atlassian import Jira
from githubkit.exception import RequestFailed
from slack_sdk.http_retry.builtin_handlers import RateLimitErrorRetryHandler

from tests.oidc.harness import INSTALL_DEADLINE, NODE, install
from tests.sidecar import vendors
from tests.sidecar.harness import Got, World, world

SDKS = Path(__file__).parents[1] / "sdks"
NODE_DEADLINE = 60.0
node = pytest.mark.timeout(INSTALL_DEADLINE + 2 * NODE_DEADLINE)
"""The first of them installs the SDKs, and others wait for that."""


def play(w: World, vendor: Callable[[str], vendors.Vendor], base_path: str = "", scheme: str = "Bearer") -> None:
    """Let the provider be that vendor, and acme's credential `notes` one of it."""
    own = f"http://127.0.0.1:{w.provider.port}"
    answer = vendor(own)

    async def reply(got: Got, _writer: Any) -> bytes:
        return answer(got)

    w.provider.reply = reply
    lease = w.connect(base_url=own + base_path)
    token = lease.headers[0].value.removeprefix("Bearer ")
    if scheme == "Basic":
        token = base64.b64encode(f"{token}:".encode()).decode()
    lease.headers[0].value = f"{scheme} {token}"


def base_url(w: World) -> str:
    """What an SDK is given."""
    return f"http://{w.address}/~acme/notes"


def check(w: World, *, without: str = "") -> None:
    """Every request had the tenant's credential, once, and nothing of ours; those below `without` had none at all."""
    assert w.provider.got
    for got in w.provider.got:
        elsewhere = without and got.line.split(b" ")[1].startswith(without.encode())
        assert got.all(b"authorization") == ([] if elsewhere else [w.token()]), got.line
        assert w.key.text.encode() not in got.head + got.body
        assert b"/~" not in got.head
        assert b"connectors" not in got.head.lower().replace(b"connectors-sdks", b"")


async def run_node(script: str, url: str, key: str) -> dict[str, Any]:
    """What a script of tests/sdks says."""
    await install(SDKS)
    process = await asyncio.create_subprocess_exec(
        NODE, SDKS / script, stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE, env={},
    )  # fmt: skip
    try:
        async with asyncio.timeout(NODE_DEADLINE):
            out, err = await process.communicate(json.dumps({"baseUrl": url, "key": key}).encode())
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    assert process.returncode == 0, err.decode()
    found: dict[str, Any] = json.loads(out)
    return found


# --- Python


async def test_slacks_sdk_walks_pages_and_posts_and_waits_as_slack_says(w: World) -> None:
    """Cursors, a message, and Slack's own 429 with its Retry-After, which the SDK's own handler obeys."""
    play(w, vendors.slack, "/api")

    def use() -> tuple[list[str], Any]:
        client = slack_sdk.WebClient(token=w.key.text, base_url=f"{base_url(w)}/")
        client.retry_handlers.append(RateLimitErrorRetryHandler(max_retry_count=1))
        found = [channel["id"] for page in client.conversations_list(limit=1) for channel in page["channels"]]
        return found, client.chat_postMessage(channel="C1", text="Ä & b")

    found, posted = await asyncio.to_thread(use)
    assert found == ["C1", "C2"]
    assert posted["message"]["text"] == "Ä & b"
    check(w)


async def test_slacks_upload_goes_to_its_signed_url_without_any_credential(w: World) -> None:
    """The URL stands in a body, is not rewritten and needs no token: neither the tenant's nor the app's goes there."""
    play(w, vendors.slack, "/api")

    def use() -> Any:
        client = slack_sdk.WebClient(token=w.key.text, base_url=f"{base_url(w)}/")
        return client.files_upload_v2(channel="C1", content="x" * 100_000, filename="a.txt")

    assert (await asyncio.to_thread(use))["files"][0]["id"] == "F1"
    check(w, without="/upload/")
    sent = next(got for got in w.provider.got if b"/upload/" in got.line)
    assert sent.body.count(b"x") >= 100_000


async def test_pygithub_walks_pages_by_link_and_follows_a_move(w: World) -> None:
    """Absolute Link and Location URLs of the vendor come back as the sidecar's, which PyGithub insists on."""
    play(w, vendors.github)

    def use() -> tuple[str, list[int], int, str]:
        auth = github.Auth.Token(w.key.text)
        with github.Github(auth=auth, base_url=base_url(w), per_page=2, retry=None, lazy=True) as client:
            repository = client.get_repo("o/r")
            issues = [issue.number for issue in repository.get_issues()]
            made = repository.create_issue("Ä")
            return client.get_user().login, issues, client.get_repo("o/old").id, made.title

    assert await asyncio.to_thread(use) == ("octo", [1, 2, 3, 4, 5, 6], 1, "Ä")
    check(w)


async def test_pygithub_never_follows_a_bodys_url_past_the_sidecar(w: World) -> None:
    """A repository that is not lazy takes its URL from the body: the SDK refuses to send anything there."""
    play(w, vendors.github)

    def use() -> None:
        with github.Github(auth=github.Auth.Token(w.key.text), base_url=base_url(w), retry=None) as client:
            repository = client.get_repo("o/r")
            with pytest.raises(AssertionError):
                list(repository.get_issues())

    await asyncio.to_thread(use)
    assert [got.line.split(b" ")[1] for got in w.provider.got] == [b"/repos/o/r"]
    check(w)


async def test_githubkit_works_unchanged(w: World) -> None:
    """Its asynchronous half: pages, a move, an issue, GraphQL, GitHub's own 404."""
    play(w, vendors.github)
    async with githubkit.GitHub(w.key.text, base_url=base_url(w), http_cache=False, trust_env=False) as client:
        me = await client.arequest("GET", "/user")
        found = await client.arequest("GET", "/repos/o/r/issues", params={"per_page": 2})
        following = found.raw_response.links["next"]["url"]
        more = await client.arequest("GET", following)
        moved = await client.arequest("GET", "/repos/o/old")
        viewer = await client.graphql.arequest("{ viewer { login } }")
        with pytest.raises(RequestFailed) as caught:
            await client.arequest("GET", "/repos/o/nothing")
    assert me.json()["login"] == "octo"
    assert following.startswith(base_url(w) + "/")
    assert [issue["number"] for issue in found.json() + more.json()] == [1, 2, 3, 4]
    assert moved.json()["id"] == 1
    assert viewer["viewer"]["login"] == "octo"
    assert caught.value.response.status_code == 404
    check(w)


@pytest.mark.parametrize("shown", ["bearer", "basic"])
async def test_jiras_client_works_unchanged(w: World, shown: str, tmp_path: Path) -> None:
    """The app's key as a token, or as Basic's password as Jira Cloud wants it; a page walk, an issue, an attachment."""
    play(w, vendors.jira, "/ex/jira/c1", "Basic" if shown == "basic" else "Bearer")
    (tmp_path / "a.txt").write_text("y" * 50_000)
    login: dict[str, Any] = (
        {"token": w.key.text} if shown == "bearer" else {"username": "me@example.com", "password": w.key.text}
    )

    def use() -> tuple[str, list[str], str, Any]:
        client = Jira(url=base_url(w), cloud=True, **login)
        keys: list[str] = []
        following: str | None = None
        while True:
            page = client.enhanced_jql("project = K", nextPageToken=following)
            keys += [issue["key"] for issue in page["issues"]]
            following = page.get("nextPageToken")
            if following is None:
                break
        made = client.issue_create({"summary": "Ä"})
        attached = client.add_attachment("K-1", str(tmp_path / "a.txt"))
        summary = client.issue("K-1")["fields"]["summary"]
        client.close()
        return summary, keys, made["key"], attached

    summary, keys, made, attached = await asyncio.to_thread(use)
    assert (summary, keys, made) == ("s", ["K-1", "K-2"], "K-9")
    assert attached[0]["size"] == 50_000
    check(w)


# --- Node


@node
async def test_notions_sdk_for_node_works_unchanged(w: World) -> None:
    """Search, a page walk, a file by multipart, Notion's own 404."""
    play(w, vendors.notion)
    found = await run_node("notion.mjs", base_url(w), w.key.text)
    blocks = ["b1", "b2", "b3", "b4", "b5", "b6"]
    assert found == {"found": 1, "blocks": blocks, "sent": "uploaded", "missing": "object_not_found"}
    check(w)


@node
async def test_octokit_works_unchanged(w: World) -> None:
    """It follows absolute Link URLs and redirects as they are written: they must lead back to the sidecar."""
    play(w, vendors.github)
    found = await run_node("octokit.mjs", base_url(w), w.key.text)
    assert found == {
        "me": "octo",
        "issues": [1, 2, 3, 4, 5, 6],
        "made": f"{base_url(w)}/repos/o/r/issues/7",
        "moved": 1,
        "viewer": "octo",
        "missing": 404,
    }
    check(w)


@pytest_asyncio.fixture
async def fixed() -> AsyncIterator[World]:
    """With a listener of its own for acme/notes."""
    async with world(fixed=("acme", "notes")) as running:
        yield running


@node
async def test_stripes_sdk_for_node_works_by_a_port_of_its_own(fixed: World) -> None:
    """It takes no path in its base URL: pages, a form, Stripe's own 404, with the path untouched."""
    play(fixed, vendors.stripe, scheme="Basic")
    found = await run_node("stripe.mjs", f"http://{fixed.all_addresses[1]}", fixed.key.text)
    customers = [f"cus_{number}" for number in range(1, 7)]
    assert found == {"customers": customers, "made": "a@example.com", "missing": "resource_missing"}
    check(fixed)


# --- links, by every address


@pytest.mark.parametrize("way", ["path", "header", "bound key", "port"])
async def test_links_lead_back_the_way_the_app_came(fixed: World, way: str) -> None:
    """Link, Location and Content-Location that point at the API; the app follows each and arrives with the credential."""
    w = fixed
    own = f"http://127.0.0.1:{w.provider.port}"
    w.connect(base_url=f"{own}/api")
    bound = type(w.key).of("bound")
    w.server.allow(bound, ["acme"], ["*"])
    address, prefix, lines = {
        "path": (w.address, "/~acme/notes", w.key.bearer),
        "header": (w.address, "/notes", w.key.bearer + b"X-Tenant-Id: acme\r\n"),
        "bound key": (w.address, "/notes", bound.bearer),
        "port": (w.all_addresses[1], "", w.key.bearer),
    }[way]
    head = (
        f'HTTP/1.1 201 X\r\nLink: <{own}/api/a?page=2>; rel="next", <https://docs.example.com/x>; rel="help"\r\n'
        f"Location: {own}/api/b\r\nContent-Location: /api/c\r\nContent-Length: 0\r\n\r\n"
    )
    w.provider.replies = [head.encode()]

    async def ask(path: str) -> Any:
        app = await w.app(address)
        return await app.ask(b"GET %b HTTP/1.1\r\nHost: %b\r\n%b\r\n" % (path.encode(), address.encode(), lines))

    answer = await ask(f"{prefix}/start")
    ours = f"http://{address}{prefix}"
    assert answer.all(b"Link") == [f'<{ours}/a?page=2>; rel="next", <https://docs.example.com/x>; rel="help"'.encode()]
    assert answer.all(b"Location") == [f"{ours}/b".encode()]
    assert answer.all(b"Content-Location") == [f"{ours}/c".encode()]
    for path in ("/a?page=2", "/b", "/c"):
        assert (await ask(prefix + path)).status == 200
        assert w.provider.got[-1].line == f"GET /api{path} HTTP/1.1".encode()
        assert w.provider.got[-1].all(b"authorization") == [w.token()]
