"""What every test runs under."""

from __future__ import annotations

from hypothesis import settings

# A shared machine stalls; a deadline would fail a test for what another process did.
settings.register_profile("shared", deadline=None)
settings.load_profile("shared")
