"""One change each to an honest call."""
