"""Honest calls through all three services, on a thread, for as long as the demo attacks."""

from __future__ import annotations

import threading
import time
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from zerotrust import WorkloadIdentity
from zerotrust.ca import dev
from zerotrust.httpx import Client

STOREFRONT = "spiffe://example.org/storefront"
PAUSE = 0.05  # seconds between two calls
PARTIES = 4  # the customer and three services


@dataclass(frozen=True)
class Report:
    """What became of the honest calls."""

    served: int
    failed: int
    first_failure: str
    certificates: dict[str, int]  # service -> how many different certificates it used


class Traffic:
    """Calls storefront again and again; each answer tells who was called with which certificate."""

    def __init__(self, certs: Path, url: str) -> None:
        self._me = WorkloadIdentity.from_url(f"ca:{dev.mint(certs, 'customer')}", dev=True)
        self._client = Client(self._me, peer=STOREFRONT, base_url=url)
        self._seen: dict[str, set[str]] = defaultdict(set)
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._call, daemon=True)
        self.served = 0
        self._failures: list[str] = []

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_exc: object) -> None:
        self._stop.set()
        self._thread.join(10)
        self._client.close()
        self._me.close()

    def rotations(self) -> int:
        """Return how often the service that rotated least did so."""
        counts = [len(certificates) for certificates in dict(self._seen).values()]
        return min(counts) - 1 if len(counts) == PARTIES else 0

    def report(self) -> Report:
        """Return what became of the calls."""
        counts = {service: len(certificates) for service, certificates in self._seen.items()}
        first = f": {self._failures[0]}" if self._failures else ""
        return Report(self.served, len(self._failures), first, counts)

    def _call(self) -> None:
        while not self._stop.is_set():
            try:
                answer = self._client.get("/items/7")
                answer.raise_for_status()
                hops = answer.json()
                callers = [hop["called_by"].rpartition("/")[2] for hop in hops]
                assert callers == ["customer", "storefront", "orders"], callers
                for hop in hops:
                    self._seen[hop["service"]].add(hop["certificate"])
                self._seen["customer"].add(self._me.current.svid.thumbprint)
                self.served += 1
            except Exception as error:  # noqa: BLE001 - every failure of an honest call counts
                self._failures.append(f"{type(error).__name__}: {error}")
            time.sleep(PAUSE)
