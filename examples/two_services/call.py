"""Asks one service for one path, as whatever workload this process is: call.py NAME PORT PATH."""

import sys

from zerotrust import WorkloadIdentity
from zerotrust.httpx import Client

name, port, path = sys.argv[1:]
with (
    WorkloadIdentity.from_env() as me,
    Client(me, peer=f"spiffe://example.org/{name}", base_url=f"https://localhost:{port}") as client,
):
    answer = client.get(path)
    print(answer.status_code, answer.text)
