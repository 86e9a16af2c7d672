"""The CA's brain: pure."""
