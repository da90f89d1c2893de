"""`connectors integration check` and what is behind it: a good definition goes all the way, a wrong one says where it stops."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest
from click.testing import CliRunner

from connectors_grpc.catalogue import load_catalogue
from connectors_grpc.checking.rehearsal import Step, rehearse
from connectors_grpc.checking.vendor import put
from connectors_grpc.cli.main import root
from connectors_grpc.domain.definition import Api, ClientAuthentication, Grant, Input, Integration, OAuth, Placement
from connectors_grpc.domain.ids import IntegrationId
from connectors_grpc.oauth2.token_reply import at_pointer

SHIPPED = ("jira", "slack-user", "shopify", "github", "stripe-connect", "algolia", "twilio")
"""One for each thing that only some need: discovery, tokens deeper down, an input, each kind of revocation, keys."""


async def steps_of(definition: Integration) -> list[Step]:
    """Every step."""
    return [step async for step in rehearse(definition)]


def names(steps: Sequence[Step]) -> list[str]:
    """The steps' names, each once."""
    return list(dict.fromkeys(step.name for step in steps))


@pytest.mark.parametrize("name", SHIPPED)
async def test_an_entry_that_ships_goes_all_the_way(name: str) -> None:
    """From consent to revocation, or from a stored key to a call."""
    definition = load_catalogue()[IntegrationId(name)]
    steps = await steps_of(definition)
    assert [step for step in steps if not step.good] == []
    last = "revocation" if definition.oauth else "call"
    assert names(steps)[-1] == last


GOOD = Integration(
    IntegrationId("wiki"),
    oauth=OAuth(
        authorization_endpoint="https://wiki.example/authorize",
        token_endpoint="https://wiki.example/token",
        client_authentication=ClientAuthentication.POST,
    ),
    api=Api("https://wiki.example/api"),
)


async def test_a_fault_of_the_rules_ends_it_before_anything_runs() -> None:
    """Every fault, and nothing after."""
    bad = replace(GOOD, api=Api("http://wiki.example/"))
    steps = await steps_of(bad)
    assert [step.good for step in steps] == [False] * len(steps)
    assert names(steps) == ["definition"]


@pytest.mark.parametrize(
    ("bad", "name"),
    [
        (replace(GOOD, inputs=(Input("site", pattern="[a-z]+"),)), "examples"),
        (replace(GOOD, api=replace(GOOD.api or Api(""), placement=Placement({"X-Key": "{no_such}"}))), "refused"),
        (replace(GOOD, api=replace(GOOD.api or Api(""), placement=Placement({"X-Key": "{scope_of_it}"}))), "refused"),
        (
            replace(GOOD, oauth=replace(GOOD.oauth or OAuth(), scope_separator=",", scopes=("a b",)), api=GOOD.api),
            "definition",
        ),
        (replace(GOOD, api=None), "call"),
    ],
    ids=["no example", "no such field", "another", "a scope with a space", "no API"],
)
async def test_what_does_not_hang_together_says_where(bad: Integration, name: str) -> None:
    """The first step that fails is the last, and names what is missing."""
    steps = await steps_of(bad)
    assert (steps[-1].name, steps[-1].good) == (name, False)
    assert all(step.good for step in steps[:-1])


async def test_client_credentials_are_minted_and_used() -> None:
    """No person takes part."""
    oauth = OAuth(token_endpoint="https://wiki.example/token", grant=Grant.CLIENT_CREDENTIALS)
    steps = await steps_of(replace(GOOD, oauth=oauth))
    assert [step.good for step in steps] == [True, True]
    assert steps[-1].name == "call"


async def test_a_grant_that_is_not_simulated_is_said_to_be_untried() -> None:
    """Nobody is told that it works."""
    oauth = OAuth(
        token_endpoint="https://wiki.example/token",
        grant=Grant.JWT_BEARER,
        client_authentication=ClientAuthentication.NONE,
    )
    steps = await steps_of(replace(GOOD, oauth=oauth))
    assert "not simulated" in steps[-1].text


@pytest.mark.parametrize("pointer", ["/a", "/a/b", "/accounts/0/sid", "/0", "/a~1b/c~0d"])
def test_what_is_put_at_a_pointer_is_found_there(pointer: str) -> None:
    """RFC 6901, with objects and lists made on the way."""
    document: dict[str, object] = {}
    put(document, pointer, "v")
    assert at_pointer(document, pointer) == "v"


WIKI = """
display_name: Wiki
verified: true
inputs:
  - {id: site, title: Site, pattern: "[a-z]+", example: acme}
oauth:
  authorization_endpoint: https://{site}.wiki.example/authorize
  token_endpoint: https://{site}.wiki.example/token
  client_authentication: client_secret_post
api:
  base_url: https://{site}.wiki.example/api
"""
IN_CONTRACT = {
    "oauth": {
        "authorization_endpoint": "https://wiki.example/authorize",
        "token_endpoint": "https://wiki.example/token",
    },
    "api": {"base_url": "https://wiki.example/api"},
}


def check(*arguments: str, given: str | None = None) -> tuple[int, str]:
    """The exit code and what was printed."""
    result = CliRunner().invoke(root, ["integration", "check", *arguments], input=given)
    return result.exit_code, result.output


def test_a_file_is_checked_from_the_command_line(tmp_path: Path) -> None:
    """In the catalogue's shape or the contract's, a step a line or as JSON; no server is needed."""
    file = tmp_path / "wiki.yaml"
    file.write_text(WIKI)
    code, output = check(str(file))
    assert code == 0
    assert all(line.startswith("ok    ") for line in output.splitlines())
    assert "https://acme.wiki.example/api/check: 200" in output
    file.write_text(json.dumps(IN_CONTRACT))
    code, output = check(str(file), "--json")
    assert code == 0
    assert json.loads(output)["good"]
    assert check("-", "--lint-only", given=WIKI) == (0, "ok    definition      keeps to the rules\n")
    assert check("stripe", "--catalogue", "--lint-only")[0] == 0


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        (WIKI.replace("{site}.wiki", "{site}"), "wiki.yaml: oauth.token_endpoint: a placeholder is the first part"),
        (WIKI + "color: red\n", "wiki.yaml: color: no such field"),
        (json.dumps(IN_CONTRACT | {"api": {"base_url": "x"}}), "api.base_url: an absolute https URL"),
        ("- 1", "an object is wanted"),
    ],
)
def test_a_wrong_file_fails_with_a_line_for_each_fault(tmp_path: Path, text: str, fault: str) -> None:
    """The exit code is that of a check that failed."""
    file = tmp_path / "wiki.yaml"
    file.write_text(text)
    code, output = check(str(file))
    assert code == 1
    assert f"FAIL  definition      {fault}" in output


def test_what_is_not_there_is_a_mistake_of_the_call() -> None:
    """A file, or an entry."""
    assert check("/no/such/file")[0] == 2
    assert check("no-such-entry", "--catalogue")[0] == 2
