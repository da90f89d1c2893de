"""The sidecar: puts a tenant's credential into a colocated app's requests."""
