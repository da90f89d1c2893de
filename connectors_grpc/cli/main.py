"""The root command: where the server is, which commands there are, and that nothing ever ends in a traceback."""

from __future__ import annotations

import os
import sys
import traceback
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NoReturn, cast

import click
import grpc

from connectors_grpc.cli.base import Lazy, LazyGroup, write_verbatim
from connectors_grpc.cli.connection import DEFAULT_SERVER, Session
from connectors_grpc.cli.errors import EXIT_CODES, FAILED, INTERRUPTED, CallFailed, read

_C = "connectors_grpc.cli"
COMMANDS = {
    "up": Lazy(f"{_C}.run", "up", "Run it all on this machine: OpenBao, server, sidecar, and a demo."),
    "serve": Lazy(f"{_C}.run", "serve", "Run the server alone, on an existing Vault."),
    "sidecar": Lazy("sidecar.command", "command", "Run the sidecar."),
    "simulate": Lazy(f"{_C}.simulate", "simulate", "Run a simulated OAuth provider."),
    "tenant": Lazy(f"{_C}.tenant", "tenant", "Tenants: create, list, suspend, delete."),
    "integration": Lazy(f"{_C}.integration", "integration", "Integrations and their OAuth clients."),
    "credential": Lazy(f"{_C}.credential", "credential", "Credentials: connect, set, refresh, revoke."),
    "config": Lazy(f"{_C}.configuration", "config", "Tenants from a file: validate, diff, apply, watch."),
    "call": Lazy(f"{_C}.call", "call", "Call an integration with a tenant's credential."),
    "key": Lazy(f"{_C}.key", "key", "API keys: create, list, revoke."),
    "migrate": Lazy(f"{_C}.migrate", "migrate", "Migrate from an older, single-tenant layout."),
    "probe": Lazy(f"{_C}.probe", "probe", "Whether a server or sidecar here is ready, for health checks."),
    "doctor": Lazy(f"{_C}.doctor", "doctor", "Say what is wrong, and how to mend it."),
    "backup": Lazy(f"{_C}.upkeep", "backup", "Back up the embedded OpenBao."),
    "restore": Lazy(f"{_C}.upkeep", "restore", "Put a backup back."),
    "seal": Lazy(f"{_C}.upkeep", "seal", "The embedded OpenBao's seal key: rotate."),
    "settings": Lazy(f"{_C}.reference", "settings", "List every setting."),
    "vault": Lazy(f"{_C}.vault", "vault", "What an operator's Vault needs: init, validate, policy."),
    "completion": Lazy(f"{_C}.reference", "completion", "Print a shell's completion script."),
    "version": Lazy(f"{_C}.reference", "version", "Print the version."),
}
FRAMES = 4
EXAMPLES = (
    "connectors up --demo",
    "connectors tenant create acme",
    "connectors credential connect acme notion",
    "connectors doctor",
)


class Root(LazyGroup):
    """Turns a failed call into a message and an exit code, for every command alike."""

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command.  Raises: CallFailed in place of grpc.RpcError."""
        try:
            return super().invoke(ctx)
        except grpc.RpcError as error:
            raise CallFailed(read(cast(grpc.Call, error))) from None

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Examples, then what exit codes mean."""
        super().format_epilog(ctx, formatter)
        write_verbatim(formatter, "Exit codes", [f"{code:<3}  {meaning}" for code, meaning in EXIT_CODES])


@click.group(
    cls=Root,
    lazy=COMMANDS,
    examples=EXAMPLES,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110},
)
@click.option(
    "--server", envvar="CONNECTORS_SERVER", show_envvar=True, default=DEFAULT_SERVER, show_default=True,
    metavar="HOST:PORT", help="The server's gRPC address. Other machines are spoken to by TLS only.",
)  # fmt: skip
@click.option(
    "--key-file", envvar="CONNECTORS_KEY_FILE", show_envvar=True, type=click.Path(path_type=Path), metavar="FILE",
    help="A file with the API key. Default: keys/admin.key in the state directory, where it exists.",
)  # fmt: skip
@click.option(
    "--ca-file", envvar="CONNECTORS_CA_FILE", show_envvar=True, type=click.Path(path_type=Path), metavar="FILE",
    help="CA certificates (PEM) for the server. Default: the system's.",
)  # fmt: skip
@click.option(
    "--timeout", envvar="CONNECTORS_TIMEOUT", show_envvar=True, type=click.FloatRange(0.1, 600), default=30.0,
    show_default=True, metavar="SECONDS", help="How long to wait for each answer.",
)  # fmt: skip
@click.pass_context
def root(ctx: click.Context, server: str, key_file: Path | None, ca_file: Path | None, timeout: float) -> None:
    """Multi-tenant access to third-party APIs: server, sidecar and their upkeep.

    Every command explains itself: connectors COMMAND --help.
    """
    session = Session(server, key_file.expanduser() if key_file else None, ca_file, timeout)
    ctx.obj = session
    ctx.call_on_close(session.close)


def main(arguments: Sequence[str] | None = None) -> NoReturn:
    """Run the command line and exit. No exception's text but our own is ever printed: it might hold a secret."""
    try:
        code = root.main(args=arguments, prog_name="connectors", standalone_mode=False)
        sys.stdout.flush()
    except click.exceptions.NoArgsIsHelpError as error:
        error.show()
        code = error.exit_code
    except click.ClickException as error:
        error.show()
        code = error.exit_code
    except (click.Abort, KeyboardInterrupt):
        code = INTERRUPTED
    except BrokenPipeError:  # `| head` has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        code = 0
    except Exception as error:  # the last door
        where = _where(error)
        click.echo(f"Error: a bug of ours: {type(error).__name__} in {where}. Please report it.", err=True)
        code = FAILED
    sys.exit(code if isinstance(code, int) else 0)


def _where(error: BaseException) -> str:
    """The innermost modules and lines: enough for a report, and no value in it."""
    frames = [(frame.f_globals.get("__name__", "?"), line) for frame, line in traceback.walk_tb(error.__traceback__)]
    return " < ".join(f"{module}:{line}" for module, line in reversed(frames[-FRAMES:]))


__all__ = ["main", "root"]
