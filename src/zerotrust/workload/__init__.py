"""LIVES. One process, one identity."""
