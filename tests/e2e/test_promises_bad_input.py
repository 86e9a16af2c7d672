"""Bad input and a bad place: one clear message, an exit code, no traceback, nothing half done."""

from __future__ import annotations

import json
import os
import re
import resource
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from zerotrust.core.enrolment import SECRET_BYTES, JoinToken
from zerotrust.core.jose import SigningKey
from zerotrust.core.spiffe.ids import SpiffeId
from zerotrust.probe.forge import ForgedAuthority
from zerotrust.workload.layout import write_layout, write_private

NOW = time.time()
CA = ForgedAuthority(now=NOW)
POLICY = """
schema = 1
service = "web"
trust_domain = "example.org"
mode = "enforce"
[[allow]]
id = "read"
from = ["orders"]
to = ["GET /"]
"""
COMMAND = [sys.executable, "-P", "-m", "zerotrust"]
CLEAN = {k: v for k, v in os.environ.items() if not k.startswith("ZEROTRUST_")}


class Place:
    """A folder in which every command below works, until one thing in it is spoiled."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        write_layout(folder / "identity", CA.snapshot("web"), {})
        (folder / "policy.toml").write_text(POLICY)
        (folder / "app.py").write_text("async def app(scope, receive, send): ...\n")
        for name in ("issuing", "root"):
            write_private(folder / name, f"passphrase-of-{name}".encode())
        ca = SpiffeId.parse("spiffe://example.org/zerotrust/ca")
        token = JoinToken("127.0.0.1:1", ca, ("a" * 64,), bytes(SECRET_BYTES))
        write_private(folder / "token", token.dump().encode())

    def run(
        self, *argv: str, limit: int = resource.RLIM_INFINITY, config: str | None = None
    ) -> subprocess.CompletedProcess[str]:
        """Run a command; no file may grow over `limit` bytes."""

        def small_disk() -> None:
            resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))

        env = CLEAN if config is None else CLEAN | {"ZEROTRUST_CONFIG": config}
        if limit != resource.RLIM_INFINITY:  # what measures coverage would meet the full disk too
            env = {name: value for name, value in env.items() if not name.startswith("COVERAGE")}
        return subprocess.run(
            [*COMMAND, *argv],
            cwd=self.folder,
            env=env,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
            timeout=60,
            preexec_fn=small_disk,
        )

    def put(self, name: str, content: bytes, mode: int = 0o600) -> None:
        path = (self.folder / name).resolve()  # the names of an identity are links
        path.write_bytes(content)
        path.chmod(mode)


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Place(tmp_path)


INIT = (
    *("ca", "init", "ca", "--trust-domain", "example.org"),
    *("--passphrase-file", "issuing", "--root-passphrase-file", "root"),
)
SHOW = ("svid", "show", "identity")
CHECK = ("policy", "check", "policy.toml")
SERVE = ("serve", "app:app", "--identity", "files:identity", "--policy", "policy.toml")
FETCH = ("svid", "fetch", "--identity", "ca:token", "--out", "out")


@pytest.mark.parametrize("argv", [INIT, SHOW, CHECK], ids=lambda argv: " ".join(argv[:2]))
def test_what_is_spoiled_below_works(place: Place, argv: tuple[str, ...]) -> None:
    done = place.run(*argv)
    assert (done.returncode, done.stderr) == (0, "")


Spoil = Callable[[Place], None]


def put(name: str, content: bytes | Callable[[], bytes], mode: int = 0o600) -> Spoil:
    return lambda p: p.put(name, content if isinstance(content, bytes) else content(), mode)


def policy(content: str) -> Spoil:
    return put("policy.toml", content.encode())


def _encrypted() -> bytes:
    from cryptography.hazmat.primitives.serialization import (
        BestAvailableEncryption,
        Encoding,
        PrivateFormat,
    )

    key = CA.issue("web").key
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, BestAvailableEncryption(b"x"))


def _later(p: Place) -> None:
    write_layout(p.folder / "identity", CA.snapshot("web", not_before=NOW + 7200), {})


def _over(p: Place) -> None:
    gone = CA.snapshot("web", not_before=NOW - 600, ttl=300)
    write_layout(p.folder / "identity", gone, {})


BAD: dict[str, tuple[Spoil | None, tuple[str, ...], str]] = {
    # policies
    "a policy that is no TOML": (policy("allow = ["), CHECK, "policy.toml:1"),
    "a policy with an unknown key": (policy(POLICY + 'colour = "red"\n'), CHECK, "colour"),
    "a policy with a key twice": (policy(POLICY + 'id = "again"\n'), CHECK, "policy.toml:"),
    "a policy nested deep": (policy("a = " + "[" * 5000), CHECK, "policy.toml"),
    "a policy of nine megabytes": (policy("#" * (9 << 20)), CHECK, "policy.toml"),
    "a policy in another encoding": (put("policy.toml", b"\xff\xfes"), CHECK, "policy.toml"),
    "an empty policy": (policy(""), CHECK, "schema"),
    "a policy in report mode": (policy(POLICY.replace("enforce", "report")), CHECK, "mode"),
    "a policy for another domain": (
        policy(POLICY.replace("example.org", "other.org")),
        SERVE,
        "other.org",
    ),
    "a policy that others may write": (
        lambda p: (p.folder / "policy.toml").chmod(0o666),
        SERVE,
        "policy.toml",
    ),
    "a policy that is not there": (
        lambda p: (p.folder / "policy.toml").unlink(),
        SERVE,
        "policy.toml",
    ),
    # settings
    "settings that are no TOML": (put("settings.toml", b"= ="), ("svid", "show"), "settings.toml"),
    "settings with an unknown key": (put("settings.toml", b"trust = 1"), ("svid", "show"), "trust"),
    "settings of another type": (
        put("settings.toml", b"identity = 7"),
        ("svid", "show"),
        "identity",
    ),
    "settings that are not there": (None, ("svid", "show"), "settings.toml"),
    # bundles, keys, certificates, tokens
    "a bundle that is no JSON": (put("identity/bundle.json", b"{"), SHOW, "bundle.json"),
    "a bundle with a member twice": (
        put("identity/bundle.json", b'{"keys": [], "keys": []}'),
        SHOW,
        "bundle.json",
    ),
    "a bundle nested deep": (put("identity/bundle.json", b"[" * 100_000), SHOW, "bundle.json"),
    "a bundle of two megabytes": (
        put("identity/bundle.json", b" " * (2 << 20)),
        SHOW,
        "bundle.json",
    ),
    "a bundle that trusts nobody": (
        put("identity/bundle.json", b'{"keys": []}'),
        SERVE,
        "wit-svid",
    ),
    "a bundle of another authority": (
        put("identity/bundle.json", lambda: ForgedAuthority(now=NOW).bundle_document()),
        SHOW,
        "ZT3002",
    ),
    "a key that is none": (
        put("identity/svid.key", b"-----BEGIN PRIVATE KEY-----"),
        SHOW,
        "svid.key",
    ),
    "a key of somebody else": (
        put("identity/svid.key", lambda: CA.issue("web").key_pem),
        SHOW,
        "svid.key",
    ),
    "a key with a passphrase": (put("identity/svid.key", _encrypted), SHOW, "svid.key"),
    "a key that everybody can read": (
        put("identity/svid.key", lambda: CA.issue("web").key_pem, 0o644),
        SHOW,
        "svid.key",
    ),
    "a token key that is none": (put("identity/wit.key", b"no key"), SHOW, "wit.key"),
    "a token over another key": (
        put("identity/wit.key", lambda: SigningKey.generate().to_pem()),
        SHOW,
        "wit.jwt",
    ),
    "a certificate that is none": (put("identity/svid.pem", b"no certificate"), SHOW, "svid.pem"),
    "a folder that is not there": (None, ("svid", "show", "elsewhere"), "elsewhere"),
    "an identity that is over": (_over, SERVE, "expired"),
    "a clock behind the certificate": (_later, SERVE, "not_yet_valid"),
    # passphrases
    "a passphrase file that is not there": (lambda p: (p.folder / "root").unlink(), INIT, "root"),
    "an empty passphrase": (put("root", b"\n"), INIT, "passphrase"),
    "a short passphrase": (put("root", b"short"), INIT, "passphrase"),
    "a passphrase of a megabyte": (put("root", b"x" * (1 << 20)), INIT, "root"),
    # names
    "a trust domain with a capital": (
        None,
        ("ca", "init", "ca", "--trust-domain", "Example.org", *INIT[5:]),
        "Example.org",
    ),
    "a trust domain that is a URL": (
        None,
        ("ca", "init", "ca", "--trust-domain", "https://a.org", *INIT[5:]),
        "https",
    ),
    "a SPIFFE ID of another scheme": (
        None,
        ("entry", "create", "https://example.org/web"),
        "use spiffe",
    ),
    "a SPIFFE ID with a port": (
        None,
        ("entry", "create", "spiffe://example.org:1/web"),
        "example.org:1",
    ),
    "a SPIFFE ID with dots": (None, ("entry", "create", "spiffe://example.org/a/../b"), ".."),
    "a SPIFFE ID with terminal escapes": (
        None,
        ("entry", "create", "spiffe://example.org/\x1b[2J"),
        "x1b",
    ),
    # join tokens
    "a join token that is none": (put("token", b"{}"), FETCH, "token"),
    "a join token that everybody can read": (
        lambda p: (p.folder / "token").chmod(0o644),
        FETCH,
        "token",
    ),
    "a CA that is down": (None, FETCH, "127.0.0.1:1"),
    # identity URLs
    "no identity at all": (None, ("svid", "show"), "no identity"),
    # places
    "a folder below a file": (None, ("ca", "init", "policy.toml/ca", *INIT[3:]), "policy.toml/ca"),
    "a folder that takes nothing": (
        None,
        ("ca", "init", "/sys/kernel/zerotrust", *INIT[3:]),
        "/sys/kernel",
    ),
    "an output folder that takes nothing": (
        None,
        ("svid", "fetch", "--identity", "files:identity", "--out", "/sys/kernel/zerotrust"),
        "/sys/kernel",
    ),
    "a dev folder below a file": (
        None,
        ("dev", "up", "example.org", "--dir", "policy.toml/dev"),
        "policy.toml/dev",
    ),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_input_is_one_message_that_says_where(place: Place, case: str) -> None:
    spoil, argv, word = BAD[case]
    if spoil is not None:
        spoil(place)
    done = place.run(*argv, config="settings.toml" if case.startswith("settings") else None)
    one_message(done)
    assert word in done.stderr + done.stdout


def one_message(done: subprocess.CompletedProcess[str]) -> None:
    said = done.stderr + done.stdout
    assert done.returncode in {1, 2, 3}, said
    assert "Traceback" not in said
    assert "PRIVATE KEY-----\nMI" not in said
    assert "passphrase-of" not in said
    assert "\x1b" not in said
    errors = [line for line in said.splitlines() if re.search(r"^Error: |ZT\d{4} [a-z]", line)]
    assert len(errors) == 1, said
    assert len(said) < 2000, said


def test_a_full_disk_leaves_no_half_of_a_ca(place: Place) -> None:
    done = place.run(*INIT, limit=200)
    one_message(done)
    again = place.run(*INIT)
    assert again.returncode == 0, again.stderr


def test_a_full_disk_leaves_the_last_identity_in_place(place: Place) -> None:
    copy = ("svid", "fetch", "--identity", "files:identity", "--out", "out")
    assert place.run(*copy).returncode == 0
    before = (place.folder / "out/svid.pem").read_bytes()
    one_message(place.run(*copy, limit=100))
    assert (place.folder / "out/svid.pem").read_bytes() == before
    assert place.run("svid", "show", "out").returncode == 0


def test_an_error_under_json_is_one_object(place: Place) -> None:
    place.put("identity/svid.key", b"no key")
    done = place.run(*SHOW, "--json")
    assert done.stdout == ""
    assert "svid.key" in json.dumps(json.loads(done.stderr))


@pytest.fixture
def taken() -> Iterator[int]:
    with socket.create_server(("127.0.0.1", 0)) as sock:
        yield sock.getsockname()[1]


def test_a_port_in_use_says_which(place: Place, taken: int) -> None:
    done = place.run(*SERVE, "--port", str(taken))
    one_message(done)
    assert str(taken) in done.stderr
