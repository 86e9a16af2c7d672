"""Say something to the echo, as whatever workload this process is: talk.py TEXT."""

import sys

from zerotrust import WorkloadIdentity
from zerotrust.httpx2 import Client

with (
    WorkloadIdentity.from_env() as me,
    Client(me, peer="spiffe://example.org/echo", base_url="https://localhost:8443") as client,
    client.websocket("wss://localhost:8443/echo") as echo,
):
    echo.send_text(sys.argv[1])
    print(echo.receive_text())
