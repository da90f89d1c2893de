"""Fixtures that any test may ask for; each starts only when one does. And how hypothesis looks for examples."""

import os

from hypothesis import HealthCheck, settings

pytest_plugins = ["tests.openbao", "tests.running", "tests.worlds", "tests.canary", "tests.migrating"]

UNHURRIED = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
"""The machine may be busy: how long an example takes says nothing of the code."""
settings.register_profile("same", UNHURRIED, derandomize=True)
settings.register_profile("search", UNHURRIED, max_examples=1000)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "same"))
