"""What a hostile service may answer without harming the probe."""

from __future__ import annotations

import socket
import threading
import time

import pytest

from zerotrust.probe import deliver as deliver_module
from zerotrust.probe.deliver import Answer, Delivery, Request, deliver
from zerotrust.probe.verdict import problem_id

PLAIN = Delivery(Request("GET", b"/", ()), svid=None, tls=False)


def answered(*pieces: bytes, pause: float = 0.0) -> Answer:
    """What `deliver` makes of these bytes, sent one after the other."""
    with socket.create_server(("127.0.0.1", 0)) as server:

        def serve() -> None:
            sock, _ = server.accept()
            with sock:
                sock.recv(65536)
                for piece in pieces:
                    try:
                        sock.sendall(piece)
                    except OSError:
                        return
                    time.sleep(pause)

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        answer = deliver(("127.0.0.1", server.getsockname()[1]), PLAIN)
        thread.join(5)
        return answer


def test_an_answer_is_read() -> None:
    answer = answered(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n", b"ok")
    assert (answer.status, answer.body) == (200, b"ok")


@pytest.mark.parametrize("status", [b"2\xb20", b"\xb2", b"20", b"2000", b"9" * 5000, b"099", b""])
def test_a_status_that_is_not_three_digits_is_no_answer(status: bytes) -> None:
    answer = answered(b"HTTP/1.1 " + status + b" OK\r\nContent-Length: 0\r\n\r\n")
    assert (answer.status, answer.detail) == (None, "not an HTTP answer")


@pytest.mark.parametrize("length", [b"\xb2", b"9" * 5000, b"-1", b"1e3"])
def test_a_length_that_is_no_number_is_not_waited_for(length: bytes) -> None:
    answer = answered(b"HTTP/1.1 200 OK\r\nContent-Length: " + length + b"\r\n\r\nok")
    assert answer.status == 200


def test_an_answer_that_drips_ends_in_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(deliver_module, "MAX_SECONDS", 0.3)
    began = time.monotonic()
    answer = answered(*[b"x"] * 30, pause=0.05)
    assert answer.status is None
    assert time.monotonic() - began < 4


def test_a_problem_nested_without_end_names_no_refusal() -> None:
    headers = (("content-type", "application/problem+json"),)
    assert problem_id(Answer(400, headers, b'{"id":"a1"}')) == "a1"
    assert problem_id(Answer(400, headers, b"[" * 200_000)) == ""
