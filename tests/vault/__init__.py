"""The Vault: adapter, embedded OpenBao, rotation, outages, backups, clusters."""
