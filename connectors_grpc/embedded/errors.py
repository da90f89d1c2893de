"""What can go wrong with the embedded OpenBao, said so that a person can act. Knows nothing of gRPC or HTTP."""


class EmbeddedVaultError(Exception):
    """The embedded OpenBao can't be started, or can't be used; `fix` says what to do next.

    Neither text ever holds a secret or a line of OpenBao's own log.
    """

    def __init__(self, message: str, fix: str) -> None:
        super().__init__(message, fix)
        self.message = message
        self.fix = fix

    def __str__(self) -> str:
        return f"{self.message} {self.fix}"
