"""DECIDES. Pure: no socket, file, clock, thread or environment; answers come as arguments."""
