from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from support.tools import tool
from zerotrust.ca import server
from zerotrust.ca.server import Listeners
from zerotrust.cli import cli
from zerotrust.core.errors import ConfigurationError
from zerotrust.workload import hygiene

Run = Callable[..., subprocess.CompletedProcess[str]]
COMMAND = [sys.executable, "-P", "-m", "zerotrust"]
CLEAN = {k: v for k, v in os.environ.items() if not k.startswith("ZEROTRUST_")}


@pytest.fixture
def run(tmp_path: Path) -> Run:
    """Run zerotrust in a folder with a CA's two passphrases."""
    for name in ("issuing", "root"):
        path = tmp_path / name
        path.write_text(f"passphrase-of-{name}\n")
        path.chmod(0o600)

    def run(*argv: str, stdin: str = "", **environment: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [*COMMAND, *argv],
            cwd=tmp_path,
            env=CLEAN | environment,
            input=stdin,
            capture_output=True,
            text=True,
            check=False,
            timeout=60,
        )

    return run


BOTH = ("--passphrase-file", "issuing", "--root-passphrase-file", "root")
INIT = ("ca", "init", "ca", "--trust-domain", "example.org", *BOTH)


@pytest.fixture
def ca(run: Run, tmp_path: Path) -> Iterator[subprocess.Popen[bytes]]:
    """A running CA of example.org."""
    assert run(*INIT).returncode == 0
    ports = ("--bootstrap", "127.0.0.1:0", "--mtls", "127.0.0.1:0")
    argv = [*COMMAND, "ca", "run", "ca", *ports, "--passphrase-file", "issuing"]
    log = (tmp_path / "ca.log").open("wb")
    with log, subprocess.Popen(argv, cwd=tmp_path, env=CLEAN, stderr=log) as process:
        until = time.monotonic() + 30
        while run("entry", "list").returncode != 0:
            assert process.poll() is None, (tmp_path / "ca.log").read_text()
            assert time.monotonic() < until
        yield process
        process.terminate()
        assert process.wait(20) == 0


def test_from_an_empty_folder_to_an_identity_and_back(
    run: Run, ca: subprocess.Popen[bytes], tmp_path: Path
) -> None:
    web = "spiffe://example.org/web"
    created = run("entry", "create", web, "--dns", "web.test", "--ttl", "2h")
    assert created.stdout.splitlines()[0].startswith(f"registered {web} as ")
    assert (
        created.stdout.splitlines()[1] == f"next: zerotrust token create {web} --ca ca --out FILE"
    )
    token = run("token", "create", web, "--out", "token")
    assert token.stdout.startswith(f"a token for {web} is in token; it works once, within 5m\n")
    assert (tmp_path / "token").read_text() not in token.stdout + token.stderr
    assert run("doctor", "--identity", "ca:token", "--json").returncode in {0, 4}
    fetch = ("svid", "fetch", "--identity", "ca:token", "--out", "id", "--json")
    fetched = json.loads(run(*fetch).stdout)
    assert (fetched["id"], fetched["dev"]) == (web, False)
    again = json.loads(run(*fetch, "--renew").stdout)
    assert again["thumbprint"] != fetched["thumbprint"]
    shown = json.loads(run("svid", "show", "--json", ZEROTRUST_IDENTITY="files:id").stdout)
    assert shown["thumbprint"] == again["thumbprint"]
    assert "PRIVATE" not in run("svid", "show", "id").stdout
    own = json.loads(run("bundle", "show", "--ca", "ca", "--json").stdout)
    assert own == json.loads(run("bundle", "show", "id", "--json").stdout)
    document = run("bundle", "show", "id", "--document").stdout
    assert len(json.loads(document)["keys"]) == 3
    assert run("entry", "delete", web).returncode == 0
    refused = run(*fetch, "--renew")
    assert (refused.returncode, "ZT6002" in refused.stderr) == (1, True)
    assert json.loads(run("entry", "list", "--json").stdout) == {
        "entries": [],
        "next": "zerotrust entry create SPIFFE_ID",
    }


def test_openssl_accepts_what_was_issued(
    run: Run, ca: subprocess.Popen[bytes], tmp_path: Path
) -> None:
    run("entry", "create", "spiffe://example.org/web")
    run("token", "create", "spiffe://example.org/web", "--out", "token")
    assert run("svid", "fetch", "--identity", "ca:token", "--out", "id").returncode == 0
    from zerotrust.cli.svid import kept

    (bundle,) = kept(tmp_path / "id").bundles
    (root,) = bundle.x509_authorities
    (tmp_path / "root.pem").write_bytes(root.public_bytes(Encoding.PEM))
    argv = [tool("openssl"), "verify", "-x509_strict", "-CAfile", "root.pem"]
    argv += ["-untrusted", "id/svid.pem", "id/svid.pem"]
    done = subprocess.run(argv, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.stdout == "id/svid.pem: OK\n", done.stderr


def test_one_store_has_one_ca(run: Run, ca: subprocess.Popen[bytes]) -> None:
    second = run("ca", "run", "ca", "--bootstrap", "127.0.0.1:0", "--passphrase-file", "issuing")
    assert (second.returncode, "ZT1009" in second.stderr) == (1, True)
    rotation = run("ca", "rotate-issuer", "ca", *BOTH)
    assert (rotation.returncode, "stop it first" in rotation.stderr) == (1, True)


def test_an_entry_of_another_trust_domain_is_refused_and_not_kept(
    run: Run, ca: subprocess.Popen[bytes], tmp_path: Path
) -> None:
    done = run("entry", "create", "spiffe://example.net/web")
    assert (done.returncode, done.stderr.count("ZT6006")) == (1, 2)  # the error and its help
    assert json.loads(run("entry", "list", "--json").stdout)["entries"] == []
    log = (tmp_path / "ca.log").read_text()
    assert "another trust domain" in log
    assert "created entry" not in log, "not even for a moment"


def test_a_refusal_over_the_admin_socket_keeps_its_reason(
    run: Run, ca: subprocess.Popen[bytes]
) -> None:
    run("entry", "create", "spiffe://example.org/web")
    again = run("entry", "create", "spiffe://example.org/web", "--json")
    error = json.loads(again.stderr)["error"]
    assert error == {
        "code": "ZT6006",
        "reason": "issuance.entry",
        "detail": "spiffe://example.org/web is registered, or was a moment ago",
    }
    where = ("--address", "nowhere", "--out", "token")
    nowhere = run("token", "create", "spiffe://example.org/web", *where, "--json")
    assert json.loads(nowhere.stderr)["error"]["code"] == "ZT1107"


def test_a_token_needs_an_entry_and_a_new_file(
    run: Run, ca: subprocess.Popen[bytes], tmp_path: Path
) -> None:
    nobody = run("token", "create", "spiffe://example.org/nobody", "--out", "token")
    assert (nobody.returncode, "zerotrust entry create" in nobody.stderr) == (1, True)
    (tmp_path / "token").touch()
    run("entry", "create", "spiffe://example.org/web")
    taken = run("token", "create", "spiffe://example.org/web", "--out", "token")
    assert (taken.returncode, "exists already" in taken.stderr) == (1, True)


def test_a_token_can_be_bound_to_a_key(
    run: Run, ca: subprocess.Popen[bytes], tmp_path: Path
) -> None:
    run("entry", "create", "spiffe://example.org/web")
    create = ("token", "create", "spiffe://example.org/web", "--out", "token", "--csr-key")
    missing = run(*create, "nowhere.pem")
    assert (missing.returncode, "nowhere.pem" in missing.stderr) == (1, True)
    refused = run(*create, "issuing")
    assert (refused.returncode, "neither a public key nor a CSR" in refused.stderr) == (1, True)
    other = Ed25519PrivateKey.generate().public_key()
    pem = other.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    (tmp_path / "other.pem").write_bytes(pem)
    assert run(*create, "other.pem").returncode == 0
    fetched = run("svid", "fetch", "--identity", "ca:token", "--out", "id")
    assert (fetched.returncode, "ZT6001" in fetched.stderr) == (1, True), fetched.stderr


@pytest.mark.parametrize("command", ["init", "run", "rotate-issuer", "rotate-root"])
def test_whoever_opens_a_key_lets_nobody_read_its_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, command: str
) -> None:
    def harden() -> None:
        raise ConfigurationError("this comes first")

    monkeypatch.setattr(hygiene, "harden_process", harden)
    more = {"init": ["--trust-domain", "example.org"], "rotate-root": ["prepare"]}
    argv = ["ca", command, str(tmp_path / "ca"), *more.get(command, [])]
    assert "this comes first" in CliRunner().invoke(cli, argv).stderr


def test_the_users_that_may_administer_a_ca_are_named(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert run(*INIT).returncode == 0
    asked: list[Listeners] = []
    monkeypatch.setattr(server, "run", lambda _, listeners, **__: asked.append(listeners))
    monkeypatch.chdir(tmp_path)
    argv = ["ca", "run", "ca", "--passphrase-file", "issuing"]
    for more in ([], ["--admin-uid", "0", "--admin-uid", "1000"]):
        assert CliRunner().invoke(cli, [*argv, *more]).exit_code == 0
    assert [listeners.admin_uids for listeners in asked] == [(), (0, 1000)]
    for wrong in ("-1", "root"):
        assert CliRunner().invoke(cli, [*argv, "--admin-uid", wrong]).exit_code == 2


def test_a_ca_that_is_not_running_is_unavailable(run: Run) -> None:
    for argv in (["entry", "list"], ["token", "create", "spiffe://a.org/b", "--out", "t"]):
        done = run(*argv)
        assert done.returncode == 3
        assert "zerotrust ca run ca" in done.stderr


def test_a_wrong_passphrase_is_one_message(run: Run) -> None:
    assert run(*INIT).returncode == 0
    done = run("ca", "run", "ca", "--passphrase-file", "root")
    assert (done.returncode, "ZT1007" in done.stderr) == (1, True)
    assert "Traceback" not in done.stderr


def test_without_a_passphrase_nobody_is_asked_through_a_pipe(run: Run) -> None:
    done = run("ca", "init", "ca", "--trust-domain", "example.org", stdin="secret\n")
    assert (done.returncode, "ZT1007" in done.stderr) == (1, True)


def test_the_passphrase_may_come_by_the_environment(run: Run) -> None:
    options = ("--trust-domain", "example.org", "--root-passphrase-file", "root")
    assert run("ca", "init", "ca", *options, ZEROTRUST_PASSPHRASE="from-outside").returncode == 0


def test_a_passphrase_is_the_bytes_that_were_given(run: Run) -> None:
    odd = os.fsdecode(b"\xff\xfe-and-more")
    made = run(*INIT[:5], *BOTH[2:], ZEROTRUST_PASSPHRASE=odd)
    assert made.returncode == 0, made.stderr


def test_root_and_issuing_keys_do_not_share_a_passphrase(run: Run) -> None:
    same = ("--passphrase-file", "root", "--root-passphrase-file", "root")
    done = run("ca", "init", "ca", "--trust-domain", "example.org", *same)
    assert (done.returncode, "two different" in done.stderr) == (1, True)


def test_a_passphrase_file_that_others_can_read_is_refused(run: Run, tmp_path: Path) -> None:
    (tmp_path / "issuing").chmod(0o644)
    done = run(*INIT)
    assert (done.returncode, "chmod 600" in done.stderr) == (1, True)


def test_a_second_init_touches_nothing(run: Run, tmp_path: Path) -> None:
    assert run(*INIT).returncode == 0
    before = (tmp_path / "ca" / "ca.json").read_bytes()
    done = run(*INIT)
    assert (done.returncode, "holds a CA already" in done.stderr) == (1, True)
    assert (tmp_path / "ca" / "ca.json").read_bytes() == before


def test_a_port_in_use_is_one_message(run: Run) -> None:
    assert run(*INIT).returncode == 0
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        done = run(
            "ca", "run", "ca", "--bootstrap", f"127.0.0.1:{port}", "--passphrase-file", "issuing"
        )
    assert (done.returncode, "ZT1006" in done.stderr) == (1, True)


def test_a_ca_says_where_it_listens_and_only_then(
    run: Run, ca: subprocess.Popen[bytes], tmp_path: Path
) -> None:
    told = re.search(r"enrol at 127\.0\.0\.1:(\d+), renew", (tmp_path / "ca.log").read_text())
    assert told
    with socket.create_connection(("127.0.0.1", int(told[1])), timeout=5):
        pass


def test_a_root_is_replaced_in_three_steps(run: Run, tmp_path: Path) -> None:
    assert run(*INIT).returncode == 0
    new = tmp_path / "new"
    new.write_text("passphrase-of-new-root")
    new.chmod(0o600)
    for step, roots in (("prepare", 2), ("activate", 2), ("drop", 1)):
        current = "new" if step == "drop" else "root"
        files = ("--passphrase-file", "issuing", "--root-passphrase-file", current)
        done = run(
            "ca", "rotate-root", "ca", step, *files, "--new-root-passphrase-file", "new", "--json"
        )
        assert done.returncode == 0, done.stderr
        assert json.loads(done.stdout)["roots"] == roots


def test_a_ca_ends_cleanly_when_it_is_told(run: Run, ca: subprocess.Popen[bytes]) -> None:
    ca.send_signal(signal.SIGINT)
    assert ca.wait(20) == 0
    assert run("entry", "list").returncode == 3


def test_an_identity_that_lives_in_its_process_is_not_shown(run: Run) -> None:
    done = run("svid", "show", ZEROTRUST_IDENTITY="ca:/run/token")
    assert (done.returncode, "lives in its process" in done.stderr) == (1, True)
    nothing = run("bundle", "show")
    assert (nothing.returncode, "no identity" in nothing.stderr) == (1, True)
