"""What a peer is to the bench."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path

from bench.sidecar.proc import PROXY, Process
from bench.sidecar.upstream import Upstream
from tests.ports import free_port


class NotInstalled(Exception):
    """The peer can't run here. `args[0]` says what is missing."""


@dataclass(frozen=True, slots=True)
class Setup:
    """What all proxies of one group are set up for."""

    work: Path
    upstream: Upstream
    tls: bool
    tenants: int
    tokens: dict[str, str] = field(repr=False)

    @classmethod
    def of(cls, work: Path, upstream: Upstream, tls: bool, tenants: int) -> Setup:
        tokens = {f"t{n}": f"tok-{n:05}-abcdefghijklmnopqrstuvwxyz0123456789" for n in range(tenants)}
        setup = cls(work, upstream, tls, tenants, tokens)
        (work / "tokens.json").write_text(json.dumps(tokens))
        return setup

    @property
    def url(self) -> str:
        return self.upstream.url(self.tls)

    @property
    def target(self) -> str:
        return f"127.0.0.1:{self.upstream.port(self.tls)}"


class Peer:
    """One running proxy."""

    name: str
    process: Process

    def __init__(self, setup: Setup) -> None:
        self.setup = setup
        self.port = free_port()

    def start(self) -> None:
        """Raises: NotInstalled."""
        raise NotImplementedError

    def launch(self, args: list[str], env: dict[str, str] | None = None) -> None:
        """Run it on the proxy's core, and wait until it listens."""
        self.process = Process(args, self.setup.work / f"{self.name}.log", PROXY, env)
        self.process.listening(self.port)

    @staticmethod
    def version() -> str:
        """For the report."""
        return ""
