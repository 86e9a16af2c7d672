from __future__ import annotations

import subprocess
import sys

import zerotrust

FROZEN = [
    "AccessDenied",
    "Allow",
    "BundleSet",
    "Call",
    "CallReplayed",
    "Caller",
    "CertificateRejected",
    "ConfigurationError",
    "Decision",
    "Deny",
    "Guard",
    "IdentityUnavailable",
    "IssuanceError",
    "MalformedError",
    "PeerError",
    "Policy",
    "SpiffeId",
    "TokenRejected",
    "TrustBundle",
    "TrustDomain",
    "WorkloadIdentity",
    "X509Svid",
    "ZeroTrustError",
]
HEAVY = ("httpx", "httpx2", "starlette", "uvicorn", "grpc", "click", "asyncio.sslproto")


def _loaded_after(statement: str) -> set[str]:
    code = f"{statement}\nimport sys\nprint('\\n'.join(sys.modules))"
    # -I: no user site, no environment; what is loaded is what the statement loads
    done = subprocess.run(
        [sys.executable, "-I", "-c", code], capture_output=True, text=True, check=True
    )
    return set(done.stdout.split())


def test_the_public_surface_is_frozen() -> None:
    assert zerotrust.__all__ == FROZEN
    assert len(FROZEN) <= 30
    assert all(hasattr(zerotrust, name) for name in FROZEN)


def test_importing_the_front_door_loads_nothing_optional() -> None:
    assert _loaded_after("import zerotrust").isdisjoint(HEAVY)


def test_importing_the_front_door_starts_no_thread() -> None:
    code = "import zerotrust, threading; print(threading.active_count())"
    done = subprocess.run(
        [sys.executable, "-I", "-c", code], capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "1"


def test_one_client_library_does_not_load_the_other() -> None:
    assert "httpx2" not in _loaded_after("import zerotrust.httpx")
    assert "httpx" not in _loaded_after("import zerotrust.httpx2")
