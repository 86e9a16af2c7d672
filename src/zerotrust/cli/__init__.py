"""SPEAKS. One file per command."""
