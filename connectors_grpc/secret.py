"""A secret that can be sent, never shown."""

from __future__ import annotations

import hmac
from typing import NoReturn


class Secret:
    """Holds one secret text. Only `reveal()` opens it; tests/project/test_house.py lists who may call that.

    A plain slotted class on purpose: `dataclasses.asdict`, pickle, copy and hash would each open or spread it.
    """

    __slots__ = ("__value",)

    def __init__(self, value: str) -> None:
        self.__value = value

    def reveal(self) -> str:
        """The text itself, to be sent and not kept."""
        return self.__value

    def __repr__(self) -> str:
        return "Secret(***)"

    __str__ = __repr__

    def __format__(self, _spec: str) -> str:
        return repr(self)

    def __bool__(self) -> bool:
        return bool(self.__value)

    def __eq__(self, other: object) -> bool:
        """Compare in constant time."""
        if not isinstance(other, Secret):
            return NotImplemented
        return hmac.compare_digest(self.__value.encode(), other.__value.encode())

    __hash__ = None  # type: ignore[assignment]

    def _refuse(self, *_: object) -> NoReturn:
        raise TypeError("a Secret is neither copied nor pickled")

    __copy__ = __deepcopy__ = __reduce__ = _refuse
