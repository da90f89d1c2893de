"""A new seal key for the embedded OpenBao: the data is opened by the old one for the last time, and sealed with the new one.

The steps are such that it may be cut short anywhere and run again. While `seal.key.next` lies there, nobody else starts: the
data may be sealed with either key. Old keys are kept beside the new one under their names, for backups that were taken before.
"""

import asyncio
import dataclasses
import secrets
from typing import Final

from connectors_grpc.embedded import api
from connectors_grpc.embedded.boot import SEAL_KEY_BYTES, seal_key_id, served_mark, served_seal_key
from connectors_grpc.embedded.errors import EmbeddedVaultError
from connectors_grpc.embedded.files import sync_directory, write_private
from connectors_grpc.embedded.layout import StateLayout
from connectors_grpc.embedded.lock import StateLock
from connectors_grpc.embedded.process import EmbeddedSettings
from connectors_grpc.embedded.setup import SERVER, UPKEEP
from connectors_grpc.embedded.vault import EmbeddedVault
from connectors_grpc.embedded.wayin import logged_in

_INNER_KEYS: Final = ("sys/rotate/root", "sys/rotate/keyring")


@dataclasses.dataclass(frozen=True, slots=True)
class Rotated:
    """Names of the keys, which tell nothing about them."""

    old: str
    new: str


async def rotate_seal(layout: StateLayout, settings: EmbeddedSettings | None = None) -> Rotated:
    """Give a state directory that nobody uses a new seal key, root key and storage key.

    OpenBao does not run afterwards.  Bounds: twice `settings.start_deadline`.
    Raises: EmbeddedVaultError; run it again then: it goes on where it was.
    """
    if served_seal_key(layout) is None:
        raise EmbeddedVaultError(f"There is nothing sealed in {layout.vault}.", "Start it first: connectors up")
    if not layout.way_in(UPKEEP.label).exists():
        raise EmbeddedVaultError(
            f"{layout.way_in(UPKEEP.label)} is missing: a version that did not rotate seal keys made this directory.",
            "Keep the key where nobody else reads it, or move the tenants to a new state directory.",
        )
    new = dataclasses.replace(layout, seal_key=layout.next_seal_key)
    rotated = await asyncio.to_thread(_lay_out, layout)
    async with EmbeddedVault(new, settings, older_key=layout.seal_key):
        await asyncio.to_thread(_rotate_inner_keys, layout)
    write_private(layout.served, served_mark(rotated.new))
    async with EmbeddedVault(new, settings):
        await asyncio.to_thread(_prove, layout)
    layout.next_seal_key.replace(layout.seal_key)
    sync_directory(layout.seal_key.parent)
    return rotated


def _lay_out(layout: StateLayout) -> Rotated:
    """The old key kept, the new one made, unless that was done already."""
    old = seal_key_id(layout.seal_key)
    if old is None:
        raise EmbeddedVaultError(f"The seal key {layout.seal_key} is missing.", "Say with --seal-key where it lies.")
    lock = StateLock.take(layout.lock)
    try:
        write_private(layout.old_seal_key(old), layout.seal_key.read_bytes())
        if not layout.next_seal_key.exists():
            write_private(layout.next_seal_key, secrets.token_hex(SEAL_KEY_BYTES).encode())
    except OSError as error:
        raise EmbeddedVaultError(
            f"The new key can't be written beside the old one: {error.strerror}.",
            f"Make {layout.seal_key.parent} writable for as long as this takes.",
        ) from None
    finally:
        lock.release()
    new = seal_key_id(layout.next_seal_key)
    assert new is not None
    return Rotated(old, new)


def _rotate_inner_keys(layout: StateLayout) -> None:
    """Or whoever has the old seal key and an old copy has the root key, which would open newer copies too."""
    with logged_in(layout, UPKEEP) as token:
        for path in _INNER_KEYS:
            if api.call(layout.socket, "POST", path, {}, token).status not in (200, 204):
                raise EmbeddedVaultError("OpenBao refuses to rotate its inner keys.", f"Its log says why: {layout.log}")


def _prove(layout: StateLayout) -> None:
    """What is opened by the new key alone is the platform's."""
    with logged_in(layout, SERVER):
        return
