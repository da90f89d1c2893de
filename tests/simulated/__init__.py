"""The simulated provider, and how it misbehaves."""
