from __future__ import annotations

import json
import signal
import sqlite3
import subprocess
import sys
import time
from contextlib import closing
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
)

from support.issuing import NOW, PASSPHRASE, Asker, make_ca
from zerotrust.ca.authority.entries import NewEntry
from zerotrust.ca.service import open_ca

CHILD = """
import os, signal, sys
from pathlib import Path
from cryptography.hazmat.primitives.serialization import load_pem_private_key
from support.issuing import NOW, PASSPHRASE, Asker
from zerotrust.ca import service
from zerotrust.ca.stores import RecordIssue, sqlite
from zerotrust.core.enrolment import Evidence
from zerotrust.core.jose import SigningKey

folder, step, secret = sys.argv[1:]
def die(*_):
    os.kill(os.getpid(), signal.SIGKILL)

record, apply = sqlite._record_issue, sqlite.SqliteStore.apply
if step == "signed":
    sqlite.SqliteStore.apply = die
elif step == "written":
    def written(connection, change):
        record(connection, change)
        die()
    sqlite._WRITES[RecordIssue] = written
elif step == "committed":
    service.CertificateAuthority._answer = die
ca = service.open_ca(folder, PASSPHRASE, now=NOW)
keys = Path(folder).parent
asker = Asker(
    load_pem_private_key((keys / "tls.pem").read_bytes(), None),
    SigningKey.from_pem((keys / "wit.pem").read_bytes()),
)
asker.enrol(ca, Evidence("join_token", secret))
print("answered", flush=True)
"""

FLOOD = """
import sys
from cryptography import x509
from support.issuing import NOW, PASSPHRASE, Asker
from zerotrust.ca.service import open_ca

ca = open_ca(sys.argv[1], PASSPHRASE, now=NOW)
entry = ca.entries()[0].id
for _ in range(100000):
    issued = Asker().enrol(ca, ca.create_token(entry, now=NOW).evidence)
    print(f"{x509.load_der_x509_certificate(issued.chain[0]).serial_number:x}", flush=True)
"""


def child(script: str, *arguments: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", script, *arguments],
        cwd=Path(__file__).parents[1],
        stdout=subprocess.PIPE,
        text=True,
    )


def serials(folder: Path) -> list[str]:
    with closing(sqlite3.connect(folder / "ca.db")) as connection:
        return [row[0] for row in connection.execute("SELECT serial FROM certificates")]


@pytest.mark.parametrize(("step", "recorded"), [("signed", 0), ("written", 0), ("committed", 1)])
def test_a_ca_killed_at_any_step_has_recorded_whatever_it_answered(
    tmp_path: Path, step: str, recorded: int
) -> None:
    folder, asker = tmp_path / "ca", Asker()
    with make_ca(folder) as ca:
        entry = ca.create_entry(NewEntry("/ledger"), now=NOW)
        evidence = ca.create_token(entry.id, now=NOW).evidence
    (tmp_path / "tls.pem").write_bytes(
        asker.key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    )
    (tmp_path / "wit.pem").write_bytes(asker.wit_key.to_pem())
    with child(CHILD, str(folder), step, evidence.value) as process:
        output, _ = process.communicate(timeout=60)
    assert process.returncode == -signal.SIGKILL
    assert output == ""
    assert len(serials(folder)) == recorded
    # the lost answer can be had: the same keys, the same token, one certificate in all
    with open_ca(folder, PASSPHRASE, now=NOW) as ca:
        issued = asker.enrol(ca, evidence)
    leaf = x509.load_der_x509_certificate(issued.chain[0])
    assert serials(folder) == [f"{leaf.serial_number:x}"]


def test_everything_a_killed_ca_answered_is_on_record(tmp_path: Path) -> None:
    folder = tmp_path / "ca"
    with make_ca(folder) as ca:
        ca.create_entry(NewEntry("/ledger"), now=NOW)
    with child(FLOOD, str(folder)) as process:
        assert process.stdout is not None
        answered = [process.stdout.readline()]
        time.sleep(0.3)
        process.kill()
        answered += process.stdout.readlines()
    known = set(serials(folder))
    complete = [line.strip() for line in answered if line.endswith("\n")]
    assert complete
    assert known.issuperset(complete), json.dumps(complete)
