"""The engine: sockets on both sides, and one exchange between them. Decides nothing that the pure modules can decide.

`Engine` owns everything that runs; `Downstream` is an app's connection, `Upstream` one to a provider, `Exchange` one request
and its answer, `Origin` the connections to one provider, `dial` how they are made.
"""

from sidecar.engine.engine import Engine, Guarded

__all__ = ["Engine", "Guarded"]
