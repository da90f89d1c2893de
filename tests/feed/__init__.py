"""The change feed: what replicas tell each other."""
