"""A Vault made ready, as often as one likes: what is missing is made, what is so is left, what differs is shown and kept."""

from __future__ import annotations

import enum
import hashlib
import json
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from connectors_grpc.embedded.setup import ROLE
from connectors_grpc.provisioning.calls import NO_CONTENT, OK, Operator, ProvisioningFailed
from connectors_grpc.provisioning.items import Item, State, Verdict, items

_ROLE_PATH: Final = f"auth/approle/role/{ROLE}"
_MOST_FILE: Final = 64 * 1024
_REFUSED: Final = 400
_STANZA: Final = (
    'audit "file" "{name}" {{ options {{ file_path = "{path}", mode = "0600" }} }}, each attribute on its line'
)


class Outcome(enum.Enum):
    """What came of one item."""

    SAME = "already so"
    MADE = "made"
    WOULD = "missing"
    MENDED = "mended"
    DIFFERS = "differs"
    FOREIGN = "is something else"
    ADVICE = "advice"


@dataclass(frozen=True, slots=True)
class Done:
    """One line of the report. `fix` says what is left to do, and is empty where nothing is."""

    what: str
    outcome: Outcome
    detail: str = ""
    fix: str = ""

    @property
    def open(self) -> bool:
        """Whether the Vault is not as it must be."""
        return self.outcome in (Outcome.DIFFERS, Outcome.FOREIGN, Outcome.WOULD)


class Initialising:
    """One run. `plan` changes nothing; `fix` also changes what differs."""

    def __init__(self, vault: Operator, *, plan: bool = False, fix: bool = False) -> None:
        self._vault = vault
        self._plan = plan
        self._fix = fix
        self._ours: set[str] = set()

    async def run(self, *, tenants_by: str | None = None, audit_files: Sequence[str] = ()) -> list[Done]:
        """Go through all of it; `audit_files` are paths on the Vault's own machine.

        Raises: ProvisioningFailed; what was made by then stays, and is found the next time.
        """
        accessor = await self._accessor(tenants_by) if tenants_by else None
        report = [await self._settle(item) for item in items(accessor)]
        return [*report, *[await self._audit_file(path) for path in audit_files], await self._audit()]

    async def _accessor(self, mount: str) -> str:
        found = (await self._vault.read("sys/auth") or {}).get(f"{mount}/")
        if not isinstance(found, dict):
            raise ProvisioningFailed(
                f"There is no auth method {mount}/.", "Enable the one that tenants' tokens come from, or leave it out."
            )
        return str(found["accessor"])

    async def _settle(self, item: Item) -> Done:
        if self._plan and item.step.path.split("/")[0] in self._ours:
            return Done(item.what, Outcome.WOULD, fix="Run it without --plan.")
        verdict = item.judge(await self._vault.read(item.read))
        # A setting of a mount that we have just made is not somebody's choice.
        begun = item.step.path.split("/")[0] in self._ours
        match verdict.state:
            case State.SAME:
                return Done(item.what, Outcome.SAME)
            case State.FOREIGN:
                return Done(
                    item.what, Outcome.FOREIGN, verdict.detail, "Move what is there elsewhere: it can't be changed."
                )
            case State.DIFFERS if not (begun or self._fix):
                return Done(
                    item.what, Outcome.DIFFERS, verdict.detail, "Change it by --fix, if nobody else needs it so."
                )
            case _:
                return await self._make(item, verdict)

    async def _make(self, item: Item, verdict: Verdict) -> Done:
        if item.step.path.startswith("sys/mounts/"):
            self._ours.add(item.inside.rstrip("/"))
        if self._plan:
            return Done(item.what, Outcome.WOULD, verdict.detail, "Run it without --plan.")
        await self._vault.write(item.step.path, item.step.data)
        fixed = verdict.state is State.DIFFERS and item.step.path.split("/")[0] not in self._ours
        return Done(item.what, Outcome.MENDED if fixed else Outcome.MADE, verdict.detail)

    async def _audit(self) -> Done:
        """How many there are. Where they lie is the operator's to say."""
        what = "audit devices"
        reply = await self._vault.call("GET", "sys/audit")
        if reply.status != OK:
            return Done(what, Outcome.ADVICE, "this token may not see them", "Have two, on two disks.")
        devices = len(reply.field("data") or {})
        if devices > 1:
            return Done(what, Outcome.SAME, str(devices))
        advice = "Have two, on two disks: a Vault that can write to none refuses every request."
        return Done(what, Outcome.ADVICE, f"{devices} enabled", advice)

    async def _audit_file(self, path: str) -> Done:
        what = f"audit log {path}"
        devices = (await self._vault.read("sys/audit") or {}).values()
        if any((each.get("options") or {}).get("file_path") == path for each in devices):
            return Done(what, Outcome.SAME)
        if self._plan:
            return Done(what, Outcome.WOULD, fix="Run it without --plan.")
        name = "connectors-" + hashlib.sha256(path.encode()).hexdigest()[:8]
        body = {"type": "file", "options": {"file_path": path, "mode": "0600"}}
        reply = await self._vault.call("POST", f"sys/audit/{name}", body)
        if reply.status == _REFUSED and "config" in reply.errors():
            stanza = _STANZA.format(name=name, path=path)
            return Done(what, Outcome.DIFFERS, "only its configuration can add one", f"Add there: {stanza}")
        self._vault.granted(reply, "write", f"sys/audit/{name}")
        return Done(what, Outcome.MADE)

    async def way_in(self, path: Path) -> Done:
        """Role id and a secret id of the server, in a new file of mode 0600; a file whose secret id works is left."""
        what = f"secret id {path}"
        if path.exists():
            if await self._works(path):
                return Done(what, Outcome.SAME)
            if not self._fix:
                return Done(what, Outcome.DIFFERS, "the Vault refuses it", "Move it away, or say --fix.")
        if self._plan:
            return Done(what, Outcome.WOULD, fix="Run it without --plan.")
        role_id = (await self._vault.read(f"{_ROLE_PATH}/role-id") or {}).get("role_id")
        secret_id = (await self._vault.write(f"{_ROLE_PATH}/secret-id", {})).text("data", "secret_id")
        was_there = path.exists()
        _write(path, json.dumps({"role_id": role_id, "secret_id": secret_id}))
        return Done(what, Outcome.MENDED if was_there else Outcome.MADE)

    async def _works(self, path: Path) -> bool:
        try:
            with path.open("rb") as stream:
                fields = json.loads(stream.read(_MOST_FILE))
            body = {"role_id": fields["role_id"], "secret_id": fields["secret_id"]}
        except (OSError, ValueError, KeyError, TypeError):
            return False
        reply = await self._vault.call("POST", "auth/approle/login", body)
        if reply.status != OK:
            return False
        await self._revoke(reply.text("auth", "client_token"))
        return True

    async def _revoke(self, token: str) -> None:
        reply = await self._vault.call("POST", "auth/token/revoke", {"token": token})
        if reply.status not in (OK, NO_CONTENT, 403):  # it ends by itself within the hour
            raise ProvisioningFailed("The Vault refuses to end a token of ours.", "Run it again.")


def _write(path: Path, text: str) -> None:
    draft = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        fd = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        with open(fd, "w") as stream:  # noqa: PTH123  (a descriptor, not a path)
            stream.write(text + "\n")
            stream.flush()
            os.fsync(stream.fileno())
        draft.replace(path)
    except OSError as error:
        draft.unlink(missing_ok=True)
        raise ProvisioningFailed(
            f"{path} can't be written: {error.strerror}.", "Name another --secret-id-file."
        ) from None
