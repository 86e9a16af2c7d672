from __future__ import annotations

from pathlib import Path

import pytest

from zerotrust.core.enrolment import JoinToken, ca_id
from zerotrust.core.errors import ConfigurationError
from zerotrust.core.spiffe.ids import TrustDomain
from zerotrust.workload.evidence.join_token import read_join_token

TOKEN = JoinToken("127.0.0.1:8441", ca_id(TrustDomain("example.org")), ("0" * 64,), bytes(32))


def written(tmp_path: Path, content: bytes, mode: int = 0o600) -> Path:
    path = tmp_path / "token"
    path.write_bytes(content)
    path.chmod(mode)
    return path


def test_a_token_is_read_with_or_without_its_newline(tmp_path: Path) -> None:
    assert read_join_token(written(tmp_path, TOKEN.dump().encode())) == TOKEN
    assert read_join_token(written(tmp_path, TOKEN.dump().encode() + b"\n")) == TOKEN


@pytest.mark.parametrize("content", [b"", b"ztjoin1.", b"ztjoin1.\xff", b"{}", b"A" * 5000])
def test_what_is_no_token_is_refused_with_the_command_that_makes_one(
    tmp_path: Path, content: bytes
) -> None:
    with pytest.raises(ConfigurationError):
        read_join_token(written(tmp_path, content))


def test_a_refusal_does_not_quote_the_file(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError) as caught:
        read_join_token(written(tmp_path, TOKEN.dump().encode() + b"x"))
    assert TOKEN.dump()[20:40] not in str(caught.value)


@pytest.mark.parametrize("mode", [0o604, 0o644, 0o622])
def test_a_token_that_others_can_read_or_write_is_refused(tmp_path: Path, mode: int) -> None:
    with pytest.raises(ConfigurationError, match="chmod"):
        read_join_token(written(tmp_path, TOKEN.dump().encode(), mode))


def test_a_missing_token_is_one_message(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="No such file"):
        read_join_token(tmp_path / "token")
