"""The forms of old records: what is taken, what is refused, and how newer tokens go back into each."""

from __future__ import annotations

import contextlib
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from connectors_grpc.domain.records import CredentialKind
from connectors_grpc.legacy import FormUnknown, OldCredential, OldDocument, closed, opened, parse, renewed, to_seal
from connectors_grpc.legacy_map import MapUnusable, read_map
from connectors_grpc.migration.items import Item, items_of, proposals, proposed
from connectors_grpc.secret import Secret
from connectors_grpc.vault.old_layout import Place

NOON = datetime(2026, 5, 4, 12, 0, 0, tzinfo=UTC)
SECONDS = int(NOON.timestamp())

TAKEN: list[tuple[dict[str, Any], CredentialKind, datetime | None, tuple[str, ...]]] = [
    ({"access_token": "a"}, CredentialKind.OAUTH, None, ()),
    ({"access_token": "a", "expires_at": SECONDS}, CredentialKind.OAUTH, NOON, ()),
    ({"access_token": "a", "expires_at": str(SECONDS)}, CredentialKind.OAUTH, NOON, ()),
    ({"access_token": "a", "expires_at": "2026-05-04T14:00:00+02:00"}, CredentialKind.OAUTH, NOON, ()),
    ({"access_token": "a", "expires_at": "2026-05-04T12:00:00Z"}, CredentialKind.OAUTH, NOON, ()),
    ({"access_token": "a", "expires_in": 60, "obtained_at": SECONDS - 60}, CredentialKind.OAUTH, NOON, ()),
    ({"access_token": "a", "expires_in": "60", "obtained": "2026-05-04T11:59:00Z"}, CredentialKind.OAUTH, NOON, ()),
    ({"access_token": "a", "token_type": "bearer", "scope": "x y"}, CredentialKind.OAUTH, None, ("x", "y")),
    ({"access_token": "a", "scopes": ["x", "y"], "tenant_id": 7}, CredentialKind.OAUTH, None, ("x", "y")),
    ({"access_token": "a", "refresh_token": None, "scopes": "x"}, CredentialKind.OAUTH, None, ("x",)),
    ({"api_key": "k", "created_at": "x", "provider": "y"}, CredentialKind.API_KEY, None, ()),
    ({"username": "u", "password": "p"}, CredentialKind.BASIC, None, ()),
    ({"username": "u"}, CredentialKind.BASIC, None, ()),
]


@pytest.mark.parametrize(("fields", "kind", "end", "scopes"), TAKEN)
def test_a_form_that_is_documented_is_taken(
    fields: dict[str, Any], kind: CredentialKind, end: datetime | None, scopes: tuple[str, ...]
) -> None:
    """Each way of saying when a token ends, and which scopes it has."""
    found = parse(OldDocument(fields))
    assert (found.kind, found.expire_time, found.scopes) == (kind, end, scopes)


REFUSED: list[tuple[dict[str, Any], str]] = [
    ({}, "exactly one of"),
    ({"token": "a"}, "exactly one of"),
    ({"access_token": "a", "api_key": "k"}, "exactly one of"),
    ({"access_token": "a", "account": "x"}, "account is not known"),
    ({"api_key": "k", "sk-live-0123456789012345678901234567": 1}, "can't be shown"),
    ({"access_token": 7}, "access_token is no text"),
    ({"access_token": ""}, "access_token is no text"),
    ({"access_token": "a", "token_type": "mac"}, "token_type"),
    ({"access_token": "a", "expires_in": 60}, "obtained_at"),
    ({"access_token": "a", "expires_in": -1, "obtained": 0}, "number of seconds"),
    ({"access_token": "a", "expires_in": "soon", "obtained": 0}, "number of seconds"),
    ({"access_token": "a", "expires_at": SECONDS * 1000}, "neither seconds"),
    ({"access_token": "a", "expires_at": "2026-05-04T12:00:00"}, "neither seconds"),
    ({"access_token": "a", "expires_at": "nan"}, "neither seconds"),
    ({"access_token": "a", "expires_at": True}, "neither seconds"),
    ({"access_token": "a", "scope": "x", "scopes": ["x"]}, "both"),
    ({"access_token": "a", "scopes": [1]}, "texts"),
    ({"access_token": "a", "scopes": 1}, "texts"),
    ({"username": "u", "password": 1}, "password is no text"),
]


@pytest.mark.parametrize(("fields", "why"), REFUSED)
def test_what_is_in_no_form_is_refused_with_the_reason(fields: dict[str, Any], why: str) -> None:
    """And without any of its values."""
    with pytest.raises(FormUnknown, match=why) as caught:
        parse(OldDocument(fields))
    assert "sk-live" not in str(caught.value)


def test_a_field_that_is_not_needed_is_left_out_if_an_operator_says_so() -> None:
    """Not otherwise."""
    assert parse(OldDocument({"api_key": "k", "note": "x"}), ignore=("note",)).kind is CredentialKind.API_KEY


@given(st.dictionaries(st.text() | st.sampled_from(["access_token", "expires_at", "expires_in", "obtained", "scope"]),
                       st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.lists(st.text())))  # fmt: skip
def test_any_document_is_taken_or_refused(fields: dict[str, Any]) -> None:
    """Nothing else comes out."""
    with contextlib.suppress(FormUnknown):
        parse(OldDocument(fields))


@pytest.mark.parametrize("content", ["[]", "no json", '"x"'])
def test_a_whole_ciphertext_must_be_an_object(content: str) -> None:
    """Neither a list nor anything else."""
    with pytest.raises(FormUnknown):
        opened({"ciphertext": "vault:v1:x"}, {"vault:v1:x": content})


@pytest.mark.parametrize("fields", [each for each, kind, _, _ in TAKEN if kind is CredentialKind.OAUTH])
@pytest.mark.parametrize("how", ["plain", "sealed", "whole"])
@pytest.mark.parametrize("end", [None, NOON + timedelta(hours=3, microseconds=7)])
def test_newer_tokens_go_back_and_are_read_again(fields: dict[str, Any], how: str, end: datetime | None) -> None:
    """To the second, in every form; what was sealed is sealed again."""
    sealed = frozenset(("access_token",)) if how == "sealed" else frozenset[str]()
    newer = OldCredential(CredentialKind.OAUTH, {"access_token": Secret("A")}, Secret("R"), end, ("z",))
    before = OldDocument(fields, sealed, whole=how == "whole")
    document = renewed(before, newer, NOON + timedelta(seconds=1, microseconds=9))
    seal = {text: f"vault:v2:{number}" for number, text in enumerate(to_seal(document))}
    stored = closed(document, seal)
    plain = {ciphertext: text for text, ciphertext in seal.items()}
    again = opened(stored, plain)
    found = parse(again)
    assert found.fields["access_token"] == Secret("A")
    assert found.refresh_token == Secret("R")
    assert found.scopes == (("z",) if parse(before).scopes else ())
    if end is None:
        assert found.expire_time is None
    else:
        assert found.expire_time is not None
        assert abs(found.expire_time - end) < timedelta(seconds=1)
    if how == "sealed":
        assert again.sealed == {"access_token", "refresh_token"}
    assert again.whole is (how == "whole")


class TestNames:
    """Old tenants' names, and the ids that they get."""

    place = Place("secret", "tenants", 2, "transit")

    def test_a_proposal_is_a_label_and_no_two_are_the_same(self) -> None:
        """Also where nothing of a name is left."""
        names = ["ACME Corp", "acme.corp", "acme-corp", "ÄÖ", "-", "x" * 80]
        items = [Item(name, "notes", name if name == "acme-corp" else "") for name in names]
        found = dict(proposals(items))
        assert found == {
            "ACME Corp": "acme-corp-2", "acme.corp": "acme-corp-3", "-": "tenant", "ÄÖ": "tenant-2", "x" * 80: "x" * 63,
        }  # fmt: skip
        assert proposed("ACME Corp") == "acme-corp"

    def test_two_old_tenants_never_become_one(self) -> None:
        """Both are left alone."""
        found = items_of({"a": ["notes"], "A": ["notes"]}, {"A": "a"}, place=self.place, fresh=True, known={"notes"})
        assert [bool(item.problem) for item in found] == [True, True]
        assert "two old tenants" in found[0].problem

    def test_in_place_a_tenant_keeps_off_what_is_old(self) -> None:
        """The old folder and the old keys; in another Vault they are no matter."""
        names = {"tenants": ["notes"], "notes-x": ["notes"], "x": ["notes"]}
        for fresh, problems in ((False, [True, True, False]), (True, [False, False, False])):
            found = items_of(names, {}, place=self.place, fresh=fresh, known={"notes"})
            assert [
                bool(item.problem) for item in sorted(found, key=lambda item: list(names).index(item.tenant))
            ] == problems

    @pytest.mark.parametrize(
        ("content", "why"),
        [(b"a,Not a label\n", "line 1"), (b"old,new\na\n", "line 2"), (b"a,b\na,c\n", "line 2"), (b"\xff\n", "UTF-8")],
    )
    def test_a_map_that_can_not_be_used_says_where(self, tmp_path: Path, content: bytes, why: str) -> None:
        """By its line."""
        (tmp_path / "m").write_bytes(content)
        with pytest.raises(MapUnusable, match=why):
            read_map(tmp_path / "m")
        with pytest.raises(MapUnusable, match="can't be read"):
            read_map(tmp_path / "none")

    def test_a_map_may_have_a_heading_and_quotes(self, tmp_path: Path) -> None:
        """As CSV has them."""
        (tmp_path / "m").write_text('old,new\n"A, Inc.",a\n')
        assert read_map(tmp_path / "m") == {"A, Inc.": "a"}
