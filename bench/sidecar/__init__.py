"""The sidecar beside its peers: one run, one machine, the same work for each."""
