"""The configuration file without a server: read with places, filled from outside, laid over, checked, and planned."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import jsonschema_rs
import pytest
import yaml
from google.protobuf.json_format import ParseDict
from hypothesis import given
from hypothesis import strategies as st

from connectors_grpc.configuration import loading
from connectors_grpc.configuration.checking import check
from connectors_grpc.configuration.interpolation import interpolate
from connectors_grpc.configuration.loading import load
from connectors_grpc.configuration.model import Configuration, json_schema
from connectors_grpc.configuration.overlay import merge
from connectors_grpc.configuration.plan import plan
from connectors_grpc.configuration.reading import read
from connectors_grpc.configuration.steps import Action, Match, Phase, Plan, Seen, Stored
from connectors_grpc.configuration.tree import Invalid, Node, Place
from connectors_grpc.configuration.wanted import fields_of, integration_message, material_request, source_of
from connectors_grpc.gen.connectors.v1 import credential_service_pb2 as pb
from connectors_grpc.gen.connectors.v1 import tenant_service_pb2 as tenants
from connectors_grpc.policy import OWNER_LABEL

FOLDER = Path(loading.__file__).parent
JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**60), 2**60)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)


def problems(text: str, file: str = "t.json") -> list[str]:
    """What is wrong with a document's shape."""
    with pytest.raises(Invalid) as caught:
        read(text, file)
    return [str(problem) for problem in caught.value.problems]


# --- reading


@given(JSON, st.sampled_from([None, 1, 4]))
def test_json_reads_as_the_standard_library_reads_it(document: Any, indent: int | None) -> None:
    """Whatever the document; and every member and item lies where its text begins."""
    text = json.dumps(document, indent=indent)
    node = read(text, "t.json")
    assert node.plain() == document
    lines = text.split("\n")

    def walk(found: Node) -> None:
        begins = lines[found.at.line - 1][found.at.column - 1 :]
        if isinstance(found.value, dict):
            assert begins.startswith("{")
            for name, member in found.value.items():
                assert lines[member.at.line - 1][member.at.column - 1 :].startswith(json.dumps(name))
                walk(member.node)
        elif isinstance(found.value, list):
            assert begins.startswith("[")
            for one in found.value:
                walk(one)
        else:
            assert begins.startswith(json.dumps(found.value))

    walk(node)


@given(st.text(alphabet="{}[]:,\"\\ \n01e.-truefalsn#&*!|>?%@`'a\x00\u2028\ud800"))
def test_any_text_is_a_tree_or_a_problem_with_a_place(text: str) -> None:
    """As JSON and as YAML; nothing else ever comes out."""
    for file in ("t.json", "t.yaml"):
        try:
            assert isinstance(read(text, file), Node)
        except Invalid as error:
            (problem,) = error.problems
            assert problem.at.line >= 1
            assert problem.at.column >= 1


@given(JSON)
def test_yaml_says_the_same_as_json(document: Any) -> None:
    """What PyYAML writes is read back, as the same tree."""
    text = yaml.safe_dump(document, allow_unicode=False)
    found = read(text, "t.yml").plain()
    assert found == document or (isinstance(document, float) and math.isclose(float(str(found)), document))


@pytest.mark.parametrize(
    ("text", "place", "words"),
    [
        ('{"a": 1,\n "a": 2}', "2:2", "second time, first on line 1"),
        ('{"a": 1,}', "1:9", "a comma behind the last member is none"),
        ('{"a": 1 "b": 2}', "1:9", "a comma or }"),
        ('{"a" 1}', "1:6", "a colon"),
        ("{\n  a: 1}", "2:3", "a name in double quotes"),
        ('{"a": NaN}', "1:7", "JSON is wanted"),
        ('{"a": "x\ny"}', "1:7", "on one line"),
        ("{} {}", "1:4", "nothing may follow"),
        ("[" * 40, "1:34", "nested deeper"),
        ("", "1:1", "JSON is wanted"),
    ],
)
def test_broken_json_is_told_by_line_and_column(text: str, place: str, words: str) -> None:
    """And what is wanted there."""
    (said,) = problems(text)
    assert said.startswith(f"t.json:{place}: ")
    assert words in said


@pytest.mark.parametrize(
    ("text", "place", "words"),
    [
        ("a: 1\nb: 2\na: 3", "3:1", "second time, first on line 1"),
        ("a: &x {b: 1}\nc: {<<: *x}", "2:5", "merge keys"),
        ("a: 2020-01-01", "1:4", "put it in quotes"),
        ("1: a", "1:1", "put it in quotes"),
        ("a: [", "2:1", "breaks off"),
        ("a: !!python/object:os.system x", "1:4", "a text, a number"),
        ("# nothing", "1:1", "empty"),
        ("a: &a [*b]", "1:8", "breaks off"),
        ("&a [*a]", "1:1", "nested deeper"),
    ],
)
def test_yaml_that_json_could_not_say_is_refused(text: str, place: str, words: str) -> None:
    """Dates, merges, names that are no texts, tags, and what goes round in circles."""
    (said,) = problems(text, "t.yaml")
    assert said.startswith(f"t.yaml:{place}: ")
    assert words in said


def test_aliases_that_multiply_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """A few lines must not become more values than fit into memory."""
    monkeypatch.setattr("connectors_grpc.configuration.reading.MOST_NODES", 10_000)
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]" for n in range(1, 9)]
    assert "aliases" in problems("\n".join(lines), "t.yaml")[0]


# --- what comes from outside


def filled(document: Any, environment: dict[str, str], files: dict[str, str] | None = None) -> tuple[Any, list[str]]:
    """The document after interpolation, and what is missing."""

    def read_file(path: str) -> str:
        if path not in (files or {}):
            raise FileNotFoundError(2, "No such file or directory")
        return (files or {})[path]

    node, missing = interpolate(read(json.dumps(document), "t.json"), environment, read_file)
    return node.plain(), [f"{problem.field}: {problem.text}" for problem in missing]


def test_references_are_replaced_and_signs_can_be_meant() -> None:
    """Several in one text, of the environment and of files, whose last line's end goes; `$${` is the signs themselves."""
    found, missing = filled({"a": "x${A}y${file:b}z", "b": ["$${A}", "$A", "${A}"], "c": 1}, {"A": "1"}, {"b": "two\n"})
    assert (found, missing) == ({"a": "x1ytwoz", "b": ["${A}", "$A", "1"], "c": 1}, [])
    assert filled({"a": "${A}"}, {"A": "${B}"})[0] == {"a": "${B}"}, "what comes from outside is not looked at again"


def test_all_that_is_missing_is_told_at_once() -> None:
    """Each with its field and the fix."""
    _, missing = filled({"a": "${A}", "b": {"c": ["${file:no}", "${", "${1x}", "${}"]}}, {})
    assert [text.partition(": ")[0] for text in missing] == ["a", "b.c[0]", "b.c[1]", "b.c[2]", "b.c[3]"]
    assert "export A" in missing[0]
    assert "No such file" in missing[1]


@given(JSON)
def test_a_document_without_references_is_left_as_it_is(document: Any) -> None:
    """Nothing else is looked at."""
    if "${" not in json.dumps(document):
        assert filled(document, {}) == (document, [])


# --- overlays

RFC_7396 = [
    ({"a": "b"}, {"a": "c"}, {"a": "c"}),
    ({"a": "b"}, {"b": "c"}, {"a": "b", "b": "c"}),
    ({"a": "b"}, {"a": None}, {}),
    ({"a": "b", "b": "c"}, {"a": None}, {"b": "c"}),
    ({"a": ["b"]}, {"a": "c"}, {"a": "c"}),
    ({"a": "c"}, {"a": ["b"]}, {"a": ["b"]}),
    ({"a": {"b": "c"}}, {"a": {"b": "d", "c": None}}, {"a": {"b": "d"}}),
    ({"a": [{"b": "c"}]}, {"a": [1]}, {"a": [1]}),
    (["a", "b"], ["c", "d"], ["c", "d"]),
    ({"a": "b"}, ["c"], ["c"]),
    ({"a": "foo"}, None, None),
    ({"a": "foo"}, "bar", "bar"),
    ({"e": None}, {"a": 1}, {"e": None, "a": 1}),
    ([1, 2], {"a": "b", "c": None}, {"a": "b"}),
    ({}, {"a": {"bb": {"ccc": None}}}, {"a": {"bb": {}}}),
]
"""Source: RFC 7396 appendix A."""


@pytest.mark.parametrize(("base", "patch", "result"), RFC_7396)
def test_overlays_follow_the_standards_own_examples(base: Any, patch: Any, result: Any) -> None:
    """Every one of them."""
    assert merge(read(json.dumps(base), "a"), read(json.dumps(patch), "b")).plain() == result


def test_a_problem_is_told_where_the_value_that_won_stands(tmp_path: Path) -> None:
    """In the overlay for what it brought, in the base for what it left."""
    (tmp_path / "t.json").write_text('{"tenants": {"acme": {"labels": {"a": 1}}}}')
    (tmp_path / "t.dev.json").write_text('{"tenants":\n {"acme": {"quota": {"calls_at_once": -1}}}}')
    with pytest.raises(Invalid) as caught:
        load(tmp_path / "t.json", environment={}, overlay="dev")
    places = [(Path(one.at.file).name, one.at.line, one.field) for one in caught.value.problems]
    assert places == [
        ("t.dev.json", 2, "tenants.acme.quota.calls_at_once"),
        ("t.json", 1, "tenants.acme.labels.a"),
    ]


# --- checking


def checked(tenant: Any, **rest: Any) -> Configuration:
    """A file with one tenant, whose secrets may stand in it."""
    document = {"tenants": {"acme": tenant}, **rest}
    return check(read(json.dumps(document), "t.json"), literal_secrets=True)


def integration(**credential: Any) -> Any:
    """A tenant with one credential."""
    return {"integrations": {"notes": {"credentials": {"notes": credential}}}}


CREDENTIAL = "tenants.acme.integrations.notes.credentials.notes"


@pytest.mark.parametrize(
    ("tenant", "field", "words"),
    [
        ({"label": {}}, "tenants.acme.label", "no such field"),
        ({"labels": {OWNER_LABEL: "me"}}, f"tenants.acme.labels.{OWNER_LABEL}", "`owner`"),
        ({"labels": {"migrated-from": "x"}}, "tenants.acme.labels.migrated-from", "a migration"),
        ({"labels": {"a": "x\ny"}}, "tenants.acme.labels.a", "printable"),
        ({"quota": {"calls_at_once": 1.5}}, "tenants.acme.quota.calls_at_once", "whole number"),
        ({"suspended": "perhaps"}, "tenants.acme.suspended", "true or false"),
        ({"integrations": {"Not_One": {}}}, "tenants.acme.integrations.Not_One", "DNS label"),
        (integration(api_key="k", basic={"username": "u", "password": "p"}), f"{CREDENTIAL}.basic", "at most one"),
        (integration(fields={"a": "b"}), f"{CREDENTIAL}.fields", "go with api_key"),
        (integration(inputs={"site": "a"}), f"{CREDENTIAL}.inputs", "they go with one of"),
        (integration(api_key="with\nline"), f"{CREDENTIAL}.api_key", "visible ASCII"),
        (integration(oauth={"access_token": " t"}), f"{CREDENTIAL}.oauth.access_token", "white space"),
        (integration(basic={"username": "a:b", "password": "p"}), f"{CREDENTIAL}.basic.username", "colon"),
        (integration(oauth={}), f"{CREDENTIAL}.oauth.access_token", "missing"),
        (integration(vault="secret/data/globex/x"), f"{CREDENTIAL}.vault", "another tenant's"),
        (integration(vault="secret/data/acme/a/b"), f"{CREDENTIAL}.vault", "secret/data/acme/NAME"),
        (integration(vault="connectors/data/tenants/acme"), f"{CREDENTIAL}.vault", "secret/data/acme/NAME"),
        (integration(vault="secret/data/acme/notes"), f"{CREDENTIAL}.vault", "stored there"),
        (
            {"integrations": {"a": {"credentials": {"x": {}}}, "b": {"credentials": {"x": {}}}}},
            "tenants.acme.integrations.b.credentials.x",
            "a has a credential of that id",
        ),
        (
            {"integrations": {"a": {"oauth_client": {"client_id": "c", "further_secrets": ["s"]}}}},
            "tenants.acme.integrations.a.oauth_client.further_secrets",
            "go with client_secret",
        ),
    ],
)
def test_what_can_not_be_is_named_with_its_field(tenant: Any, field: str, words: str) -> None:
    """One problem, at its own place, that says what is wanted."""
    with pytest.raises(Invalid) as caught:
        checked(tenant)
    (problem,) = caught.value.problems
    assert (problem.field, problem.at.file) == (field, "t.json")
    assert words in problem.text


def test_a_definition_has_the_contracts_shape() -> None:
    """Of an integration of the platform: a mistyped name is found at its own place, and another type as well."""
    for api, field in (
        ({"base_url": "https://x.example", "headers": {}}, "integrations.wiki.api.headers"),
        ({"placement": {"heders": {}}}, "integrations.wiki.api.placement.heders"),
        ({"base_url": 7}, "integrations.wiki.api"),
    ):
        with pytest.raises(Invalid) as caught:
            checked({}, integrations={"wiki": {"api": api}})
        assert [problem.field for problem in caught.value.problems] == [field]


def test_a_secret_never_stands_in_the_open_and_never_in_a_problem(tmp_path: Path) -> None:
    """Refused unless it is asked for; whatever else is wrong, no message holds it."""
    secret = "hunter2-and-more"
    path = tmp_path / "t.json"
    path.write_text(
        json.dumps(
            {"tenants": {"acme": integration(api_key=secret, oauth={"access_token": 1}, enabled=secret, labels=secret)}}
        )
    )
    with pytest.raises(Invalid) as caught:
        load(path, environment={})
    said = "\n".join(map(str, caught.value.problems))
    assert "${NAME} or ${file:PATH}" in said
    assert secret not in said + repr(caught.value)
    path.write_text(json.dumps({"tenants": {"acme": integration(api_key=secret)}}))
    found = load(path, environment={}, literal_secrets=True).configuration
    assert secret not in repr(found)


def test_files_that_others_could_use_are_warned_of(tmp_path: Path) -> None:
    """A file that others may change, a secret that others may read; and every file that was read is remembered."""
    path, secret = tmp_path / "t.json", tmp_path / "key"
    path.write_text(json.dumps({"tenants": {"acme": integration(api_key="${file:key}")}}))
    secret.write_text("k\n")
    for mode, warned in ((0o600, 0), (0o666, 2)):
        path.chmod(mode)
        secret.chmod(mode)
        found = load(path, environment={})
        assert len(found.warnings) == warned
        assert set(found.files) == {path, secret}


def test_yaml_takes_overlays_and_secrets_as_json_does(tmp_path: Path) -> None:
    """The overlay has the file's own ending; what it takes out is gone, what it changes is changed."""
    (tmp_path / "t.yaml").write_text(
        "tenants:\n  acme:\n    labels: {a: '1', b: '2'}\n    integrations:\n      notes:\n"
        "        credentials: {notes: {api_key: '${KEY}'}}\n  globex: {}\n"
    )
    (tmp_path / "t.staging.yaml").write_text("tenants:\n  acme: {labels: {a: null, b: '3'}}\n  globex: null\n")
    found = load(tmp_path / "t.yaml", environment={"KEY": "k"}, overlay="staging").configuration
    assert list(found.tenants) == ["acme"]
    assert found.tenants["acme"].labels == {"b": "3"}
    with pytest.raises(Invalid) as caught:
        load(tmp_path / "t.yaml", environment={}, overlay="../etc")
    assert "DNS label" in str(caught.value.problems[0])


def test_what_is_wrong_and_what_is_missing_are_told_together(tmp_path: Path) -> None:
    """Nobody mends one to be told of the next; a missing secret is told once."""
    path = tmp_path / "t.json"
    path.write_text(json.dumps({"tenants": {"acme": {**integration(api_key="${NO_SUCH}"), "quotas": {}}}}))
    with pytest.raises(Invalid) as caught:
        load(path, environment={})
    assert [problem.field for problem in caught.value.problems] == [f"{CREDENTIAL}.api_key", "tenants.acme.quotas"]


def test_numbers_and_switches_may_come_from_outside(tmp_path: Path) -> None:
    """As texts of the environment."""
    path = tmp_path / "t.json"
    path.write_text('{"tenants": {"a": {"quota": {"calls_at_once": "${N}"}, "suspended": "${S}"}}}')
    tenant = load(path, environment={"N": "7", "S": "true"}).configuration.tenants["a"]
    assert tenant.quota is not None
    assert (tenant.quota.calls_at_once, tenant.suspended) == (7, True)


# --- what is shipped


def test_the_schema_that_is_shipped_is_the_models() -> None:
    """Drift is told: `make docs` writes it anew."""
    assert json.loads((FOLDER / "tenants.schema.json").read_text()) == json_schema()


def test_the_example_that_is_shipped_is_good_by_model_and_schema(tmp_path: Path) -> None:
    """Three tenants; and what the model refuses, the schema refuses too."""
    text = (FOLDER / "tenants.example.json").read_text()
    (tmp_path / "tenants.json").write_text(text)
    (tmp_path / "secrets").mkdir()
    (tmp_path / "secrets" / "acme-github-bots").write_text("token")
    names = ("ACME_OPENAI_KEY", "ACME_NOTION_SECRET", "GLOBEX_OPENAI_KEY")
    found = load(tmp_path / "tenants.json", environment=dict.fromkeys(names, "secret"))
    assert len(found.configuration.tenants) == 3
    schema = jsonschema_rs.validator_for(json_schema())
    assert schema.is_valid(json.loads(text))
    broken: Any
    for broken in (
        {"label": {}},
        {"quota": {"calls_at_once": -1}},
        integration(api_key="in the open"),
        {"Not_One": {}},
    ):
        assert not schema.is_valid({"tenants": {"acme": broken}})


# --- as messages


@pytest.mark.parametrize(
    ("material", "message", "source"),
    [
        (
            {"api_key": "k", "fields": {"region": "eu"}, "inputs": {"site": "a"}},
            {"api_key": {"api_key": "k", "fields": {"region": "eu"}}, "inputs": {"site": "a"}},
            "api_key the file",
        ),
        (
            {"basic": {"username": "u", "password": "p"}},
            {"basic": {"username": "u", "password": "p"}},
            "basic, password the file",
        ),
        (
            {
                "oauth": {
                    "access_token": "a",
                    "refresh_token": "r",
                    "scopes": ["s"],
                    "expire_time": "2027-01-01T01:00:00+01:00",
                }
            },
            {
                "oauth": {
                    "access_token": "a",
                    "refresh_token": "r",
                    "scopes": ["s"],
                    "expire_time": "2027-01-01T00:00:00Z",
                }
            },
            "oauth, access_token the file",
        ),
        (
            {"grant": {"installation_id": "7", "scopes": ["s"]}},
            {"grant": {"installation_id": "7", "scopes": ["s"]}},
            "grant",
        ),
        ({"grant": {"subject_token": "t"}}, {"grant": {"subject_token": "t"}}, "grant, subject_token the file"),
        ({"grant": {}}, {"grant": {}}, "grant"),
        (
            {"vault": "secret/data/acme/x.seed"},
            {"vault": {"path": "secret/data/acme/x.seed"}},
            "vault secret/data/acme/x.seed",
        ),
        ({}, None, ""),
    ],
)
def test_every_material_is_sent_as_the_contract_has_it(
    material: dict[str, Any], message: dict[str, Any] | None, source: str
) -> None:
    """With the owner's mark among its labels; and its source is told without it."""
    part = full(**material).tenants["acme"].integrations
    assert part is not None
    credential = part["notes"].credentials["notes"]
    request = material_request("acme", "notes", "notes", credential, "us")
    if message is None:
        assert request is None
        return
    where = {"tenant": "acme", "integration": "notes", "credential": "notes", "labels": {OWNER_LABEL: "us"}}
    assert request == ParseDict({**where, **message}, pb.StoreCredentialRequest())
    assert source_of(credential) == source


def test_an_integration_of_the_platform_says_only_what_the_file_says() -> None:
    """And its mask names exactly that."""
    given = {
        "display_name": "Wiki",
        "api": {"base_url": "https://x.example", "placement": {"basic": {"username": "{username}"}}},
        "oauth": {"token_endpoint": "https://x.example/t", "grant": "GRANT_CLIENT_CREDENTIALS", "scopes": ["a"]},
        "allow_private_addresses": True,
        "oauth_client": {"client_id": "c", "client_secret": "s", "further_secrets": ["o"], "key_id": "k"},
    }
    part = checked({}, integrations={"wiki": given}).integrations["wiki"]
    assert integration_message("wiki", part).oauth_client.client_secrets == ["o"]
    for left_out in given:
        some = {name: value for name, value in given.items() if name != left_out}
        part = checked({}, integrations={"wiki": some}).integrations["wiki"]
        message = integration_message("wiki", part)
        assert {field.name for field, _ in message.ListFields()} == {"id", *some}
        assert set(fields_of(part)) == set(some)


# --- planning


def full(**credential: Any) -> Configuration:
    """A tenant with one credential and a client of its own."""
    tenant = integration(**credential) | {"labels": {"plan": "pro"}, "quota": {"calls_at_once": 3}}
    tenant["integrations"]["notes"]["oauth_client"] = {"client_id": "c", "client_secret": "s"}
    return checked(tenant, owner="us")


def stored(**fields: Any) -> pb.Credential:
    """A credential as a server has it."""
    given: dict[str, Any] = {
        "tenant": "acme", "id": "notes", "integration": "notes", "enabled": True, "state": pb.Credential.STATE_ACTIVE,
        "labels": {OWNER_LABEL: "us"},
    } | fields  # fmt: skip
    return pb.Credential(**given)


def record(**fields: Any) -> tenants.Tenant:
    """The tenant as a server has it once the file was applied."""
    given: dict[str, Any] = {
        "id": "acme", "display_name": "acme", "state": tenants.Tenant.STATE_ACTIVE,
        "labels": {"plan": "pro", OWNER_LABEL: "us"}, "quota": tenants.Quota(calls_at_once=3),
        "allowed_integrations": tenants.AllowedIntegrations(integrations=["notes"]),
    } | fields  # fmt: skip
    return tenants.Tenant(**given)


def seen(
    tenant: tenants.Tenant | None = None, credential: Stored | None = None, client: Match = Match.EQUAL, **rest: Any
) -> Seen:
    """What a server says."""
    held = {("acme", "notes"): credential or Stored(Match.EQUAL, stored())}
    return Seen({"acme": tenant or record()}, {}, {("acme", "notes"): client}, held, **rest)


def steps(made: Plan) -> list[tuple[Phase, Action]]:
    """Their phases and actions."""
    return [(step.phase, step.action) for step in made.steps]


def test_what_is_as_it_should_be_asks_for_nothing() -> None:
    """No step, no note; and all of it is counted."""
    made = plan(full(api_key="k"), seen(), prune=True)
    assert (made.steps, made.notes, made.refusals, made.unchanged) == ((), (), (), 3)


def test_a_new_tenant_is_made_before_what_it_holds_and_suspended_last() -> None:
    """Whatever the order in the file; what is disabled is stored first, then switched off."""
    tenant = integration(api_key="k", enabled=False) | {"suspended": True}
    made = plan(checked(tenant), Seen())
    assert steps(made) == [
        (Phase.TENANT, Action.CREATE),
        (Phase.CREDENTIAL, Action.CREATE),
        (Phase.SETTING, Action.CHANGE),
        (Phase.SUSPEND, Action.CHANGE),
    ]


@pytest.mark.parametrize(
    ("said", "phase", "words"),
    [
        (seen(record(display_name="Old")), Phase.TENANT, "display_name: Old -> acme"),
        (seen(record(labels={"plan": "free", OWNER_LABEL: "us"})), Phase.TENANT, "plan=free"),
        (seen(record(quota=None)), Phase.TENANT, "quota: no bound -> calls_at_once 3"),
        (seen(record(allowed_integrations=None)), Phase.TENANT, "allowed_integrations: all -> notes"),
        (seen(client=Match.DIFFERENT), Phase.CLIENT, "client_id c"),
        (seen(credential=Stored(Match.DIFFERENT, stored())), Phase.CREDENTIAL, "other material than api_key the file"),
        (seen(credential=Stored(Match.EQUAL, stored(enabled=False))), Phase.SETTING, "enable"),
        (seen(credential=Stored(Match.EQUAL, stored(labels={}))), Phase.SETTING, f"labels: none -> {OWNER_LABEL}=us"),
        (seen(credential=Stored(Match.UNKNOWN)), Phase.CREDENTIAL, "if it is not stored yet"),
    ],
)
def test_each_difference_is_one_step_that_says_what_changes(said: Seen, phase: Phase, words: str) -> None:
    """From what to what; never a secret."""
    made = plan(full(api_key="k"), said)
    (step,) = made.steps
    assert step.phase is phase
    assert words in " ".join(step.what)


def test_what_a_person_decided_is_not_undone() -> None:
    """A revoked credential stays revoked, a staged one staged, a suspended tenant suspended: each with a note."""
    for there in (stored(state=pb.Credential.STATE_REVOKED), stored(state_detail="staged", enabled=False)):
        made = plan(full(api_key="k"), seen(credential=Stored(Match.DIFFERENT, there)))
        assert (made.steps, len(made.notes)) == ((), 1)
    frozen = record(state=tenants.Tenant.STATE_SUSPENDED)
    made = plan(full(api_key="k"), Seen({"acme": frozen}))
    assert (made.steps, len(made.notes)) == ((), 1)
    lifted = checked({**integration(), "suspended": False})
    assert (Phase.RESUME, Action.CHANGE) in steps(plan(lifted, Seen({"acme": frozen}), adopt=True))


def test_what_a_provider_refuses_is_not_stored_again_and_again() -> None:
    """Or each apply would bring it back to life until its next refresh; newer tokens in the file are stored."""
    there = stored(state=pb.Credential.STATE_NEEDS_REAUTH)
    made = plan(full(api_key="k"), seen(credential=Stored(Match.ENDED, there)))
    assert (made.steps, "needs_reauth" in made.notes[0]) == ((), True)
    made = plan(full(api_key="k"), seen(credential=Stored(Match.DIFFERENT, there)))
    assert steps(made) == [(Phase.CREDENTIAL, Action.CHANGE)]


def test_what_a_person_connects_is_noted_until_it_is_there() -> None:
    """With the command; once it is there, labels and switch are the file's."""
    made = plan(full(), seen(credential=Stored(Match.ABSENT)))
    assert "connectors credential connect acme notes" in made.notes[0]
    made = plan(full(enabled=False), seen(credential=Stored(Match.UNKNOWN, stored())))
    assert steps(made) == [(Phase.SETTING, Action.CHANGE)]


def test_what_is_not_enabled_is_left_as_it_is() -> None:
    """The tenant may not use it; its credential and client are not touched, nor asked about."""
    tenant = integration(api_key="k")
    tenant["integrations"]["notes"]["enabled"] = False
    made = plan(checked(tenant), Seen())
    assert steps(made) == [(Phase.TENANT, Action.CREATE)]
    assert "allowed_integrations: none" in made.steps[0].what


def test_another_files_tenant_is_taken_over_only_if_that_is_said() -> None:
    """Refused with its owner; an unmarked one is taken, and the plan shows it."""
    theirs = record(labels={"plan": "pro", OWNER_LABEL: "them"})
    made = plan(full(api_key="k"), seen(theirs))
    assert (made.steps, "owner them" in made.refusals[0]) == ((), True)
    assert steps(plan(full(api_key="k"), seen(theirs), adopt=True)) == [(Phase.TENANT, Action.CHANGE)]
    assert steps(plan(full(api_key="k"), seen(record(labels={"plan": "pro"})))) == [(Phase.TENANT, Action.CHANGE)]


def test_pruning_takes_only_what_carries_the_files_mark() -> None:
    """Tenants and credentials of its owner that it no longer names; not another's, not an unmarked one, not what is gone."""
    others = {
        "ours": record(id="ours"),
        "theirs": record(id="theirs", labels={OWNER_LABEL: "them"}),
        "nobodys": record(id="nobodys", labels={}),
        "going": record(id="going", state=tenants.Tenant.STATE_DELETING),
    }
    left = (
        stored(),
        stored(id="old"),
        stored(id="by-hand", labels={}),
        stored(id="revoked", state=pb.Credential.STATE_REVOKED),
    )
    base = seen()
    said = Seen(base.tenants | others, {}, base.clients, base.credentials, left)  # type: ignore[operator]
    wanted = full(api_key="k")
    assert plan(wanted, said).steps == ()
    made = plan(wanted, said, prune=True)
    assert [(step.phase, step.tenant, step.name) for step in made.steps] == [
        (Phase.REVOKE, "acme", "old"),
        (Phase.DELETE, "ours", ""),
    ]


def test_a_place_reads_as_editors_take_it() -> None:
    """file:line:column."""
    assert str(Place("t.json", 3, 14)) == "t.json:3:14"
