"""The `connectors` command: every noun of the contract, the processes, and what tells how they are."""
