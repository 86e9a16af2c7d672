"""What a tool that knows nothing of us makes of a wrapped service."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.serialization import Encoding

from support.served import Served
from support.tools import tool


@pytest.fixture(scope="module")
def served() -> Iterator[Served]:
    with Served() as served:
        yield served


@pytest.fixture
def files(served: Served, tmp_path: Path) -> dict[str, str]:
    """Write a caller's certificate and key, and the root, as PEM files."""
    svid = served.ca.issue("web")
    written = {
        "cert": svid.chain_pem,
        "key": svid.key_pem,
        "cacert": served.ca.root.public_bytes(Encoding.PEM),
    }
    for name, pem in written.items():
        (tmp_path / name).write_bytes(pem)
        (tmp_path / name).chmod(0o600)
    return {name: str(tmp_path / name) for name in written}


def curl(served: Served, *options: str) -> subprocess.CompletedProcess[str]:
    host = f"orders.test:{served.port}"
    return subprocess.run(
        [
            tool("curl"),
            "--silent",
            "--show-error",
            "--max-time",
            "10",
            "--noproxy",
            "*",
            "--resolve",
            f"{host}:127.0.0.1",
            "--write-out",
            "\n%{http_code}",
            *options,
            f"https://{host}/echo",
        ],
        capture_output=True,
        text=True,
        check=False,
    )


def test_curl_with_a_certificate_and_no_token_gets_401(
    served: Served, files: dict[str, str]
) -> None:
    done = curl(
        served, "--cert", files["cert"], "--key", files["key"], "--cacert", files["cacert"], "-i"
    )
    assert done.stdout.endswith("\n401"), done
    assert "www-authenticate: WPT" in done.stdout


def test_curl_without_a_certificate_gets_no_connection(
    served: Served, files: dict[str, str]
) -> None:
    done = curl(served, "--cacert", files["cacert"])
    assert done.returncode != 0
    assert done.stdout.endswith("\n000"), done


def test_curl_with_another_root_does_not_believe_us(
    served: Served, files: dict[str, str], tmp_path: Path
) -> None:
    other = served.ca.issue("web", issuer="self")
    (tmp_path / "other").write_bytes(other.chain_pem)
    done = curl(
        served,
        "--cert",
        files["cert"],
        "--key",
        files["key"],
        "--cacert",
        str(tmp_path / "other"),
    )
    assert done.returncode == 60, done  # curl: peer certificate cannot be authenticated
