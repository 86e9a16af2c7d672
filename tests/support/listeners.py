"""A TLS listener on a free loopback port in each world that our context serves; raw clients."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import uvloop

from zerotrust.core.errors import Reason, ZeroTrustError
from zerotrust.core.spiffe.x509_svid import X509Svid
from zerotrust.workload.tls.peer import peer_of

WORLDS = ("asyncio", "uvloop", "blocking")
GREETING = b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n"
HOST = "127.0.0.1"


@dataclass
class Listener:
    """Answers each message with the peer's ID; remembers what it was told and what it refused."""

    port: int = 0
    received: list[bytes] = field(default_factory=list)
    refused: list[ZeroTrustError] = field(default_factory=list)

    def served(self, message: bytes, ssl_object: Any) -> bytes:
        self.received.append(message)
        peer = peer_of(ssl_object)
        return b"nobody" if peer is None else str(peer.id).encode()

    def reasons(self) -> list[Reason]:
        """Return why handshakes were refused, after waiting for the first of them."""
        until = time.monotonic() + 5
        while not self.refused and time.monotonic() < until:
            time.sleep(0.005)
        return [error.reason for error in self.refused]


@contextlib.contextmanager
def listening(world: str, make: Callable[[Listener], ssl.SSLContext]) -> Iterator[Listener]:
    listener = Listener()
    context = make(listener)
    run = _serve_blocking if world == "blocking" else _serve_async
    with run(world, context, listener):
        yield listener


@contextlib.contextmanager
def _serve_blocking(world: str, context: ssl.SSLContext, listener: Listener) -> Iterator[None]:
    raw = socket.create_server((HOST, 0))
    listener.port = raw.getsockname()[1]
    wrapped = context.wrap_socket(raw, server_side=True)  # once, as werkzeug does
    wrapped.settimeout(0.05)
    stop = threading.Event()

    def one(connection: ssl.SSLSocket) -> None:
        with contextlib.suppress(OSError), connection:
            while message := connection.recv(4096):
                connection.sendall(listener.served(message, connection))

    def serve() -> None:
        while not stop.is_set():
            with contextlib.suppress(OSError):
                connection, _ = wrapped.accept()
                threading.Thread(target=one, args=(connection,), daemon=True).start()

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join(5)
        wrapped.close()


@contextlib.contextmanager
def _serve_async(world: str, context: ssl.SSLContext, listener: Listener) -> Iterator[None]:
    ready, stopping = threading.Event(), asyncio.Event()
    loops: list[asyncio.AbstractEventLoop] = []
    writers: list[asyncio.StreamWriter] = []

    async def one(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writers.append(writer)
        with contextlib.suppress(OSError):
            while message := await reader.read(4096):
                writer.write(listener.served(message, writer.get_extra_info("ssl_object")))
                await writer.drain()
        writer.close()

    async def serve() -> None:
        loops.append(asyncio.get_running_loop())
        server = await asyncio.start_server(one, HOST, 0, ssl=context)
        listener.port = server.sockets[0].getsockname()[1]
        ready.set()
        await stopping.wait()
        await asyncio.sleep(0.05)  # asyncio trips over an accepted connection of a closed server
        server.close()
        until = time.monotonic() + 5
        while getattr(server, "_active_count", 0) > 0 and time.monotonic() < until:
            for writer in writers:
                writer.transport.abort()
            await asyncio.sleep(0.01)  # what ended in the handshake is let go of
        for task in asyncio.all_tasks() - {asyncio.current_task()}:
            task.cancel()

    factory = uvloop.new_event_loop if world == "uvloop" else asyncio.new_event_loop

    def main() -> None:
        with asyncio.Runner(loop_factory=factory) as runner:
            runner.run(serve())

    thread = threading.Thread(target=main, daemon=True)
    thread.start()
    assert ready.wait(10)
    try:
        yield
    finally:
        loops[0].call_soon_threadsafe(stopping.set)
        thread.join(10)


def credulous(svid: X509Svid | None = None) -> ssl.SSLContext:
    """Return a plain client context that believes any server: what an attacker uses."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    if svid is not None:
        load(context, svid)
    return context


def load(context: ssl.SSLContext, svid: X509Svid) -> None:
    fd = os.memfd_create("svid")
    try:
        os.write(fd, svid.chain_pem + svid.key_pem)
        context.load_cert_chain(f"/proc/self/fd/{fd}")
    finally:
        os.close(fd)


def ask(port: int, context: ssl.SSLContext, message: bytes = GREETING) -> bytes:
    """Send one message; return the answer, or nothing when the connection was refused."""
    try:
        with (
            socket.create_connection((HOST, port), timeout=10) as raw,
            context.wrap_socket(raw, server_hostname="localhost") as tls,
        ):
            tls.sendall(message)
            return tls.recv(4096)
    except (ssl.SSLError, ConnectionError):
        return b""
