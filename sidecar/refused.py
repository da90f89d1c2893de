"""Why a setting of the sidecar can't be used."""

from __future__ import annotations


class SettingsRefused(Exception):
    """A setting can't be used. `field` is its option; the text says what is wanted, never a secret."""

    def __init__(self, field: str, text: str) -> None:
        super().__init__(f"{field}: {text}")
        self.field = field
