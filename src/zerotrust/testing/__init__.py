"""pytest fixtures for users."""
