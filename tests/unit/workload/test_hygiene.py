"""A process with keys leaves no core and names what would leak."""

from __future__ import annotations

import subprocess
import sys

import pytest

from zerotrust.workload import hygiene


def test_a_hardened_process_dumps_no_core_and_still_loads_keys() -> None:
    script = (
        "import resource, ctypes, os\n"
        "from zerotrust.workload.hygiene import harden_process\n"
        "harden_process()\n"
        "fd = os.memfd_create('x'); os.write(fd, b'key')\n"
        "print(resource.getrlimit(resource.RLIMIT_CORE), ctypes.CDLL(None).prctl(3),"
        " open(f'/proc/self/fd/{fd}').read())\n"
    )
    said = subprocess.run([sys.executable, "-c", script], capture_output=True, check=True)
    assert said.stdout == b"(0, 0) 0 key\n"


def test_what_would_leak_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("SSLKEYLOGFILE", "GRPC_TRACE", "OPENSSL_CONF"):
        monkeypatch.delenv(name, raising=False)
    assert hygiene.environment_warnings() == ()
    monkeypatch.setenv("SSLKEYLOGFILE", "keys.log")
    (warning,) = hygiene.environment_warnings()
    assert warning.startswith("SSLKEYLOGFILE is set")
