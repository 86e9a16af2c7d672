"""Verdicts: evidence to selectors."""
