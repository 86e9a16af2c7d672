"""DECIDES. Pure: no socket, file, clock, thread or environment; `now` and every answer come in as arguments."""
