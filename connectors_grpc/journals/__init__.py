"""The change feed across replicas: each writes a journal of its own, all read all journals.

`journal` (what a replica says) and `follower` (what another makes of it) decide and do no I/O; `replica` acts.
"""

from connectors_grpc.journals.replica import JournaledChanges, Pace

__all__ = ["JournaledChanges", "Pace"]
