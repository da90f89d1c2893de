"""`connectors vault init` and `validate` on a real OpenBao, each test in a namespace of its own; and tenants' own tokens."""

from __future__ import annotations

import asyncio
import itertools
import json
import os
import shutil
import sys
import time
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from click.testing import CliRunner
from joserfc import jwt
from joserfc.jwk import RSAKey

from connectors_grpc.cli.main import root
from connectors_grpc.embedded import EmbeddedSettings
from connectors_grpc.embedded.api import is_serving
from connectors_grpc.embedded.process import find_binary
from connectors_grpc.embedded.setup import access_steps, mount_steps, server_policy
from connectors_grpc.provisioning import Check, Done, Initialising, ProvisioningFailed, validate
from connectors_grpc.provisioning.calls import Operator, operator
from connectors_grpc.provisioning.initialising import Outcome
from connectors_grpc.provisioning.items import State, items
from connectors_grpc.provisioning.rights import FORBIDDEN, excess, lacking, wanted
from connectors_grpc.secret import Secret
from connectors_grpc.vault import VaultSettings, connect
from connectors_grpc.vault.adapter import Reply
from tests.openbao import OpenBao
from tests.ports import free_port

ROOT_TOKEN = "dev-root-canary"
NOWHERE = Path(os.devnull)
_numbers = itertools.count(1)


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def dev(short_tmp: Path) -> AsyncIterator[Path]:
    """The socket of an OpenBao in memory, with a root token, as an operator has one."""
    home = short_tmp / "dev"
    home.mkdir(0o700)
    (home / "bao.hcl").write_text(f'listener "unix" {{\n address = "{home}/s"\n}}\n')
    port = free_port()
    with (home / "log").open("w") as log:
        server = await asyncio.create_subprocess_exec(
            *(str(find_binary(EmbeddedSettings())), "server", "-dev", f"-dev-root-token-id={ROOT_TOKEN}"),
            *(f"-dev-listen-address=127.0.0.1:{port}", "-config", str(home / "bao.hcl")),
            env={"PATH": os.defpath, "HOME": str(home)}, stdout=log, stderr=log,
        )  # fmt: skip
    try:
        async with asyncio.timeout(60):
            while not await asyncio.to_thread(is_serving, home / "s"):
                assert server.returncode is None
                await asyncio.sleep(0.02)
        yield home / "s"
    finally:
        if server.returncode is None:
            server.kill()
        await server.wait()
        shutil.rmtree(home)


@dataclass
class Place:
    """A namespace, empty at first: what another operator's Vault is to us."""

    socket: Path
    namespace: str
    root: Operator

    def settings(self, **login: Any) -> VaultSettings:
        """For that namespace."""
        return VaultSettings(socket_path=self.socket, namespace=self.namespace, **login)

    async def init(self, *, plan: bool = False, fix: bool = False, **more: Any) -> list[Done]:
        """One run, whole."""
        return await Initialising(self.root, plan=plan, fix=fix).run(**more)

    async def ready(self, path: Path) -> VaultSettings:
        """Made ready, with the server's way in at `path`."""
        await self.init()
        await Initialising(self.root).way_in(path)
        return self.settings(secret_id_file=path)

    async def write(self, path: str, data: object) -> Reply:
        """With every right."""
        return await self.root.write(path, data)


@pytest_asyncio.fixture(loop_scope="session")
async def place(dev: Path) -> AsyncIterator[Place]:
    """One of this test's own."""
    name = f"n{next(_numbers)}"
    async with operator(VaultSettings(socket_path=dev, token_file=NOWHERE), Secret(ROOT_TOKEN)) as everywhere:
        await everywhere.write(f"sys/namespaces/{name}", {})
    settings = VaultSettings(socket_path=dev, namespace=name, token_file=NOWHERE)
    async with operator(settings, Secret(ROOT_TOKEN)) as there:
        yield Place(dev, name, there)


def outcomes(report: Sequence[Done]) -> dict[str, Outcome]:
    """By what it is about."""
    return {done.what: done.outcome for done in report if done.outcome is not Outcome.ADVICE}


def problems(checks: Sequence[Check]) -> dict[str, str]:
    """What is wrong, by what was looked at."""
    return {check.what: check.problem for check in checks if check.problem}


class TestInit:
    """An operator's Vault, from nothing, from something, and from something else."""

    async def test_it_is_planned_then_made_then_found_so(self, place: Place) -> None:
        """A plan changes nothing; the second run of the work changes nothing either."""
        planned = await place.init(plan=True)
        assert set(outcomes(planned).values()) == {Outcome.WOULD}
        assert await place.root.read("sys/policies/acl/connectors-server") is None
        made = await place.init()
        assert outcomes(made).keys() == outcomes(planned).keys()
        assert set(outcomes(made).values()) == {Outcome.MADE}
        assert set(outcomes(await place.init()).values()) == {Outcome.SAME}

    async def test_what_differs_is_shown_and_kept_and_changed_by_fix_alone(self, place: Place) -> None:
        """Policy, role and upsert, each by another's hand."""
        await place.init()
        await place.write("sys/policies/acl/connectors-server", {"policy": 'path "*" {\n capabilities = ["sudo"]\n}'})
        await place.write("auth/approle/role/connectors-server", {"token_period": "2h", "token_num_uses": 9})
        await place.write("transit/config/keys", {"disable_upsert": False})
        found = {done.what: done for done in await place.init() if done.open}
        assert found.keys() == {"policy connectors-server", "role approle/connectors-server", "no upsert in transit/"}
        assert "token_num_uses is 9, not 0" in found["role approle/connectors-server"].detail
        assert "token_period is 7200, not 1h" in found["role approle/connectors-server"].detail
        assert all("--fix" in done.fix for done in found.values())
        mended = await place.init(fix=True)
        assert [done.what for done in mended if done.outcome is Outcome.MENDED] == [
            "no upsert in transit/",
            "policy connectors-server",
            "role approle/connectors-server",
        ]
        assert set(outcomes(await place.init()).values()) == {Outcome.SAME}

    async def test_what_can_not_be_changed_without_loss_is_never_touched(self, place: Place) -> None:
        """A `secret/` of version 1, a platform key that is not derived: not even by --fix."""
        await place.write("sys/mounts/secret", {"type": "kv", "options": {"version": "1"}})
        await place.write("sys/mounts/connectors-transit", {"type": "transit"})
        await place.write("connectors-transit/keys/platform", {"type": "aes256-gcm96"})
        found = {done.what: done for done in await place.init(fix=True) if done.open}
        assert found["mount secret/"].outcome is Outcome.FOREIGN
        assert found["mount secret/"].detail == "options is version=1, not version=2"
        assert found["key connectors-transit/platform"].detail == "derived is false, not true"
        assert (await place.root.read("sys/mounts/secret") or {})["options"] == {"version": "1"}

    async def test_the_way_in_is_a_private_file_that_works_and_is_not_made_twice(
        self, place: Place, tmp_path: Path
    ) -> None:
        """0600, in the form that `serve` reads; a file of somebody else is replaced by --fix alone."""
        path = tmp_path / "secret-id.json"
        await place.init()
        assert (await Initialising(place.root, plan=True).way_in(path)).outcome is Outcome.WOULD
        assert not path.exists()
        assert (await Initialising(place.root).way_in(path)).outcome is Outcome.MADE
        content = path.read_bytes()
        assert path.stat().st_mode & 0o777 == 0o600
        assert (await Initialising(place.root).way_in(path)).outcome is Outcome.SAME
        assert path.read_bytes() == content
        path.write_text('{"role_id": "x", "secret_id": "y"}')
        assert (await Initialising(place.root).way_in(path)).outcome is Outcome.DIFFERS
        assert (await Initialising(place.root, fix=True).way_in(path)).outcome is Outcome.MENDED
        assert problems(await validate(place.settings(secret_id_file=path))) == {}

    async def test_a_token_without_the_rights_is_told_which_it_lacks(self, place: Place) -> None:
        """It stops there, and says what may help."""
        made = await place.write("auth/token/create", {"policies": ["default"]})
        place.root.shows(made.text("auth", "client_token"))
        with pytest.raises(ProvisioningFailed, match="may not read sys/mounts"):
            await place.init()
        place.root.shows(ROOT_TOKEN)

    async def test_an_audit_log_that_only_a_configuration_can_add_is_said_to_be_one(self, dev: Path) -> None:
        """OpenBao's answer to the API becomes what to write where; and two are asked for."""
        async with operator(VaultSettings(socket_path=dev, token_file=NOWHERE), Secret(ROOT_TOKEN)) as there:
            report = await Initialising(there).run(audit_files=["/var/log/bao/audit.log"])
        asked, counted = report[-2:]
        assert (asked.outcome, asked.detail) == (Outcome.DIFFERS, "only its configuration can add one")
        assert 'file_path = "/var/log/bao/audit.log"' in asked.fix
        assert (counted.outcome, counted.detail) == (Outcome.ADVICE, "0 enabled")
        assert "two" in counted.fix

    async def test_the_policy_of_tenants_is_made_where_it_is_asked_for(self, place: Place) -> None:
        """And a missing auth method is named before anything is made."""
        with pytest.raises(ProvisioningFailed, match="no auth method jwt/"):
            await place.init(tenants_by="jwt")
        assert await place.root.read("sys/policies/acl/connectors-server") is None
        await place.write("sys/auth/jwt", {"type": "jwt"})
        assert outcomes(await place.init(tenants_by="jwt"))["policy connectors-tenant"] is Outcome.MADE


class TestValidate:
    """The server's own view: all well, and each thing that can be wrong."""

    async def test_the_embedded_openbao_is_as_it_must_be(self, openbao: OpenBao) -> None:
        """The same table makes both, so what is looked at is what is there; nothing stays behind."""
        settings = VaultSettings(socket_path=openbao.socket_path, secret_id_file=openbao.vault.secret_id_file)
        checks = await validate(settings)
        assert problems(checks) == {}
        assert len(checks) > 9
        assert [check.note for check in checks if check.what == "its kind"] == ["OpenBao; the tests run against 2.7."]
        token = await openbao.login()
        assert (await openbao.call("GET", "connectors/metadata/validate/?list=true", token=token)).status == 404

    async def test_a_right_too_many_and_a_right_too_few_are_named(self, place: Place, tmp_path: Path) -> None:
        """With the path and the capability, and where to mend it."""
        settings = await place.ready(tmp_path / "s")
        more = (
            'path "transit/keys/*" {\n capabilities = ["sudo"]\n}\npath "sys/mounts/*" {\n capabilities = ["read"]\n}'
        )
        await place.write("sys/policies/acl/more", {"policy": more})
        less = server_policy().replace('path "transit/rewrap/+"', 'path "transit/rewrapped/+"')
        await place.write("sys/policies/acl/connectors-server", {"policy": less})
        role = {"token_policies": ["connectors-server", "more"]}
        await place.write("auth/approle/role/connectors-server", role)
        found = problems(await validate(settings))
        assert found["rights that it needs"] == "lacks transit/rewrap/connectors-validate: update"
        assert found["rights that it must not have"] == "has sys/mounts/another: read"

    async def test_wrong_mounts_and_a_key_that_is_not_derived_are_found(self, place: Place, tmp_path: Path) -> None:
        """Each by the mount's name, and by what a probe saw."""
        await place.write("sys/mounts/secret", {"type": "kv", "options": {"version": "1"}})
        await place.write("sys/mounts/connectors-transit", {"type": "transit"})
        await place.write("connectors-transit/keys/platform", {"type": "aes256-gcm96"})
        found = problems(await validate(await place.ready(tmp_path / "s")))
        assert found["mount secret/"] == "it is kv version 1"
        assert "not derived" in found["the platform's key"]

    async def test_records_of_a_newer_version_are_found(self, place: Place, tmp_path: Path) -> None:
        """Before a server refuses to start on them."""
        settings = await place.ready(tmp_path / "s")
        await place.write("connectors/data/schema/current", {"data": {"schema": 99, "version": "9.1.0"}})
        assert list(problems(await validate(settings))) == ["the schema of its records"]

    async def test_its_health_is_asked_of_the_whole_vault(self, place: Place, tmp_path: Path) -> None:
        """A namespace has none: a server in one would never be ready."""
        async with connect(await place.ready(tmp_path / "s")) as vault:
            assert (await vault.health()).initialized

    async def test_an_empty_vault_is_no_place_to_log_in(self, place: Place, tmp_path: Path) -> None:
        """One finding, and no traceback."""
        (tmp_path / "s").write_text('{"role_id": "r", "secret_id": "s"}')
        checks = await validate(place.settings(secret_id_file=tmp_path / "s"))
        assert [check.what for check in checks] == ["login"]
        assert "vault init" in checks[0].fix

    async def test_a_vault_that_is_not_there_is_one_finding(self, tmp_path: Path) -> None:
        """Nothing is waited for longer than the time-out."""
        (tmp_path / "s").write_text('{"role_id": "r", "secret_id": "s"}')
        gone = VaultSettings(socket_path=tmp_path / "none", secret_id_file=tmp_path / "s")
        assert problems(await validate(gone)) == {"Vault": "it can't be reached"}

    async def test_a_clock_that_is_wrong_is_found(self, openbao: OpenBao, monkeypatch: pytest.MonkeyPatch) -> None:
        """Leases and tokens are counted by clocks."""
        monkeypatch.setattr("connectors_grpc.provisioning.validating.time.time", lambda: 4_000_000_000.0)
        settings = VaultSettings(socket_path=openbao.socket_path, secret_id_file=openbao.vault.secret_id_file)
        assert list(problems(await validate(settings))) == ["its clock"]

    async def test_an_operators_token_shows_what_the_server_may_not_see(self, place: Place, tmp_path: Path) -> None:
        """Upsert switched on, and a use counter on the role."""
        settings = await place.ready(tmp_path / "s")
        await place.write("transit/config/keys", {"disable_upsert": False})
        await place.write("auth/approle/role/connectors-server", {"token_num_uses": 3})
        assert "no upsert in transit/" not in problems(await validate(settings))
        found = problems(await validate(settings, place.root))
        assert found["no upsert in transit/"].startswith("differs")
        assert "token_num_uses" in found["role approle/connectors-server"]
        assert found["its token"] == "it ends after so many uses"


class TestTable:
    """The one table, without a Vault."""

    def test_every_step_of_the_embedded_openbao_is_one_that_can_be_looked_at(self) -> None:
        """Whoever adds a step to the table adds it to init and validate."""
        assert [item.step for item in items()] == [*mount_steps(), *access_steps()]

    @pytest.mark.parametrize("item", items("auth_jwt_1"), ids=lambda item: item.what)
    def test_each_item_knows_itself_and_its_absence(self, item: Any) -> None:
        """What was written is what is wanted, as the Vault shows it."""
        shown = {**item.step.data}
        if "token_period" in shown:
            shown["token_period"] = {"1h": 3600}[shown["token_period"]]
        found = {item.inside: shown} if item.inside else shown
        assert item.judge(found).state is State.SAME
        assert item.judge(None).state is State.MISSING
        other = dict.fromkeys(shown, "another")
        assert item.judge({item.inside: other} if item.inside else other).state in (State.DIFFERS, State.FOREIGN)

    def test_the_policy_is_read_whole(self) -> None:
        """As many blocks as the text has, and each with its capabilities."""
        policy = server_policy()
        assert len(wanted(policy)) == policy.count('path "')
        assert all(wanted(policy).values())

    def test_the_policy_by_itself_neither_lacks_nor_exceeds(self) -> None:
        """A token with just these rights is well, and one with none or with all is not."""
        policy = server_policy()
        just = {path: sorted(names) for path, names in wanted(policy).items()}
        assert (lacking(policy, just), excess(policy, just)) == ([], [])
        assert len(lacking(policy, {})) == sum(1 for names in wanted(policy).values() if names != {"deny"})
        assert len(excess(policy, {path: ["sudo", "read", "create"] for path in FORBIDDEN})) == len(FORBIDDEN)


class TestCommand:
    """What a person types."""

    async def run(self, dev: Path, *arguments: str) -> tuple[int, str, str]:
        """Exit code and what was printed, of the command with a token in its environment."""
        ours = {
            name: value for name, value in os.environ.items() if not name.startswith(("CONNECTORS_", "BAO_", "VAULT_"))
        }
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "connectors_grpc", "vault", *arguments),
            env=ours | {"BAO_TOKEN": ROOT_TOKEN, "CONNECTORS_VAULT_ADDR": f"unix://{dev}"},
            stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
        )  # fmt: skip
        out, err = await asyncio.wait_for(process.communicate(), 60)
        assert process.returncode is not None
        return process.returncode, out.decode(), err.decode()

    async def test_init_then_validate_say_what_they_did_and_never_the_token(self, place: Place, tmp_path: Path) -> None:
        """Exit code 0 for a Vault that is ready, and the secret id's file is what validate takes."""
        namespace = ("--vault-namespace", place.namespace)
        path = tmp_path / "secret-id.json"
        code, planned, _ = await self.run(place.socket, "init", "--plan", "--json", *namespace)
        assert (code, json.loads(planned)["ok"]) == (0, False)
        code, made, noted = await self.run(place.socket, "init", "--secret-id-file", str(path), *namespace)
        assert (code, "The Vault is ready." in noted) == (0, True), made + noted
        code, seen, said = await self.run(place.socket, "validate", "--vault-secret-id-file", str(path), *namespace)
        assert (code, "All is well." in said) == (0, True), seen + said
        secret_id = json.loads(path.read_text())["secret_id"]
        everything = planned + made + noted + seen + said
        assert ROOT_TOKEN not in everything
        assert secret_id not in everything

    async def test_what_is_left_to_do_is_exit_code_1(self, place: Place) -> None:
        """For scripts."""
        await place.write("sys/mounts/secret", {"type": "kv", "options": {"version": "1"}})
        code, _, said = await self.run(place.socket, "init", "--vault-namespace", place.namespace)
        assert (code, "1 thing(s) left to do." in said) == (1, True)

    def test_without_a_token_it_says_where_one_is_looked_for(self, tmp_path: Path) -> None:
        """And takes none as an argument."""
        address = ("--vault-addr", f"unix://{tmp_path}/s")
        done = CliRunner().invoke(root, ["vault", "init", *address], env={"BAO_TOKEN": "", "VAULT_TOKEN": ""})
        assert done.exit_code == 2
        assert "--token-file, or BAO_TOKEN or VAULT_TOKEN" in done.stderr

    def test_tenants_policy_is_printed_for_an_accessor_and_for_nothing_else(self) -> None:
        """What would end the template is refused."""
        printed = CliRunner().invoke(root, ["vault", "policy", "--tenant", "auth_jwt_1"]).output
        assert "identity.entity.aliases.auth_jwt_1.metadata.tenant}}/+" in printed
        assert CliRunner().invoke(root, ["vault", "policy", "--tenant", "x}}/*"]).exit_code == 2


class TestTenantsOwnTokens:
    """The generic policy of tenants, by a JWT that names the tenant: a batch token that sees its own path and no other."""

    KEY = RSAKey.generate_key(2048)

    @pytest_asyncio.fixture(loop_scope="session")
    async def tenants(self, place: Place) -> Place:
        """Two tenants with a credential and a key each, and a login for whoever shows a JWT."""
        await place.write("sys/auth/jwt", {"type": "jwt"})
        await place.init(tenants_by="jwt")
        pem = self.KEY.as_pem(private=False).decode()
        await place.write("auth/jwt/config", {"jwt_validation_pubkeys": [pem]})
        role = {
            "role_type": "jwt",
            "user_claim": "sub",
            "bound_audiences": ["connectors"],
            "claim_mappings": {"tenant": "tenant"},
            "token_type": "batch",
            "token_policies": ["connectors-tenant"],
            "token_no_default_policy": True,
            "token_ttl": "5m",
        }
        await place.write("auth/jwt/role/tenant", role)
        for name in ("acme", "acme2", "globex"):
            await place.write(f"secret/data/{name}/notion", {"data": {"ciphertext": f"of-{name}"}})
            await place.write(f"transit/keys/{name}", {"derived": True})
        return place

    async def login(self, place: Place, tenant: str) -> None:
        """Go on as that tenant."""
        now = int(time.time())
        claims = {"sub": f"job-of-{tenant}", "aud": "connectors", "tenant": tenant, "iat": now, "exp": now + 300}
        place.root.shows("")
        signed = jwt.encode({"alg": "RS256"}, claims, self.KEY)
        reply = await place.write("auth/jwt/login", {"role": "tenant", "jwt": signed})
        assert reply.field("auth", "token_type") == "batch"
        place.root.shows(reply.text("auth", "client_token"))

    async def status(self, place: Place, method: str, path: str) -> int:
        """What that tenant is answered."""
        body: object = {} if method == "POST" else None
        return (await place.root.call(method, path, body)).status

    async def test_one_reads_its_own_records_and_nothing_else(self, tenants: Place) -> None:
        """Not another's, not one whose name begins like it, not a plaintext, and it writes nothing."""
        await self.login(tenants, "acme")
        for path in ("secret/data/acme/notion", "secret/metadata/acme/?list=true", "transit/keys/acme"):
            assert await self.status(tenants, "GET", path) == 200, path
        for method, path in (
            ("GET", "secret/data/globex/notion"),
            ("GET", "secret/data/acme2/notion"),
            ("GET", "secret/metadata/?list=true"),
            ("GET", "secret/metadata/globex/?list=true"),
            ("GET", "transit/keys/globex"),
            ("GET", "connectors/data/keys/admin"),
            ("POST", "secret/data/acme/notion"),
            ("POST", "transit/decrypt/acme"),
            ("POST", "transit/keys/acme/rotate"),
            ("DELETE", "secret/metadata/acme/notion"),
        ):
            assert await self.status(tenants, method, path) == 403, path

    @pytest.mark.parametrize(
        ("name", "refusal"),
        [("*", 400), ("+", 400), ("acme/*", 400), ("ac*", 400), ("acme/../globex", 400), ("", 403), ("nobody", 403)],
    )
    async def test_a_name_that_would_reach_further_reaches_nothing(
        self, tenants: Place, name: str, refusal: int
    ) -> None:
        """Whatever the identity provider was led to put into the claim: OpenBao refuses to fill the template with it."""
        await self.login(tenants, name)
        for path in ("secret/data/globex/notion", "secret/data/acme/notion", "transit/keys/acme"):
            assert await self.status(tenants, "GET", path) == refusal, path
