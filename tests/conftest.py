"""Fixtures that any test may ask for; each starts only when one does."""

pytest_plugins = ["tests.openbao", "tests.running", "tests.worlds", "tests.canary", "tests.migrating"]
