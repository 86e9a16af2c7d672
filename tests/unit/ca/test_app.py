from __future__ import annotations

import asyncio
import json
from typing import Any

from zerotrust.audit import AuditEvent, AuditLog
from zerotrust.ca.app import Arrival, Gate
from zerotrust.core.request import Authorities

SECRET = "ztjoin1.what-a-workload-sent"


class Lines:
    def __init__(self) -> None:
        self.events: list[AuditEvent] = []

    def write(self, event: AuditEvent) -> None:
        self.events.append(event)


async def fail(arrival: Arrival) -> bytes:
    raise RuntimeError(SECRET + repr(arrival))


def test_an_unforeseen_failure_is_a_refusal_whose_text_nobody_reads() -> None:
    lines, sent = Lines(), []

    async def receive() -> Any:
        return {"type": "http.request", "body": SECRET.encode()}

    async def send(message: Any) -> None:
        sent.append(message)

    gate = Gate(
        {("POST", b"/v1/enrol"): fail},
        Authorities(["localhost"]),
        AuditLog(lines),
        open_detail=True,
    )
    headers = [(b"host", b"localhost"), (b"content-type", b"application/json")]
    scope = {
        "type": "http",
        "method": "POST",
        "path": "/v1/enrol",
        "raw_path": b"/v1/enrol",
        "headers": headers,
        "client": ("192.0.2.1", 1),
    }
    asyncio.run(gate(scope, receive, send))
    assert sent[0]["status"] >= 500
    told = json.loads(sent[1]["body"])
    (event,) = lines.events
    assert told["detail"] == event.detail
    assert event.detail.startswith("RuntimeError at test_app.py:")
    assert SECRET not in str(sent) + str(lines.events)
