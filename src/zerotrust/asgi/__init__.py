"""ADAPTS ASGI: the application behind the guard, and the server that proves who calls."""

from zerotrust.asgi.middleware import CALLER, Protected, protect

__all__ = ["CALLER", "Protected", "protect"]
