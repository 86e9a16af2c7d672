"""One question to Datasette, as whatever workload this process is: call.py PATH."""

import sys

from zerotrust import WorkloadIdentity
from zerotrust.httpx import Client

with (
    WorkloadIdentity.from_env() as me,
    Client(me, peer="spiffe://example.org/data", base_url="https://localhost:8443") as data,
):
    answer = data.get(sys.argv[1])
    print(answer.status_code, answer.text)
