"""Connectors: multi-tenant access to third-party APIs."""

__version__ = "0.1.0"
