"""`connectors simulate` as a person runs it: a process, its options, its file, and what it says of itself."""

from __future__ import annotations

import asyncio
import contextlib
import json
import shlex
import sys
from collections.abc import AsyncIterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from threading import Barrier
from typing import Any
from urllib.parse import parse_qs, urlsplit

import httpx2
import pytest
from click.testing import CliRunner

from connectors_grpc.cli.main import root
from connectors_grpc.cli.simulate import kept_secret
from connectors_grpc.cli.simulated import command, definition, introduction
from connectors_grpc.simulator import (
    Client,
    Endpoint,
    Habit,
    Misbehaviour,
    RotatingAtOnce,
    RotatingWithGrace,
    Rotation,
    Static,
    fingerprint,
)
from connectors_grpc.simulator.config import ConfigInvalid, parse_lifetime, parse_rotation, read_config
from connectors_grpc.simulator.misbehaviour import draw
from tests.api.test_import import command as connectors
from tests.running import Server, fresh_id

CALLBACK = "http://127.0.0.1:3000/oauth/callback/demo"


@dataclass(frozen=True)
class Simulated:
    """One that runs, an HTTP client for it, and its client's secret."""

    url: str
    http: httpx2.AsyncClient
    secret: str
    child: asyncio.subprocess.Process

    async def line(self) -> str:
        """What it says next."""
        assert self.child.stdout is not None
        return (await asyncio.wait_for(self.child.stdout.readline(), 60)).decode().rstrip("\n")

    async def code(self) -> str:
        """A code, consented to at once."""
        query = {"client_id": "demo-client", "redirect_uri": CALLBACK, "response_type": "code", "state": "s"}
        reply = await self.http.get("/authorize", params=query)
        return parse_qs(urlsplit(reply.headers["location"]).query)["code"][0]

    async def token(self, **fields: str) -> httpx2.Response:
        """A token request."""
        who = {"client_id": "demo-client"} | ({"client_secret": self.secret} if self.secret else {})
        return await self.http.post("/token", data=who | fields)

    async def exchanged(self) -> dict[str, Any]:
        """The tokens of one flow."""
        sent = {"grant_type": "authorization_code", "code": await self.code(), "redirect_uri": CALLBACK}
        reply = await self.token(**sent)
        assert reply.status_code == 200, reply.text
        document: dict[str, Any] = reply.json()
        return document

    async def refreshed(self, refresh_token: str) -> httpx2.Response:
        """A refresh."""
        return await self.token(grant_type="refresh_token", refresh_token=refresh_token)


@contextlib.asynccontextmanager
async def simulated(folder: Path, *options: str) -> AsyncIterator[Simulated]:
    """The process, on any free port."""
    child = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "connectors_grpc", "simulate", "--listen", "127.0.0.1:0", *options,
        cwd=folder, stdout=asyncio.subprocess.PIPE,
    )  # fmt: skip
    assert child.stdout is not None
    try:
        first = (await asyncio.wait_for(child.stdout.readline(), 60)).decode()
        assert first.startswith("ready http://127.0.0.1:"), first
        url, file = first.split()[1], folder / "simulator.secret"
        async with httpx2.AsyncClient(base_url=url, trust_env=False, timeout=20) as http:
            yield Simulated(url, http, file.read_text() if file.exists() else "", child)
    finally:
        child.terminate()
        await asyncio.wait_for(child.wait(), 60)


def test_all_who_begin_at_once_keep_one_secret(tmp_path: Path) -> None:
    """Nobody reads a file that another is still writing, and none of it is left beside the file."""
    with ThreadPoolExecutor(8) as pool:
        for number in range(40):
            path, together = tmp_path / str(number), Barrier(8)

            def begin(path: Path = path, together: Barrier = together) -> str:
                together.wait(20)
                return kept_secret(path)

            kept = {each.result() for each in [pool.submit(begin) for _ in range(8)]}
            assert kept == {path.read_text()}
            assert path.stat().st_mode & 0o777 == 0o600
    assert len(list(tmp_path.iterdir())) == 40


async def test_two_runs_with_one_seed_give_the_same_tokens_and_go_wrong_alike(tmp_path: Path) -> None:
    """Requests being the same; another seed gives others, and no seed what nobody foretells."""

    async def run(*options: str) -> list[object]:
        habits = ("--misbehave", "unavailable:0.2", "--misbehave", "rate-limited:0.2")
        async with simulated(tmp_path, "--auto-consent", "--no-pkce", *habits, *options) as sim:
            seen: list[object] = [(await sim.token(grant_type="client_credentials")).text for _ in range(20)]
            return [*seen, await sim.code()]

    first, second, other, none = await asyncio.gather(run("--seed", "7"), run("--seed", "7"), run("--seed", "8"), run())
    assert first == second
    assert first != other
    assert not {text for text in first if "sim_at_" in str(text)} & set(none)
    assert {json.loads(str(text)).get("error", "") for text in first[:-1]} == {
        "",
        "temporarily_unavailable",
        "rate_limited",
    }


async def test_the_record_shows_fingerprints_and_never_a_value(tmp_path: Path) -> None:
    """Of the client's secret, the code, the tokens: names, and the first digits of their SHA-256."""
    async with simulated(tmp_path, "--auto-consent", "--no-pkce", "--account", "carol") as sim:
        tokens = await sim.exchanged()
        headers = {"Authorization": f"Bearer {tokens['access_token']}"}
        assert (await sim.http.get("/v1/whoami?q=canary-query", headers=headers)).json()["account"] == "carol"
        shown = (await sim.http.get("/-/record")).text
        for value in (sim.secret, tokens["access_token"], tokens["refresh_token"], "canary-query"):
            assert value not in shown
        last = json.loads(shown)["requests"][-1]
        assert last["credential_fingerprint"] == fingerprint(tokens["access_token"])
        assert (last["account"], last["status"]) == ("carol", 200)


async def test_options_say_how_tokens_live_and_die(tmp_path: Path) -> None:
    """Static refresh tokens, no expires_in, and a refresh that ends the token before it."""
    options = ("--rotation", "static", "--omit-expires-in", "--refresh-kills-access-token", "--public")
    async with simulated(tmp_path, "--auto-consent", "--no-pkce", *options) as sim:
        tokens = await sim.exchanged()
        assert "expires_in" not in tokens
        renewed = (await sim.refreshed(tokens["refresh_token"])).json()
        assert "refresh_token" not in renewed
        assert (await sim.refreshed(tokens["refresh_token"])).status_code == 200
        for token, status in ((tokens, 401), (renewed, 401)):
            headers = {"Authorization": f"Bearer {token['access_token']}"}
            assert (await sim.http.get("/v1/whoami", headers=headers)).status_code == status
    assert not (tmp_path / "simulator.secret").exists()


async def test_reuse_of_a_refresh_token_revokes_the_family_unless_told_otherwise(tmp_path: Path) -> None:
    """The default is the strictest; and `unauthorized@api` goes wrong where it was told to."""
    async with simulated(tmp_path, "--auto-consent", "--no-pkce", "--misbehave", "unauthorized@api") as sim:
        tokens = await sim.exchanged()
        renewed = (await sim.refreshed(tokens["refresh_token"])).json()
        assert (
            await sim.http.get("/v1/whoami", headers={"Authorization": f"Bearer {renewed['access_token']}"})
        ).json()["error"] == "invalid_token"
        assert (await sim.refreshed(tokens["refresh_token"])).json()["error"] == "invalid_grant"
        assert (await sim.refreshed(renewed["refresh_token"])).json()["error"] == "invalid_grant"


async def test_a_file_says_how_each_client_is_treated_and_the_state_survives(tmp_path: Path) -> None:
    """Secrets come from files beside it, made where there are none; tokens go on working after a restart."""
    (tmp_path / "c.yaml").write_text(
        "accounts: [{name: carol}]\n"
        "clients:\n"
        f"  - {{client_id: demo-client, client_secret_file: simulator.secret, redirect_uris: ['{CALLBACK}'],\n"
        "     require_pkce: false, rotation: 'grace:until-used', access_lifetime: 60, extra_reply: {team: T1}}\n"
        "  - {client_id: spa, public: true, misbehave: ['unavailable:0.5']}\n"
    )
    options = ("--config", "c.yaml", "--auto-consent", "--state-file", "s.json")
    async with simulated(tmp_path, *options) as sim:
        tokens = await sim.exchanged()
        assert (tokens["expires_in"], tokens["team"]) == (60, "T1")
        assert (tmp_path / "simulator.secret").stat().st_mode & 0o077 == 0
    async with simulated(tmp_path, *options) as sim:
        headers = {"Authorization": f"Bearer {tokens['access_token']}"}
        assert (await sim.http.get("/v1/whoami", headers=headers)).json()["account"] == "carol"
        assert (await sim.refreshed(tokens["refresh_token"])).status_code == 200
        assert (await sim.refreshed(tokens["refresh_token"])).status_code == 200


async def test_the_command_that_it_prints_makes_the_integration(server: Server, tmp_path: Path) -> None:
    """As it is, by flags and by file; and the platform takes the definition as the simulator's."""
    secret, file = tmp_path / "simulator.secret", tmp_path / "definition.json"
    for options in ((), ("--definition-file", str(file), "--rotation", "grace:30", "--refresh-lifetime", "86400")):
        name = fresh_id("sim")
        uri = f"{server.http_url}/oauth/callback/{name}"
        async with simulated(tmp_path, "--client-secret-file", str(secret), "--redirect-uri", uri, *options) as sim:
            said = ""
            while not said.startswith("  connectors integration create"):
                said = await sim.line()
        code, out, err = await connectors(server, *shlex.split(said)[1:], "--json")
        assert code == 0, err
        made = json.loads(out)
        assert (made["id"], made["api"]["baseUrl"]) == (name, sim.url)
        assert made["oauthClient"]["clientId"] == "demo-client"
    assert made["oauth"]["refreshRotation"] == "REFRESH_ROTATION_WITH_GRACE"
    assert made["oauth"]["refreshTokenIdleTtl"] == "86400s"


@pytest.mark.parametrize(
    ("yaml", "wanted"),
    [
        ("", "valid dictionary"),
        ("clients: []", "clients: "),
        ("[", "not YAML"),
        ("clients: [{client_id: a}]", "clients.0: either client_secret_file or public: true is wanted"),
        ("clients: [{client_id: a, public: true, nonsense: 1}]", "clients.0.nonsense: "),
        ("clients: [{client_id: a, public: true, rotation: sometimes}]", "clients.0.rotation: static, at-once"),
        ("clients: [{client_id: a, public: true, access_lifetime: 0}]", "clients.0.access_lifetime: seconds"),
        ("clients: [{client_id: a, public: true, refresh_lifetime: soon}]", "clients.0.refresh_lifetime: seconds"),
        ("clients: [{client_id: a, public: true, misbehave: [sulk]}]", "clients.0.misbehave: a kind is wanted"),
        ("clients: [{client_id: a, public: true, misbehave: ['hang:0.6', 'slow_down:0.6']}]", "clients.0: the rates"),
        ("clients: [{client_id: a, public: true, misbehave: hang}]", "clients.0.misbehave: a list"),
        ("clients: [{client_id: a, public: true, require_pkce: perhaps}]", "clients.0.require_pkce: "),
        ("clients: [{client_id: a, public: true}]\naccounts: [{name: ''}]", "accounts.0.name: "),
        ("clients: [{client_id: a, client_secret: canary-in-file}]", "clients.0.client_secret: "),
    ],
)
def test_a_file_that_cannot_be_used_names_the_field_and_no_value(tmp_path: Path, yaml: str, wanted: str) -> None:
    """Exit code 2; what stands in the file is not repeated."""
    file = tmp_path / "c.yaml"
    file.write_text(yaml)
    result = CliRunner().invoke(root, ["simulate", "--config", str(file)])
    assert result.exit_code == 2
    assert wanted in result.output
    assert "canary-in-file" not in result.output
    with pytest.raises(ConfigInvalid):
        read_config(file, lambda _: "s")


@pytest.mark.parametrize(
    ("options", "wanted"),
    [
        (("--rotation", "grace:soon"), "--rotation"),
        (("--access-lifetime", "nan"), "--access-lifetime"),
        (("--misbehave", "hang:2"), "--misbehave"),
        (("--misbehave", "hang@moon"), "--misbehave"),
        (("--misbehave", "hang:0.9", "--misbehave", "slow-down:0.9"), "--misbehave"),
        (("--listen", "0.0.0.0:0"), "loopback"),
        (("--config", "none.yaml"), "can't be read"),
        (("--config", "none.yaml", "--client-id", "x"), "--client-id"),
        (("--account", "a", "--account", "a"), "accounts"),
    ],
)
def test_an_option_that_makes_no_sense_is_named(tmp_path: Path, options: tuple[str, ...], wanted: str) -> None:
    """Exit code 2, before anything listens."""
    secret = () if "--config" in options else ("--client-secret-file", str(tmp_path / "s"))
    arguments = ["simulate", *secret, *options]
    result = CliRunner().invoke(root, arguments)
    assert result.exit_code == 2
    assert wanted in result.output


@pytest.mark.parametrize(
    ("text", "rotation"),
    [
        ("static", Static()),
        ("at-once", RotatingAtOnce()),
        ("at_once", RotatingAtOnce()),
        ("grace:30", RotatingWithGrace(30.0)),
        ("grace:until-used", RotatingWithGrace(None)),
        ("grace:0.5,keep-family", RotatingWithGrace(0.5, reuse_revokes=False)),
    ],
)
def test_every_rotation_class_has_a_short_form(text: str, rotation: Rotation) -> None:
    """And what the definition says of it follows."""
    assert parse_rotation(text) == rotation
    names: Mapping[type, str] = {Static: "STATIC", RotatingAtOnce: "AT_ONCE", RotatingWithGrace: "WITH_GRACE"}
    made = str(definition("http://127.0.0.1:1", Client("c", rotation=rotation)))
    assert f"REFRESH_ROTATION_{names[type(rotation)]}" in made


@pytest.mark.parametrize("what", list(Misbehaviour))
def test_every_misbehaviour_can_be_asked_for(what: Misbehaviour) -> None:
    """By its name with hyphens or underscores, at a rate, at each endpoint."""
    assert Habit.parse(what.value) == Habit(what)
    assert Habit.parse(f"{what.value.replace('_', '-')}:0.25@api") == Habit(what, 0.25, Endpoint.API)
    result = CliRunner().invoke(root, ["simulate", "--help"])
    assert what.value.replace("_", "-") in "".join(result.output.split())


def test_each_habit_comes_at_its_own_rate() -> None:
    """Drawn evenly, the shares are those that were asked for; what is left is right."""
    habits = (Habit(Misbehaviour.HANG, 0.25), Habit(Misbehaviour.SLOW_DOWN, 0.5))
    drawn = [draw(habits, (2 * number + 1) << 56) for number in range(128)]
    assert [drawn.count(what) for what in (Misbehaviour.HANG, Misbehaviour.SLOW_DOWN, None)] == [32, 64, 32]


def test_lifetimes_are_seconds_or_for_ever() -> None:
    """Nothing else."""
    assert (parse_lifetime("60"), parse_lifetime(0.5), parse_lifetime("forever")) == (60.0, 0.5, None)
    bad: list[object] = ["", "0", "-1", "inf", "nan", "1e999", True, None, [], "six"]
    for value in bad:
        with pytest.raises(ValueError, match="seconds"):
            parse_lifetime(value)


def test_a_public_client_is_introduced_as_one() -> None:
    """Whatever its redirect URI is."""
    public = Client("spa", None, ("https://app.example/cb?x=1",))
    words = command("http://127.0.0.1:1", public, None, None)
    assert words[3] == "simulated"
    assert words[-1] == "--public-client"
    assert any("spa" in line for line in introduction("http://127.0.0.1:1", (public,), None, None))
