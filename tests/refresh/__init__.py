"""A credential's life: refreshes, races, crashes, sweeps, revocation."""
