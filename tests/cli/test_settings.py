"""Settings: which source wins, what is refused, and that an error says where the value came from."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner

from connectors_grpc.addresses import Address, AddressInvalid, check_vault_address, require_tls_unless_loopback
from connectors_grpc.cli.main import root
from connectors_grpc.settings import ServerSettings, SettingsInvalid, UpSettings, describe, load
from tests.cli.conftest import clean_environment


@pytest.fixture(autouse=True)
def _clean(monkeypatch: pytest.MonkeyPatch) -> None:
    clean_environment(monkeypatch)


def problem(flags: dict[str, object], config: Path | None = None) -> str:
    """What `load` says of settings that it refuses."""
    with pytest.raises(SettingsInvalid) as caught:
        load(UpSettings, flags, config)
    return str(caught.value)


class TestSources:
    """Flag, then environment, then file, then default."""

    def test_each_source_yields_to_the_one_before(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """A value is taken from the first source that has one."""
        config = tmp_path / "c.toml"
        config.write_text('grpc_listen = "127.0.0.1:1"\nhttp_listen = "127.0.0.1:2"\nsidecar_listen = "127.0.0.1:3"\n')
        monkeypatch.setenv("CONNECTORS_HTTP_LISTEN", "127.0.0.1:20")
        monkeypatch.setenv("CONNECTORS_SIDECAR_LISTEN", "127.0.0.1:30")
        found = load(UpSettings, {"sidecar_listen": "127.0.0.1:300", "http_listen": None}, config)
        ports = (found.grpc_listen.port, found.http_listen.port, found.sidecar_listen.port, found.simulator_listen.port)
        assert ports == (1, 20, 300, 15080)

    def test_yaml_and_the_variable_for_the_file_work_too(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """CONNECTORS_CONFIG names the file where --config does not."""
        config = tmp_path / "c.yaml"
        config.write_text("public_url: https://connectors.example/\n")
        monkeypatch.setenv("CONNECTORS_CONFIG", str(config))
        assert load(ServerSettings, {}).base_url == "https://connectors.example"

    def test_an_empty_variable_is_unset(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """`CONNECTORS_GRPC_LISTEN=` in a unit file means nothing was said."""
        monkeypatch.setenv("CONNECTORS_GRPC_LISTEN", "")
        assert load(ServerSettings, {}).grpc_listen.port == 50051

    def test_one_file_may_serve_both_processes(self, tmp_path: Path) -> None:
        """The server overlooks what only `up` knows."""
        config = tmp_path / "c.toml"
        config.write_text('sidecar_listen = "127.0.0.1:3"\n')
        assert load(ServerSettings, {}, config).grpc_listen.port == 50051

    def test_the_state_directory_follows_xdg(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """$XDG_STATE_HOME/connectors; a relative one is not valid by the specification."""
        monkeypatch.setenv("XDG_STATE_HOME", "/var/state")
        assert load(ServerSettings, {}).state_dir == Path("/var/state/connectors")
        monkeypatch.setenv("XDG_STATE_HOME", "relative")
        assert load(ServerSettings, {}).state_dir == Path.home() / ".local/state/connectors"

    def test_the_public_url_follows_the_listener(self) -> None:
        """Unless it is set."""
        assert load(ServerSettings, {"http_listen": "127.0.0.1:9"}).base_url == "http://127.0.0.1:9"


class TestRefusals:
    """Every refusal names setting, source and fix."""

    def test_the_source_is_named(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """Flag, variable or file: where the value is to be mended."""
        assert problem({"grpc_listen": "x"}).startswith("grpc_listen (--grpc-listen): HOST:PORT is wanted")
        config = tmp_path / "c.toml"
        config.write_text('log_level = "loud"\n')
        assert problem({}, config).startswith(f"log_level ({config}): ")
        monkeypatch.setenv("CONNECTORS_VAULT_ADDR", "http://vault.example:8200")
        assert problem({}).startswith("vault_addr (CONNECTORS_VAULT_ADDR): the address is not loopback")

    @pytest.mark.parametrize("setting", ["grpc_listen", "http_listen"])
    def test_a_listener_beyond_loopback_needs_tls(self, setting: str) -> None:
        """Keys would cross the network in the clear."""
        assert "not loopback" in problem({setting: "0.0.0.0:1"})
        tls = {"tls_cert": "c.pem", "tls_key": "k.pem", "public_url": "https://connectors.example"}
        load(UpSettings, {setting: "0.0.0.0:1", **tls})

    @pytest.mark.parametrize(
        "flags",
        [
            {"tls_cert": "c.pem"},
            {"vault_addr": "https://v:8200"},
            {"vault_role_id": "r"},
            {"vault_addr": "https://v:8200", "vault_token_file": "t", "vault_secret_id_file": "s"},
            {"public_url": "http://connectors.example"},
            {"sidecar_listen": "0.0.0.0:15001"},
            {"simulator_listen": "[2001:db8::1]:15080"},
            {"http_listen": "unix:/tmp/s"},
            {"grpc_listen": "127.0.0.1:0"},
            {"http_listen": "0.0.0.0:1", "tls_cert": "c.pem", "tls_key": "k.pem"},
            {"vault_token_file": "t"},
            {"client_certs": "bank=/c.pem"},
            {"client_certs": "bank=/c.pem,/k.pem bank=/d.pem,/k.pem"},
            {"vault_addr": "https://v", "vault_token_file": "t", "seal_key": "k"},
        ],
    )
    def test_what_does_not_fit_together_is_refused(self, flags: dict[str, object]) -> None:
        """Half a certificate, half a login, two logins, plain text to the world, a port that nobody is told."""
        problem(flags)

    def test_a_misspelt_setting_is_refused(self, tmp_path: Path) -> None:
        """A file's typing error does not pass as a default."""
        config = tmp_path / "c.toml"
        config.write_text('grpc_listn = "127.0.0.1:1"\n')
        assert "grpc_listn" in problem({}, config)

    @pytest.mark.parametrize("name", ["c.toml", "c.yaml"])
    @pytest.mark.parametrize("content", [b"\xff\xff", b"[", b"- a\n- b\n", b"{[:"])
    def test_a_damaged_file_is_refused(self, tmp_path: Path, name: str, content: bytes) -> None:
        """Whatever is in it."""
        config = tmp_path / name
        config.write_bytes(content)
        assert str(config) in problem({}, config)

    def test_the_command_exits_with_2(self) -> None:
        """A wrong setting is a usage error."""
        result = CliRunner().invoke(root, ["serve", "--grpc-listen", "nonsense"])
        assert result.exit_code == 2
        assert "--grpc-listen" in result.output


class TestAddresses:
    """What is an address, and which may be spoken to in the clear."""

    @pytest.mark.parametrize("text", ["127.0.0.1:1", "[::1]:65535", "localhost:0", "unix:/run/a.sock"])
    def test_an_address_reads_as_it_was_written(self, text: str) -> None:
        """Parsing and printing are inverse."""
        assert str(Address.parse(text)) == text

    @pytest.mark.parametrize(
        "text", ["", ":1", "a", "a:b", "a:65536", "a:-1", "::1:1", "[a]:1", "u@h:1", "unix:a", "a:١"]
    )
    def test_what_is_no_address_is_refused(self, text: str) -> None:
        """Without guessing."""
        with pytest.raises(AddressInvalid):
            Address.parse(text)

    @pytest.mark.parametrize(
        "host", ["10.0.0.1", "0.0.0.0", "::", "example.com", "127.0.0.1.example.com", "localhost.example"]
    )
    def test_plain_text_beyond_loopback_is_refused(self, host: str) -> None:
        """No name is looked up: what only looks like loopback is not."""
        with pytest.raises(AddressInvalid):
            require_tls_unless_loopback(Address(host, 1), tls=False)
        require_tls_unless_loopback(Address(host, 1), tls=True)

    @pytest.mark.parametrize(
        "text", ["http://10.0.0.1:8200", "ftp://a", "https://u:p@v", "https://v/?a", "unix:rel", "vault"]
    )
    def test_a_vault_in_the_clear_or_malformed_is_refused(self, text: str) -> None:
        """https, or loopback, or a socket."""
        with pytest.raises(AddressInvalid):
            check_vault_address(text)


def test_every_setting_is_described() -> None:
    """The documentation is made from the models, so none may lack words."""
    for item in describe():
        assert item.description.endswith("."), item.name
        assert item.variable == "CONNECTORS_" + item.name.upper()


def test_the_list_of_settings_covers_every_process() -> None:
    """`connectors settings --json` feeds the documentation."""
    result = CliRunner().invoke(root, ["settings", "--json"])
    assert {row["process"] for row in json.loads(result.output)} == {"serve, up", "up", "commands", "sidecar"}
