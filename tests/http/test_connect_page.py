"""Connecting as a person does it, and as an attacker would (attacks 28 and 32)."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import httpx2
import pytest

from connectors_grpc.gen.connectors.v1 import access_service_pb2 as access
from connectors_grpc.gen.connectors.v1 import credential_service_pb2 as pb
from connectors_grpc.gen.connectors.v1 import tenant_service_pb2 as tenants
from connectors_grpc.simulator import SimulatorSettings
from tests.openbao import OpenBao
from tests.providers import browser, running_simulator
from tests.running import Client, fresh_id, refused, running_server
from tests.worlds import ShiftedClock, State, Timed, World, make_world

TEN_MINUTES = 600


@pytest.fixture
async def http() -> AsyncIterator[httpx2.AsyncClient]:
    """A browser's engine without its manners: follows nothing, keeps cookies."""
    async with httpx2.AsyncClient(trust_env=False, timeout=20) as client:
        yield client


def query(url: str) -> dict[str, str]:
    """The parameters of a URL, each once."""
    found = parse_qs(urlsplit(url).query, strict_parsing=True)
    assert all(len(values) == 1 for values in found.values())
    return {name: values[0] for name, values in found.items()}


async def begin(http: httpx2.AsyncClient, link: str) -> str:
    """Press the button; where the browser is sent."""
    reply = await http.post(link)
    assert reply.status_code == 303, reply.text
    return str(reply.headers["location"])


async def consented(http: httpx2.AsyncClient, authorization_url: str, account: str = "alice") -> str:
    """Consent at the simulator; the URL that it sends the browser back to."""
    form = query(authorization_url) | {"account": account, "decision": "allow"}
    reply = await http.post(authorization_url.partition("?")[0], data=form)
    assert reply.status_code == 303, reply.text
    return str(reply.headers["location"])


async def callback(http: httpx2.AsyncClient, world: World) -> str:
    """A callback URL that would connect the world's tenant."""
    return await consented(http, await begin(http, await world.link()))


async def unconnected(world: World) -> None:
    """Nothing was stored, and no code went to the provider."""
    with refused("CREDENTIAL_NOT_FOUND"):
        await world.credential()
    assert world.asked("authorization_code") == []


async def test_the_page_shows_who_asks_for_what_before_anything_happens(world: World, http: httpx2.AsyncClient) -> None:
    """Attack 32: tenant, integration and scopes stand on the page; nothing is set and nothing is asked yet."""
    page = await http.get(await world.link())
    assert page.status_code == 200
    for text in (world.tenant, world.integration, "notes.read", "offline_access"):
        assert text in page.text
    assert "set-cookie" not in page.headers


async def test_names_on_the_page_are_escaped(timed: Timed, world: World, http: httpx2.AsyncClient) -> None:
    """A tenant's display name is text, whatever it looks like."""
    named = tenants.Tenant(display_name="<script>alert(1)</script>&")
    wanted = tenants.CreateTenantRequest(tenant_id=fresh_id(), tenant=named)
    tenant = (await timed.server.admin.call("CreateTenant", wanted)).tenant.id
    request = pb.StartAuthorizationRequest(tenant=tenant, integration=world.integration)
    link = (await timed.server.admin.call("StartAuthorization", request)).connect_url
    page = await http.get(link)
    assert "<script>" not in page.text
    assert "&lt;script&gt;" in page.text


async def test_the_authorization_request_is_by_the_book(world: World, http: httpx2.AsyncClient) -> None:
    """RFC 6749 4.1.1 and RFC 7636: exact redirect URI, S256, a state of 256 bits."""
    sent = query(await begin(http, await world.link()))
    assert sent["response_type"] == "code"
    assert sent["client_id"] == world.client_id
    assert sent["redirect_uri"] == f"{world.server.http_url}/oauth/callback/{world.integration}"
    assert sent["code_challenge_method"] == "S256"
    assert len(sent["code_challenge"]) == 43
    assert len(sent["state"]) == 43
    assert sent["scope"] == "notes.read notes.write offline_access"


async def test_the_cookie_is_for_this_host_and_not_for_scripts(world: World, http: httpx2.AsyncClient) -> None:
    """HttpOnly, SameSite=Lax (it must come with the provider's redirect), no domain, ten minutes at most."""
    reply = await http.post(await world.link())
    (cookie,) = reply.headers.get_list("set-cookie")
    parts = [part.strip().lower() for part in cookie.split(";")]
    assert parts[0].startswith("connectors-")
    assert {"httponly", "samesite=lax", "path=/"} <= set(parts)
    assert not [part for part in parts if part.startswith("domain")]
    (age,) = [int(part.removeprefix("max-age=")) for part in parts if part.startswith("max-age=")]
    assert 0 < age <= TEN_MINUTES


async def test_previews_use_nothing_up(world: World, http: httpx2.AsyncClient) -> None:
    """A link scanner that looks ten times leaves the link as it is."""
    link = await world.link()
    for _ in range(5):
        assert (await http.get(link)).status_code == 200
        assert (await http.head(link)).status_code == 200
    async with browser() as person:
        assert (await person.consent(link)).status_code == 200
    assert (await world.credential()).state == State.STATE_ACTIVE


async def test_a_link_is_used_once(world: World, http: httpx2.AsyncClient) -> None:
    """The second press finds nothing; nor does a look."""
    link = await world.link()
    await begin(http, link)
    assert (await http.post(link)).status_code == 404
    assert (await http.get(link)).status_code == 404


async def test_of_two_that_press_at_once_one_gets_on(world: World, http: httpx2.AsyncClient) -> None:
    """Compare-and-set, not look-then-write."""
    link = await world.link()
    replies = await asyncio.gather(*(http.post(link) for _ in range(8)))
    assert sorted(reply.status_code for reply in replies) == [303, *[404] * 7]


@pytest.mark.parametrize(
    "headers",
    [
        {"Sec-Fetch-Site": "cross-site"},
        {"Sec-Fetch-Site": "same-site"},
        {"Origin": "https://evil.example"},
        {"Sec-Fetch-Site": "cross-site", "Origin": "null"},
    ],
    ids=str,
)
async def test_a_page_of_others_cannot_press_the_button(
    world: World, http: httpx2.AsyncClient, headers: dict[str, str]
) -> None:
    """Attack 32: what the page shows must have been seen; a form elsewhere that posts here is refused, and costs nothing."""
    link = await world.link()
    reply = await http.post(link, headers=headers)
    assert reply.status_code == 403
    assert "set-cookie" not in reply.headers
    assert (await http.get(link)).status_code == 200


@pytest.mark.parametrize(
    "headers", [{"Sec-Fetch-Site": "same-origin", "Origin": "null"}, {"Sec-Fetch-Site": "none"}, {}], ids=str
)
async def test_our_own_page_can(world: World, http: httpx2.AsyncClient, headers: dict[str, str]) -> None:
    """Browsers send `Origin: null` from a page without referrer."""
    assert (await http.post(await world.link(), headers=headers)).status_code == 303


async def test_a_link_ends_after_ten_minutes(world: World, http: httpx2.AsyncClient) -> None:
    """Unused."""
    link = await world.link()
    world.pass_time(TEN_MINUTES + 1)
    assert (await http.get(link)).status_code == 404
    assert (await http.post(link)).status_code == 404


async def test_a_flow_ends_after_ten_minutes(world: World, http: httpx2.AsyncClient) -> None:
    """Begun, and left lying: attack 28, expired state."""
    url = await begin(http, await world.link())
    world.pass_time(TEN_MINUTES + 1)
    sent = query(url)
    back = await http.get(sent["redirect_uri"], params={"state": sent["state"], "code": "x", "iss": world.sim.url})
    assert back.status_code == 404
    await unconnected(world)


@pytest.mark.parametrize("state", ["", "x", "A" * 43, "A" * 42 + "\n", "é" * 43, "A" * 4000, "../../x", "\0" * 43])
async def test_an_unknown_state_is_not_found(world: World, http: httpx2.AsyncClient, state: str) -> None:
    """Attack 28: unknown or malformed."""
    url = f"{world.server.http_url}/oauth/callback/{world.integration}"
    assert (await http.get(url, params={"state": state, "code": "x"})).status_code == 404


async def test_a_callback_without_parameters_is_not_found(world: World, http: httpx2.AsyncClient) -> None:
    """Somebody types the address."""
    url = f"{world.server.http_url}/oauth/callback/{world.integration}"
    assert (await http.get(url)).status_code == 404


async def test_a_callback_is_good_once(world: World, http: httpx2.AsyncClient) -> None:
    """Attack 28: replayed. The code went to the provider once, and the credential stays."""
    url = await callback(http, world)
    assert (await http.get(url)).status_code == 200
    assert (await http.get(url)).status_code == 404
    assert len(world.asked("authorization_code")) == 1
    assert await world.whoami() == 200


async def test_of_two_callbacks_at_once_one_is_taken(world: World, http: httpx2.AsyncClient) -> None:
    """A double click: one exchange."""
    url = await callback(http, world)
    replies = await asyncio.gather(*(http.get(url) for _ in range(6)))
    assert sorted(reply.status_code for reply in replies) == [200, *[404] * 5]
    assert len(world.asked("authorization_code")) == 1


async def test_without_the_cookie_nothing_is_connected(world: World, http: httpx2.AsyncClient) -> None:
    """Attack 32: the attacker began it, the victim's browser is sent to the callback. It stays usable for who began it."""
    url = await callback(http, world)
    async with httpx2.AsyncClient(trust_env=False) as victim:
        assert (await victim.get(url)).status_code == 404
        victim.cookies.set("connectors-0123456789abcdef", "x", domain="127.0.0.1")
        assert (await victim.get(url)).status_code == 404
    await unconnected(world)
    assert (await http.get(url)).status_code == 200


async def test_the_cookie_of_another_flow_does_not_do(world: World, http: httpx2.AsyncClient) -> None:
    """The victim has begun a flow of their own: its cookie, even under the attacker's flow's name, opens nothing."""
    url = await callback(http, world)
    (ours,) = http.cookies.jar
    async with httpx2.AsyncClient(trust_env=False) as victim:
        await begin(victim, await world.link())
        (theirs,) = victim.cookies.jar
        assert (await victim.get(url)).status_code == 404
        forged = {"Cookie": f"{ours.name}={theirs.value}"}
        assert (await victim.get(url, headers=forged)).status_code == 404
    await unconnected(world)


async def test_two_cookies_of_one_name_are_none(world: World, http: httpx2.AsyncClient) -> None:
    """A cookie that was planted beside ours: neither is believed, and the flow is not used up."""
    url = await callback(http, world)
    (cookie,) = http.cookies.jar
    both = f"{cookie.name}=planted; {cookie.name}={cookie.value}"
    async with httpx2.AsyncClient(trust_env=False) as plain:
        assert (await plain.get(url, headers={"Cookie": both})).status_code == 404
    assert (await http.get(url)).status_code == 200


async def test_cookies_of_others_do_not_stand_in_the_way(world: World, http: httpx2.AsyncClient) -> None:
    """Other programs on localhost set cookies of any shape."""
    url = await callback(http, world)
    (cookie,) = http.cookies.jar
    odd = f'prefs={{"a":[1,2]}}; =; novalue; other="open; a b=c; {cookie.name}={cookie.value}; last=\xe9'
    async with httpx2.AsyncClient(trust_env=False) as plain:
        page = await plain.get(url, headers={b"Cookie": odd.encode("latin-1")})
    assert page.status_code == 200


async def test_two_flows_in_one_browser_do_not_meet(timed: Timed, world: World, http: httpx2.AsyncClient) -> None:
    """Two tabs: each ends as its own tenant's, in either order."""
    other = await make_world(timed.server, timed.sim, timed.clock)
    first, second = await begin(http, await world.link()), await begin(http, await other.link())
    assert (await http.get(await consented(http, second, "bob"))).status_code == 200
    assert (await http.get(await consented(http, first, "alice"))).status_code == 200
    for each, account in ((world, "alice"), (other, "bob")):
        answer = await each.app.proxied(each.tenant, each.integration, "/v1/whoami")
        assert f'"{account}"'.encode() in answer.body


async def test_the_callback_of_another_integration_takes_no_code(
    timed: Timed, world: World, http: httpx2.AsyncClient
) -> None:
    """Attack 28, mix-up: the path names another provider's integration."""
    other = await make_world(timed.server, timed.sim, timed.clock)
    url = (await callback(http, world)).replace(f"/{world.integration}?", f"/{other.integration}?")
    assert (await http.get(url)).status_code == 404
    await unconnected(world)


@pytest.mark.parametrize("iss", [None, "", "https://evil.example", "{url}/", "{url}&iss={url}"])
async def test_a_wrong_or_missing_issuer_stops_before_the_code_goes_out(
    world: World, http: httpx2.AsyncClient, iss: str | None
) -> None:
    """RFC 9207: compared character by character; the code is not sent anywhere."""
    base, _, parameters = (await callback(http, world)).partition("?")
    kept = "&".join(part for part in parameters.split("&") if not part.startswith("iss="))
    forged = "" if iss is None else "&iss=" + iss.replace("{url}", world.sim.url)
    page = await http.get(f"{base}?{kept}{forged}")
    assert page.status_code == 403
    await unconnected(world)


@pytest.mark.parametrize("name", ["code", "state", "error"])
async def test_a_parameter_that_comes_twice_is_refused(world: World, http: httpx2.AsyncClient, name: str) -> None:
    """RFC 6749 section 3.1."""
    url = await callback(http, world)
    extra = {"error": "&error=a&error=b", "code": "&code=another", "state": "&state=another"}[name]
    assert (await http.get(url + extra)).status_code in (403, 404)
    await unconnected(world)


async def test_a_hostile_error_is_neither_shown_nor_stored(world: World, http: httpx2.AsyncClient) -> None:
    """Attack 28: HTML in error and error_description."""
    sent = query(await begin(http, await world.link()))
    hostile = "<img src=x onerror=alert(1)>"
    parameters = {"state": sent["state"], "iss": world.sim.url, "error": hostile, "error_description": hostile}
    page = await http.get(sent["redirect_uri"], params=parameters | {"error_uri": "https://evil.example/"})
    assert page.status_code == 403
    for text in ("<img", "onerror", "evil.example", "&lt;img"):
        assert text not in page.text
    await unconnected(world)


async def test_a_person_who_says_no_is_told_what_that_means(world: World) -> None:
    """error=access_denied: a page, no credential, and a new link works."""
    async with browser() as person:
        page = await person.consent(await world.link(), press="deny")
    assert page.status_code == 403
    assert "not granted" in page.text
    assert "access_denied" in page.text
    await unconnected(world)
    assert (await world.connect()).status_code == 200


async def test_a_wrong_code_is_refused_with_a_page(world: World, http: httpx2.AsyncClient) -> None:
    """The provider says invalid_grant: begin again."""
    base, _, parameters = (await callback(http, world)).partition("?")
    forged = "&".join("code=forged" if part.startswith("code=") else part for part in parameters.split("&"))
    page = await http.get(f"{base}?{forged}")
    assert page.status_code == 403
    assert "invalid_grant" in page.text


async def test_a_code_of_another_flow_is_useless(world: World, http: httpx2.AsyncClient) -> None:
    """Code injection: the attacker's code in the victim's callback; the PKCE verifier does not fit (RFC 9700 2.1.1)."""
    async with httpx2.AsyncClient(trust_env=False) as attacker:
        stolen = query(await consented(attacker, await begin(attacker, await world.link()), "bob"))["code"]
    base, _, parameters = (await callback(http, world)).partition("?")
    forged = "&".join(f"code={stolen}" if part.startswith("code=") else part for part in parameters.split("&"))
    page = await http.get(f"{base}?{forged}")
    assert page.status_code == 403
    with refused("CREDENTIAL_NOT_FOUND"):
        await world.credential()


async def test_head_on_the_callback_uses_nothing_up(world: World, http: httpx2.AsyncClient) -> None:
    """HEAD is safe (RFC 9110 section 9.2.1): a prefetch with the cookie does not spend the code."""
    url = await callback(http, world)
    assert (await http.head(url)).status_code == 404
    assert world.asked("authorization_code") == []
    assert (await http.get(url)).status_code == 200


async def test_a_tenant_suspended_or_deleted_meanwhile_gets_nothing(world: World, http: httpx2.AsyncClient) -> None:
    """A flow that was begun is worth nothing once the tenant may not be used."""
    url, link = await callback(http, world), await world.link()
    await world.admin.call("SuspendTenant", tenants.SuspendTenantRequest(tenant=world.tenant))
    assert (await http.get(url)).status_code == 404
    assert (await http.get(link)).status_code == 404
    assert world.asked("authorization_code") == []


async def start_for_own_page(world: World) -> dict[str, str]:
    """StartAuthorization with a page of the platform's own; the authorization URL's parameters."""
    own = "https://platform.example/connected"
    world.change_client(redirect_uris=(own,))
    return query(await world.link(redirect_uri=own))


async def complete(key: Client, **fields: str) -> pb.Credential:
    """CompleteAuthorization."""
    answer = await key.call("CompleteAuthorization", pb.CompleteAuthorizationRequest(**fields))
    found: pb.Credential = answer.credential
    return found


async def test_the_platforms_own_page_completes_by_the_key_that_began(world: World, http: httpx2.AsyncClient) -> None:
    """StartAuthorization with `redirect_uri`, consent, CompleteAuthorization; once."""
    sent = await start_for_own_page(world)
    assert sent["redirect_uri"] == "https://platform.example/connected"
    url = f"{world.sim.url}/authorize?" + "&".join(f"{k}={v}" for k, v in sent.items())
    back = query(await consented(http, url))
    operator = await world.server.app(world.tenant, role=access.ROLE_OPERATOR)
    with refused("FLOW_NOT_FOUND"):
        await complete(operator, state=back["state"], code=back["code"], iss=back["iss"])
    other = await start_for_own_page(world)
    with refused("AUTHORIZATION_REFUSED", problem="iss_mismatch"):
        await complete(world.admin, state=other["state"], code="x", iss="https://evil.example")
    assert world.asked("authorization_code") == []
    credential = await complete(world.admin, state=back["state"], code=back["code"], iss=back["iss"])
    assert credential.state == State.STATE_ACTIVE
    assert await world.whoami() == 200
    with refused("FLOW_NOT_FOUND"):
        await complete(world.admin, state=back["state"], code=back["code"], iss=back["iss"])


async def test_a_browser_cannot_end_what_a_key_began(world: World, http: httpx2.AsyncClient) -> None:
    """The state of a key's flow at our own callback: no cookie fits it."""
    sent = await start_for_own_page(world)
    url = f"{world.server.http_url}/oauth/callback/{world.integration}"
    back = await http.get(url, params={"state": sent["state"], "code": "x", "iss": world.sim.url})
    assert back.status_code == 404
    await unconnected(world)


@pytest.mark.parametrize(
    "uri",
    [
        "http://platform.example/x",
        "https://platform.example/x#f",
        "https://user@platform.example/x",
        "/relative",
        "javascript:alert(1)",
        "https://platform.example\\@evil.example/",
        "https://platform.example/\r\nSet-Cookie: a=b",
        "https://platform.example/ x",
        "https://[::1",
        "https://platform.example:99999/",
        "https://" + "a" * 2100,
    ],
)
async def test_a_redirect_uri_is_an_absolute_https_url(world: World, uri: str) -> None:
    """RFC 6749 section 3.1.2: absolute, no fragment; http on loopback only."""
    with refused("INVALID_FIELD", field="redirect_uri"):
        await world.link(redirect_uri=uri)


@pytest.mark.parametrize(
    "scopes", [["a b"], ['"'], ["a\\b"], [""], ["x" * 600], [f"s{n}" for n in range(101)]], ids=len
)
async def test_scopes_are_tokens(world: World, scopes: list[str]) -> None:
    """RFC 6749 section 3.3."""
    with refused("INVALID_FIELD", field="scopes"):
        await world.link(scopes=scopes)


async def test_what_was_asked_and_not_granted_is_said(world: World, http: httpx2.AsyncClient) -> None:
    """GetCredential shows granted and missing scopes, and no material."""
    await world.connect(scopes=["notes.read"])
    credential = await world.credential()
    assert list(credential.granted_scopes) == ["notes.read"]
    assert list(credential.missing_scopes) == []
    assert credential.refreshable
    assert credential.expire_time.seconds > 0


async def test_a_second_account_is_a_credential_of_its_own(world: World) -> None:
    """One tenant, one integration, two accounts."""
    second = fresh_id("work")
    assert (await world.connect("alice")).status_code == 200
    assert (await world.connect("bob", credential=second)).status_code == 200
    bodies = [(await world.app.proxied(world.tenant, name, "/v1/whoami")).body for name in (world.integration, second)]
    assert b'"alice"' in bodies[0]
    assert b'"bob"' in bodies[1]


async def test_behind_https_cookies_are_bound_to_the_host_and_secure(private_openbao: OpenBao, tmp_path: Path) -> None:
    """`public_url` decides, not what this request came by: `__Host-`, Secure, and a redirect URI of the public name."""
    clock = ShiftedClock()
    async with (
        running_server(private_openbao, tmp_path / "keys", clock=clock, public_url="https://connect.example") as server,
        running_simulator(SimulatorSettings(clients=()), clock) as sim,
        httpx2.AsyncClient(trust_env=False, timeout=20) as http,
    ):
        world = await make_world(server, sim, clock)
        link = await world.link()
        assert link.startswith("https://connect.example/connect/")
        reply = await http.post(link.replace("https://connect.example", server.http_url))
    (cookie,) = reply.headers.get_list("set-cookie")
    parts = [part.strip().lower() for part in cookie.split(";")]
    assert parts[0].startswith("__host-connectors-")
    assert {"secure", "httponly", "path=/"} <= set(parts)
    sent = query(reply.headers["location"])
    assert sent["redirect_uri"] == f"https://connect.example/oauth/callback/{world.integration}"
