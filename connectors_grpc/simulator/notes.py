"""The notes that the simulated service keeps: each account has its own shelf and sees no other.

Values and rules; no HTTP.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import cast

MOST_NOTES = 1_000
LONGEST_TITLE = 200
LONGEST_TEXT = 10_000


class NoteInvalid(ValueError):
    """What was sent is not a note; the message says why."""


class ShelfFull(Exception):
    """The account has as many notes as it may."""


@dataclass(frozen=True, slots=True)
class Note:
    """One note."""

    id: str
    title: str
    text: str
    revision: int = 1


@dataclass(slots=True)
class Notes:
    """Every account's notes. Bounds: MOST_NOTES an account."""

    shelves: dict[str, dict[str, Note]] = field(default_factory=dict)
    last: int = 0

    def page(self, account: str, after: str | None, limit: int) -> tuple[list[Note], str | None]:
        """Notes in order of creation, following `after`; and where the next page starts, None at the end."""
        notes = [note for note in self._shelf(account).values() if after is None or _order(note.id) > _order(after)]
        more = len(notes) > limit
        return notes[:limit], notes[limit - 1].id if more else None

    def get(self, account: str, note_id: str) -> Note | None:
        """One note of this account."""
        return self._shelf(account).get(note_id)

    def create(self, account: str, title: str, text: str) -> Note:
        """Put a note on the shelf. Raises: ShelfFull."""
        shelf = self.shelves.setdefault(account, {})
        if len(shelf) >= MOST_NOTES:
            raise ShelfFull
        self.last += 1
        note = Note(f"note-{self.last}", title, text)
        shelf[note.id] = note
        return note

    def update(self, account: str, note_id: str, changes: dict[str, str]) -> Note | None:
        """Change title or text; None if there is no such note."""
        note = self.get(account, note_id)
        if note is None:
            return None
        changed = replace(
            note,
            title=changes.get("title", note.title),
            text=changes.get("text", note.text),
            revision=note.revision + 1,
        )
        self.shelves[account][note_id] = changed
        return changed

    def delete(self, account: str, note_id: str) -> bool:
        """Take a note off the shelf; whether it was there."""
        return self._shelf(account).pop(note_id, None) is not None

    def _shelf(self, account: str) -> dict[str, Note]:
        return self.shelves.get(account, {})


def parse_note(sent: object, *, whole: bool) -> dict[str, str]:
    """The title and text in a JSON value; `whole`: a title must be there. Raises: NoteInvalid."""
    if not isinstance(sent, dict) or not set(sent) <= {"title", "text"}:
        raise NoteInvalid("a note is an object with title and text")
    if whole and "title" not in sent:
        raise NoteInvalid("title is missing")
    for name, most in (("title", LONGEST_TITLE), ("text", LONGEST_TEXT)):
        value = sent.get(name, "")
        if not isinstance(value, str) or len(value) > most or not _is_text(value):
            raise NoteInvalid(f"{name} must be text of at most {most} characters")
    return cast("dict[str, str]", sent)


def _is_text(value: str) -> bool:
    try:
        value.encode()
    except UnicodeEncodeError:  # a lone surrogate: JSON can carry it, UTF-8 cannot
        return False
    return True


def _order(note_id: str) -> int:
    digits = note_id.removeprefix("note-")
    return int(digits) if digits.isascii() and digits.isdigit() and len(digits) < 16 else 0
