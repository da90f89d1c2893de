"""The one process behind `connectors up`: starts OpenBao, server, sidecar and simulator, keeps them up, ends them in order."""

from connectors_grpc.supervisor.problem import Problem
from connectors_grpc.supervisor.run import run

__all__ = ["Problem", "run"]
