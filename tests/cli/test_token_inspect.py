from __future__ import annotations

import json

from click.testing import CliRunner, Result
from hypothesis import given
from hypothesis import strategies as st

from zerotrust.cli import cli
from zerotrust.core.enrolment import JoinToken, ca_id
from zerotrust.core.jose import SigningKey, b64url_encode, sign_compact
from zerotrust.core.spiffe.ids import TrustDomain

KEY = SigningKey.generate()
TOKEN = sign_compact({"typ": "wit+jwt", "kid": "k"}, {"sub": "spiffe://a.org/b", "exp": 5}, KEY)


def inspect(text: str | bytes, *options: str) -> Result:
    return CliRunner().invoke(cli, ["token", "inspect", *options], input=text)


def test_a_token_is_shown_as_not_verified_and_without_its_signature() -> None:
    result = inspect(TOKEN)
    assert result.exit_code == 0
    assert result.stdout.startswith("wit+jwt, NOT VERIFIED: anybody can write this\n")
    assert "spiffe://a.org/b" in result.stdout
    assert "ago" in result.stdout
    assert TOKEN.rpartition(".")[2] not in result.stdout


def test_under_json_it_says_that_nothing_was_verified() -> None:
    told = json.loads(inspect(TOKEN, "--json").stdout)
    assert told["verified"] is False
    assert told["signature"] == "redacted"
    assert told["claims"]["exp"] == 5


def test_a_proof_may_be_pasted_with_its_scheme() -> None:
    assert inspect(f"WPT {TOKEN}\n").exit_code == 0


def test_a_join_token_is_shown_without_its_secret() -> None:
    secret = bytes(range(32))
    join = JoinToken("127.0.0.1:1", ca_id(TrustDomain("a.org")), ("0" * 64,), secret)
    result = inspect(join.dump())
    assert result.exit_code == 0
    assert "127.0.0.1:1" in result.stdout
    assert b64url_encode(secret) not in result.stdout
    assert join.dump() not in result.stdout


def test_terminal_escapes_in_a_token_stay_escapes() -> None:
    nasty = sign_compact({"typ": "\x1b[2J"}, {"sub": "\x1b]0;x\x07"}, KEY)
    result = inspect(nasty)
    assert "\x1b" not in result.output


def test_a_token_on_the_command_line_is_not_taken() -> None:
    result = CliRunner().invoke(cli, ["token", "inspect", TOKEN])
    assert result.exit_code == 2


@given(st.binary(max_size=300))
def test_whatever_is_no_token_is_a_usage_error_or_malformed(data: bytes) -> None:
    assert inspect(data).exit_code in {1, 2}
