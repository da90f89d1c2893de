"""The supervisor's parts one by one: ports, back-off, logs, the small browser, command lines."""

from __future__ import annotations

import asyncio
import io
import os
import socket
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from connectors_grpc.addresses import Address, default_state_dir
from connectors_grpc.embedded import StateLayout
from connectors_grpc.settings import UpSettings, load
from connectors_grpc.supervisor import ports
from connectors_grpc.supervisor.browser import Browser, BrowsingFailed, Form, first_form
from connectors_grpc.supervisor.journal import KEEP, Journal
from connectors_grpc.supervisor.keeper import LONGEST_DELAY, delay, keep
from connectors_grpc.supervisor.parts import server_arguments, sidecar_arguments
from connectors_grpc.supervisor.problem import Problem
from connectors_grpc.supervisor.report import Report
from connectors_grpc.supervisor.service import child_environment
from connectors_grpc.supervisor.summary import exports
from tests.cli.conftest import clean_environment


class TestPorts:
    """What is listened on is looked at first."""

    def test_a_port_that_is_held_is_named_with_its_holder(self) -> None:
        """Port, setting, pid, and the flag that helps."""
        with socket.create_server(("127.0.0.1", 0)) as held:
            port = held.getsockname()[1]
            with pytest.raises(Problem) as caught:
                ports.check({"http_listen": Address("127.0.0.1", port)}, patience=0)
        assert f"Port {port}" in caught.value.message
        assert f"process {os.getpid()} " in caught.value.message
        assert "--http-listen" in caught.value.fix

    def test_two_settings_cannot_share_a_port(self) -> None:
        """Both are named."""
        with pytest.raises(Problem, match="grpc_listen and http_listen"):
            ports.check({"grpc_listen": Address("127.0.0.1", 1), "http_listen": Address("127.0.0.1", 1)})

    def test_a_socket_that_answers_is_taken_and_a_stale_one_is_not(self, tmp_path: Path) -> None:
        """A file that a killed predecessor left does not stop a start."""
        path = tmp_path / "s"
        with socket.socket(socket.AF_UNIX) as held:
            held.bind(str(path))
            held.listen()
            with pytest.raises(Problem):
                ports.check({"sidecar_listen": Address("", 0, str(path))}, patience=0)
        ports.check({"sidecar_listen": Address("", 0, str(path))}, patience=0)

    def test_an_address_of_no_interface_is_refused(self) -> None:
        """It is not in use; it is not ours."""
        with pytest.raises(Problem, match="can't be listened on"):
            ports.check({"grpc_listen": Address("192.0.2.1", 50051)}, patience=0)


class Flaky:
    """A service that dies as often as it is told, and fails to start as often as it is told."""

    name = "flaky"
    pid = None

    def __init__(self, deaths: int, refusals: int) -> None:
        self.deaths = deaths
        self.refusals = refusals
        self.starts = 0
        self.steady = asyncio.Event()

    async def start(self) -> None:
        """Start, or refuse."""
        if self.refusals:
            self.refusals -= 1
            raise Problem("It will not.", "Wait.")
        self.starts += 1

    async def wait_exit(self) -> int:
        """Die, or stay."""
        if self.deaths:
            self.deaths -= 1
            return -9
        self.steady.set()
        await asyncio.Event().wait()
        return 0

    async def stop(self) -> None:
        """Nothing to do."""


class TestKeeping:
    """What died is started again."""

    async def test_a_service_comes_back_after_deaths_and_refusals(self) -> None:
        """However both mix; the person is told of each."""
        service, told = Flaky(deaths=2, refusals=1), io.StringIO()
        keeping = asyncio.create_task(keep(service, Report(told, io.StringIO())))
        async with asyncio.timeout(60):
            await service.steady.wait()
        keeping.cancel()
        assert service.starts == 2
        assert told.getvalue().count("ended by signal 9") == 2
        assert "It will not. Wait. Next attempt in" in told.getvalue()

    @given(st.integers(0, 10_000))
    def test_the_wait_grows_and_is_capped(self, failures: int) -> None:
        """Never negative, never shorter than before, never above the cap."""
        assert 0 < delay(failures) <= delay(failures + 1) <= LONGEST_DELAY

    def test_a_terminal_that_has_gone_does_no_harm(self) -> None:
        """Writing fails; what runs goes on."""

        class Gone(io.StringIO):
            def write(self, _: str) -> int:
                raise BrokenPipeError

        Report(Gone(), Gone()).ready("server", 1.0)
        Report(Gone(), Gone()).summary(["x"])


class TestJournal:
    """A child's log is bounded, private and printable."""

    async def test_it_rotates_and_keeps_so_many(self, tmp_path: Path) -> None:
        """However much a child writes."""
        path = tmp_path / "x.log"
        journal = Journal("x", path, echo=False, max_bytes=100)
        for number in range(20):
            stream = asyncio.StreamReader()
            stream.feed_data(b"%d" % number * 60)
            stream.feed_eof()
            await journal.follow(stream)
        files = sorted(tmp_path.iterdir())
        assert [file.name for file in files] == ["x.log", *(f"x.log.{n}" for n in range(1, KEEP + 1))]
        assert all(file.stat().st_mode & 0o777 == 0o600 and file.stat().st_size <= 120 for file in files)

    async def test_last_words_are_of_this_start_and_cannot_steer(self, tmp_path: Path) -> None:
        """Not of the start before; escape sequences are masked."""
        path = tmp_path / "x.log"
        path.write_text("old\n")
        journal = Journal("x", path, echo=False)
        journal.begin()
        stream = asyncio.StreamReader()
        stream.feed_data(b"new \x1b[2J\n\xff\n")
        stream.feed_eof()
        await journal.follow(stream)
        assert journal.last_words() == ["new ?[2J", "\ufffd"]


class TestBrowser:
    """The demo's small browser."""

    def test_it_fills_in_the_first_form_as_a_person_would(self) -> None:
        """Hidden fields, the first option, the first button; a second form is left alone."""
        html = (
            '<form method="POST" action="/go?a=1"><input type="hidden" name="h" value="&lt;1&gt;"><input name="t">'
            '<select name="who"><option value="alice">A</option><option value="bob">B</option></select>'
            '<input type="checkbox" name="no"><button name="decision" value="allow">Yes</button>'
            '<button name="decision" value="deny">No</button></form><form action="/other"><input name="x"></form>'
        )
        fields = (("h", "<1>"), ("t", ""), ("who", "alice"), ("decision", "allow"))
        assert first_form(html) == Form("/go?a=1", "post", fields)

    @given(st.text())
    def test_any_page_has_a_form_or_none(self, html: str) -> None:
        """No page makes it fail."""
        first_form(html)
        first_form(f"<form {html}><input {html}>")

    def test_it_goes_to_loopback_only(self) -> None:
        """A redirect can't lead the demo elsewhere."""
        with pytest.raises(BrowsingFailed, match="loopback"):
            Browser({}).open("http://192.0.2.1/")


class TestCommandLines:
    """What children are told."""

    def test_the_server_gets_every_setting_and_no_environment(
        self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
    ) -> None:
        """Each once: as a flag."""
        clean_environment(monkeypatch)
        monkeypatch.setenv("CONNECTORS_LOG_LEVEL", "warning")
        monkeypatch.setenv("CONNECTORS_SIDECAR_HOST_NAMES", "sidecar.local")
        settings = load(UpSettings, {"grpc_listen": "127.0.0.1:1", "state_dir": str(tmp_path)})
        layout = StateLayout.at(tmp_path)
        words = server_arguments(settings, layout)
        told = dict(zip(words[1::2], words[2::2], strict=True))
        assert told["--grpc-listen"] == "127.0.0.1:1"
        assert told["--log-level"] == "warning"
        assert told["--vault-addr"] == f"unix://{layout.socket}"
        assert told["--vault-secret-id-file"] == str(layout.approle)
        assert "CONNECTORS_LOG_LEVEL" not in child_environment(os.environ)
        assert child_environment(os.environ)["CONNECTORS_SIDECAR_HOST_NAMES"] == "sidecar.local"

    def test_with_a_vault_of_ones_own_nothing_of_the_embedded_is_said(
        self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
    ) -> None:
        """The operator's address and login stand."""
        clean_environment(monkeypatch)
        own = {"vault_addr": "https://v:8200", "vault_token_file": "/t", "state_dir": str(tmp_path)}
        words = server_arguments(load(UpSettings, own), StateLayout.at(tmp_path))
        assert "https://v:8200" in words
        assert "--vault-secret-id-file" not in words

    def test_the_sidecar_is_told_an_address_that_can_be_dialled(
        self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
    ) -> None:
        """A server on every interface is reached on loopback, and trusted by its own certificate."""
        clean_environment(monkeypatch)
        wide = {"grpc_listen": "0.0.0.0:7", "tls_cert": "/c.pem", "tls_key": "/k.pem"}
        words = sidecar_arguments(load(UpSettings, wide), StateLayout.at(tmp_path))
        assert words[words.index("--server") + 1] == "127.0.0.1:7"
        assert words[words.index("--ca-file") + 1] == "/c.pem"

    def test_the_summary_says_what_other_commands_must_be_told(
        self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
    ) -> None:
        """Only what their defaults would not find; and the lines work in a shell."""
        clean_environment(monkeypatch)
        assert exports(load(UpSettings, {}), StateLayout.at(default_state_dir())) == []
        odd = tmp_path / "a dir"
        settings = load(UpSettings, {"grpc_listen": "0.0.0.0:7", "tls_cert": "/c.pem", "tls_key": "/k.pem"})
        assert exports(settings, StateLayout.at(odd)) == [
            "CONNECTORS_SERVER=127.0.0.1:7",
            f"CONNECTORS_STATE_DIR='{odd}'",
            "CONNECTORS_CA_FILE=/c.pem",
        ]
