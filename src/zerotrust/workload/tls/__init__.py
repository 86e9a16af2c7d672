"""The SSLContext subclass and the check inside the handshake."""
