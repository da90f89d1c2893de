"""The documentation tells the truth: what it says to type works, its links lead somewhere, its generated pages are current."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import click
import pytest

from connectors_grpc.catalogue import parse_definition
from connectors_grpc.cli.main import root
from connectors_grpc.errors import Reason
from tests.ports import free_ports

ROOT = Path(__file__).resolve().parent.parent.parent
PAGES = [ROOT / "README.md", ROOT / "CHANGELOG.md", *sorted((ROOT / "docs").rglob("*.md"))]
FENCE = re.compile(r"^```(\w*)([^\n]*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
LISTENERS = {"grpc-listen": 50051, "http-listen": 3000, "sidecar-listen": 15001, "simulator-listen": 15080}
STATE = "$HOME/.local/state/connectors"
PATIENCE = 200.0


def blocks(page: Path, language: str, mark: str = "") -> list[str]:
    """The fenced blocks of a page in one language, with that mark if one is given."""
    return [text for tongue, marks, text in FENCE.findall(page.read_text()) if tongue == language and mark in marks]


def name_of(page: Path) -> str:
    """How a test calls a page."""
    return str(page.relative_to(ROOT))


@dataclass(frozen=True)
class Platform:
    """`connectors up --demo`, on ports of its own."""

    state: Path
    ports: dict[str, int]
    summary: str

    def environment(self) -> dict[str, str]:
        """What `up` tells other terminals, and what the examples read."""
        kept = {name: value for name, value in os.environ.items() if not name.startswith("CONNECTORS_")}
        return kept | {
            "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
            "CONNECTORS_SERVER": f"127.0.0.1:{self.ports['grpc-listen']}",
            "CONNECTORS_STATE_DIR": str(self.state),
            "CONNECTORS_SIDECAR_LISTEN": f"127.0.0.1:{self.ports['sidecar-listen']}",
            "SIDECAR_URL": f"http://127.0.0.1:{self.ports['sidecar-listen']}",
        }

    def here(self, text: str) -> str:
        """A block with this platform's addresses and places in the defaults' stead."""
        for name, default in LISTENERS.items():
            text = re.sub(rf"\b127\.0\.0\.1:{default}\b", f"127.0.0.1:{self.ports[name]}", text)
        return text.replace(STATE, str(self.state))

    def run(self, script: str, directory: Path) -> str:
        """Run a script as a reader would, in a place that looks like the repository; what it printed."""
        for entry in ROOT.iterdir():
            if entry.name != ".git":
                (directory / entry.name).symlink_to(entry)
        done = subprocess.run(
            ["bash", "-euo", "pipefail", "-c", self.here(script)],
            cwd=directory,
            env=self.environment(),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=PATIENCE,
        )
        said = done.stdout + done.stderr
        assert done.returncode == 0, said
        for key in (self.state / "keys").glob("*.key"):
            assert key.read_text().strip() not in said, f"{key.name} was printed"
        return done.stdout


@pytest.fixture(scope="session")
def platform() -> Iterator[Platform]:
    """One for the session."""
    ports = dict(zip(LISTENERS, free_ports(len(LISTENERS)), strict=True))
    with tempfile.TemporaryDirectory(prefix="docs-") as directory:
        state, out = Path(directory) / "state", Path(directory) / "out"
        listen = [text for name, port in ports.items() for text in (f"--{name}", f"127.0.0.1:{port}")]
        command = [sys.executable, "-m", "connectors_grpc", "up", "--demo", "--state-dir", str(state), *listen]
        kept = {name: value for name, value in os.environ.items() if not name.startswith("CONNECTORS_")}
        with out.open("wb") as stream:
            process = subprocess.Popen(
                command, stdout=stream, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL, env=kept
            )
        try:
            end = time.monotonic() + PATIENCE
            while "Ctrl-C ends it." not in out.read_text():
                assert process.poll() is None, out.read_text()
                assert time.monotonic() < end, out.read_text()
                time.sleep(0.05)  # another process's doing
            yield Platform(state, ports, out.read_text())
        finally:
            process.send_signal(signal.SIGTERM)
            process.wait(PATIENCE)


RUNNABLE = [page for page in PAGES if blocks(page, "sh", "runnable")]


@pytest.mark.parametrize("page", RUNNABLE, ids=name_of)
def test_what_a_page_says_to_type_works(page: Path, platform: Platform, tmp_path: Path) -> None:
    """Its blocks that are marked runnable, one after the other in one shell."""
    assert platform.run("\n".join(blocks(page, "sh", "runnable")), tmp_path)


def test_the_first_call_of_the_readme_is_the_one_that_up_prints(platform: Platform) -> None:
    """But for `$HOME`, to the letter."""
    (line,) = blocks(ROOT / "README.md", "sh", "runnable")
    assert platform.here(line).strip() in platform.summary


def test_the_stub_example_says_the_reason_of_a_refusal(platform: Platform, tmp_path: Path) -> None:
    """The demo's key is for the demo's credential alone."""
    said = platform.run("python examples/call_with_stub.py demo other /v1/whoami 2>&1 || true", tmp_path)
    assert said.startswith("refused: PERMISSION_DENIED: ")


def test_the_walk_can_be_repeated(platform: Platform, tmp_path: Path) -> None:
    """Its request ids make it the same calls."""
    said = platform.run("examples/grpcurl.sh && examples/grpcurl.sh", tmp_path)
    assert said.count("/connect/") == 2


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_links_lead_somewhere(page: Path) -> None:
    """Within the repository: to a file, and to a heading where one is named."""
    prose = FENCE.sub("", page.read_text())
    for target in re.findall(r"\]\(([^)\s]+)\)", prose):
        if target.startswith("https://"):
            continue
        where, _, heading = target.partition("#")
        found = (page.parent / where) if where else page
        assert found.exists(), f"{target} in {name_of(page)}"
        if heading:
            assert heading in headings(found), f"{target} in {name_of(page)}"


def headings(page: Path) -> set[str]:
    """The anchors of a page's headings, as they are made of their text: lower case, blanks to hyphens, no punctuation."""
    prose = FENCE.sub("", page.read_text())
    texts = re.findall(r"^#+ (.+)$", prose, re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", text.lower()).replace(" ", "-") for text in texts}


COMMANDS = [
    pytest.param(line.strip(), id=f"{name_of(page)}-{number}")
    for page in PAGES
    for block in blocks(page, "sh")
    for number, line in enumerate(block.replace("\\\n", " ").splitlines())
    if line.strip().startswith("connectors ")
]


@pytest.mark.parametrize("line", COMMANDS)
def test_a_command_that_a_page_names_exists_with_its_options(line: str) -> None:
    """Whether it is run here or not."""
    words = iter(line.split("#")[0].split()[1:])
    command: click.Command = root
    known = options(root)
    for word in words:
        if isinstance(command, click.Group) and not word.startswith("-"):
            found = command.get_command(click.Context(command), word)
            if found is None:
                continue  # an option's value
            command = found
            known |= options(command)
        elif word.startswith("--"):
            assert word.partition("=")[0] in known, word
    assert command is not root, line


def options(command: click.Command) -> set[str]:
    """The names of its options."""
    return {name for each in command.params for name in (*each.opts, *each.secondary_opts)} | {"--help"}


def test_python_in_the_pages_can_be_read() -> None:
    """Every block compiles."""
    for page in PAGES:
        for block in blocks(page, "python"):
            compile(block, name_of(page), "exec")


def test_definitions_in_the_page_about_them_are_good_ones() -> None:
    """By the catalogue's own loader."""
    found = blocks(ROOT / "docs" / "definition.md", "yaml")
    assert len(found) == 2
    for text in found:
        assert parse_definition("example.yaml", text.encode()).api is not None


def test_the_schema_of_definitions_knows_every_field_and_says_what_it_is() -> None:
    """Editors show that text; the page has the same."""
    schema = json.loads((ROOT / "connectors_grpc" / "catalogue" / "definition.schema.json").read_text())
    page = (ROOT / "docs" / "definition.md").read_text()
    for part in (schema, *schema["$defs"].values()):
        for name, one in part.get("properties", {}).items():
            assert one["description"].replace("|", "\\|") in page, name


def test_generated_pages_are_what_the_code_says() -> None:
    """If not: `make docs`."""
    command = [sys.executable, str(ROOT / "scripts" / "docs.py"), "--check"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, timeout=PATIENCE)
    assert done.returncode == 0, done.stderr


def test_every_reason_has_its_section() -> None:
    """Errors lead there by `errors.md#reason`."""
    assert {reason.value.lower() for reason in Reason} <= headings(ROOT / "docs" / "errors.md")


def test_every_setting_of_every_process_is_listed() -> None:
    """As `connectors settings` prints them."""
    command = [sys.executable, "-m", "connectors_grpc", "settings"]
    printed = subprocess.run(command, capture_output=True, text=True, check=True, timeout=PATIENCE).stdout
    page = (ROOT / "docs" / "settings.md").read_text()
    for line in printed.splitlines()[1:]:
        assert f"| `{line.split(chr(9))[1]}` |" in page


def test_every_test_that_a_page_names_exists() -> None:
    """`tests/x.py::test_name`, or the beginning of names with a `*` behind it."""
    for page in PAGES:
        for file, name, more in re.findall(r"`(tests/[\w/]+\.py)::(\w+)(\*?)`", page.read_text()):
            names = re.findall(r"def (test_\w+)", (ROOT / file).read_text())
            assert any(each.startswith(name) if more else each == name for each in names), f"{file}::{name}"


def test_pages_stand_alone() -> None:
    """No path of one machine, and every file of the repository that a page names in code is there."""
    for page in PAGES:
        text = page.read_text()
        assert "/work/" not in text, name_of(page)
        for path in re.findall(r"`((?:connectors_grpc|sidecar|tests|scripts|proto|examples|deploy)/[\w./-]+)`", text):
            assert (ROOT / path).exists(), f"{path} in {name_of(page)}"
