"""What can go wrong while things are started, said so that a person can act."""


class Problem(Exception):
    """Something can't be started; `fix` says what to do next. Neither text holds a secret."""

    def __init__(self, message: str, fix: str) -> None:
        super().__init__(message, fix)
        self.message = message
        self.fix = fix
