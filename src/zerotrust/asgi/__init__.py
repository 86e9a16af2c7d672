"""ADAPT: ASGI applications and uvicorn."""
