"""Credentials: kept, connected, refreshed, leased and ended. Each module is one of these."""
