"""From an older, single-tenant layout to the platform's: copied, compared, cut over, and undone or finished.

Stands beside the server, as an operator does: it reads the old records from their Vault, and writes through the server's API.
"""
