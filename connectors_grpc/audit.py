"""The audit trail: one JSON line for each administrative act and each hand-out of a credential."""

from __future__ import annotations

from connectors_grpc import logs


class LogAudit:
    """`ports.Audit` on the process's log, as events named `audit`."""

    def __init__(self) -> None:
        self._log = logs.get("audit")

    def record(
        self, action: str, *, caller: str, result: str, tenant: str = "", target: str = "", generation: int = 0
    ) -> None:
        """See ports.Audit."""
        self._log.info(
            "audit", action=action, caller=caller, tenant=tenant, target=target, generation=generation, result=result
        )
