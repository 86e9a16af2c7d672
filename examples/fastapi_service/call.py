"""One call to the notes service, as whatever workload this process is: call.py METHOD PATH."""

import sys

from zerotrust import WorkloadIdentity
from zerotrust.httpx import Client

method, path = sys.argv[1:]
with (
    WorkloadIdentity.from_env() as me,
    Client(me, peer="spiffe://example.org/notes", base_url="https://localhost:8443") as notes,
):
    answer = notes.request(method, path)
    print(answer.status_code, answer.text)
