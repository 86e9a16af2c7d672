"""What a process is told from outside."""

from __future__ import annotations

from pathlib import Path

import pytest

from zerotrust import settings
from zerotrust.core.errors import ConfigurationError
from zerotrust.settings import Settings, from_environment


def write(folder: Path, text: str | bytes) -> dict[str, str]:
    path = folder / "zerotrust.toml"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return {"ZEROTRUST_CONFIG": str(path)}


def test_nothing_set_is_nothing_told() -> None:
    assert from_environment({}) == Settings(identity=None, dev=False)


def test_the_environment_names_the_identity() -> None:
    assert from_environment({"ZEROTRUST_IDENTITY": "files:/run/id"}).identity == "files:/run/id"


def test_the_file_names_the_identity(tmp_path: Path) -> None:
    found = from_environment(write(tmp_path, 'identity = "files:/run/id"'))
    assert found == Settings(identity="files:/run/id")


def test_a_variable_overrules_the_file(tmp_path: Path) -> None:
    given = write(tmp_path, 'identity = "files:/a"')
    assert from_environment({**given, "ZEROTRUST_IDENTITY": "files:/b"}).identity == "files:/b"


@pytest.mark.parametrize(("value", "dev"), [("1", True), ("0", False), ("", False)])
def test_dev_is_one_or_not_set(value: str, dev: bool) -> None:
    assert from_environment({"ZEROTRUST_DEV": value}).dev is dev


@pytest.mark.parametrize("value", ["true", "yes", "2", " 1"])
def test_any_other_dev_is_refused(value: str) -> None:
    with pytest.raises(ConfigurationError, match="ZEROTRUST_DEV"):
        from_environment({"ZEROTRUST_DEV": value})


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("dev = true", "unknown key 'dev'"),
        ("identiti = 'files:/a'", "unknown key 'identiti'"),
        ("identity = 7", "identity is not a string"),
        ("identity = ''", "identity is not a string"),
        ("identity = ", "is not TOML"),
        (b"\xff", "is not TOML"),
        ("a = " + "[" * 20000, "is not TOML"),
        ("#" * 70000, "longer than"),
    ],
    ids=lambda case: str(case)[:20],
)
def test_a_bad_file_is_refused_by_name(tmp_path: Path, text: str | bytes, named: str) -> None:
    with pytest.raises(ConfigurationError, match=named) as caught:
        from_environment(write(tmp_path, text))
    assert "zerotrust.toml" in caught.value.detail


def test_a_missing_file_is_refused_by_name(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="nowhere"):
        from_environment({"ZEROTRUST_CONFIG": str(tmp_path / "nowhere")})


def test_the_passphrase_leaves_the_environment_as_it_is_read() -> None:
    given = {"ZEROTRUST_PASSPHRASE": "open sesame"}
    assert settings.take_passphrase(given) == "open sesame"
    assert given == {}
    assert settings.take_passphrase(given) is None


def test_the_process_environment_is_the_default(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ZEROTRUST_IDENTITY", "files:/run/id")
    monkeypatch.setenv("ZEROTRUST_PASSPHRASE", "x")
    monkeypatch.delenv("ZEROTRUST_CONFIG", raising=False)
    monkeypatch.delenv("ZEROTRUST_DEV", raising=False)
    assert from_environment() == Settings(identity="files:/run/id")
    assert settings.take_passphrase() == "x"
    assert settings.present(["ZEROTRUST_PASSPHRASE", "ZEROTRUST_IDENTITY"]) == (
        "ZEROTRUST_IDENTITY",
    )
