from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from zerotrust.cli import cli

POLICY = """\
schema = 1
service = "orders"
trust_domain = "example.org"
mode = "enforce"
[[allow]]
id = "read"
from = ["web"]
to = ["GET /orders/{id}"]
[[allow]]
id = "write"
from = ["web"]
to = ["POST /orders"]
token = "proof"
[[test]]
name = "web reads"
as = "web"
do = "GET /orders/7"
want = "allow:read"
"""
FAILING = '[[test]]\nname = "db reads"\nas = "db"\ndo = "GET /orders/7"\nwant = "allow"\n'
BRAKE = '[[deny]]\nid = "stop"\nfrom = ["..."]\nto = ["*"]\n'


@pytest.fixture(autouse=True)
def _folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    save("policy.toml", POLICY)


def save(name: str, text: str) -> None:
    Path(name).write_text(text)
    Path(name).chmod(0o644)


def run(*words: str) -> Result:
    return CliRunner().invoke(cli, ["policy", *words], prog_name="zerotrust")


def transcript(*words: str) -> tuple[int, list[str]]:
    result = run(*words)
    return result.exit_code, result.output.splitlines()


def test_check_says_what_a_good_file_holds() -> None:
    code, lines = transcript("check", "policy.toml")
    assert code == 0
    assert lines[0].startswith("policy.toml: ok: 2 allow, 0 deny, 1 tests, digest ")
    assert lines[1:] == ["next: zerotrust policy test policy.toml"]


def test_check_names_file_line_and_key_and_goes_on_with_the_next_file() -> None:
    save("bad.toml", POLICY.replace("token =", "tokens ="))
    code, lines = transcript("check", "bad.toml", "nothing.toml", "policy.toml")
    assert code == 1
    assert lines[0].startswith("bad.toml: ZT1103 malformed.policy: bad.toml:13: allow[2].tokens: ")
    assert lines[1].startswith("nothing.toml: ZT1005 config.file: ")
    assert lines[2].startswith("policy.toml: ok")
    assert lines[3] == "next: mend what is named above"


def test_check_fails_on_a_failing_test_and_tells_of_an_overruled_one() -> None:
    save("failing.toml", POLICY + FAILING)
    code, lines = transcript("check", "failing.toml")
    assert code == 1
    assert "test 'db reads': wants allow, got deny:rule.none; mend" in lines[0]
    save("braked.toml", POLICY + BRAKE)
    code, lines = transcript("check", "braked.toml")
    assert code == 0
    assert lines[1].startswith("  note: braked.toml: a deny rule overrules test 'web reads'")


def test_check_speaks_json() -> None:
    save("bad.toml", "schema = 2\n")
    result = run("check", "--json", "policy.toml", "bad.toml")
    found = json.loads(result.output)
    assert result.exit_code == 1
    assert [file["error"] is None for file in found["files"]] == [True, False]
    assert found["ok"] is False


def test_test_shows_each_test_and_fails_with_the_first_that_fails() -> None:
    assert transcript("test", "policy.toml") == (
        0,
        [
            "result  name       want        got",
            "pass    web reads  allow:read  allow:read",
            "1 of 1 tests pass",
            "next: zerotrust serve APP --policy policy.toml",
        ],
    )
    save("failing.toml", POLICY + FAILING)
    assert transcript("test", "failing.toml") == (
        1,
        [
            "result  name       want        got",
            "pass    web reads  allow:read  allow:read",
            "FAIL    db reads   allow       deny:rule.none",
            "1 of 2 tests pass",
            'next: zerotrust policy explain --as CALLER --do "GET /path" failing.toml',
        ],
    )


def test_test_fails_where_a_deny_rule_overrules_a_test() -> None:
    save("braked.toml", POLICY + BRAKE)
    code, lines = transcript("test", "braked.toml")
    assert code == 1
    assert lines[1].startswith("FAIL")


def test_test_asks_for_tests_where_there_are_none() -> None:
    save("bare.toml", POLICY.partition("[[test]]")[0])
    code, lines = transcript("test", "bare.toml")
    assert (code, lines[0]) == (0, "0 of 0 tests pass")
    assert "write a [[test]]" in lines[1]


def test_explain_says_which_rule_decides() -> None:
    assert transcript("explain", "--as", "web", "--do", "GET /orders/7", "policy.toml") == (
        0,
        [
            "spiffe://example.org/web  GET /orders/7  bound: allow:read",
            "  allow read: from web, to GET /orders/{id}",
            "  allow write: not for want of to and token",
            "next: keep it so: write it as a [[test]] into policy.toml",
        ],
    )


@pytest.mark.parametrize(
    ("words", "verdict", "advice"),
    [
        (
            ["--as", "web", "--do", "POST /orders"],
            "deny:token.mode",
            "next: call with a proof token",
        ),
        (
            ["--as", "db", "--do", "GET /orders/7"],
            "deny:rule.none",
            "next: change policy.toml only",
        ),
        (["--as", "web", "--do", "GET /a/../b"], "deny:path.ambiguous", "next: write the path in"),
        (["--as", "web", "--do", "grpc:a.B/C"], "deny:rule.none", "next: change policy.toml only"),
        (
            ["--as", "spiffe://example.org/web", "--do", "POST /orders", "--token", "proof"],
            "allow:write",
            "next: keep it so",
        ),
    ],
)
def test_explain_says_what_to_do_next(words: list[str], verdict: str, advice: str) -> None:
    code, lines = transcript("explain", *words, "policy.toml")
    assert code == 0
    assert lines[0].endswith(verdict)
    assert lines[-1].startswith(advice)


def test_explain_speaks_json() -> None:
    found = json.loads(
        run("explain", "--json", "--as", "web", "--do", "POST /orders", "policy.toml").output
    )
    assert found["verdict"] == "deny:token.mode"
    assert {"rule": "write", "missing": ["token"]} in found["rules"]


@pytest.mark.parametrize(
    "words",
    [
        ["explain", "--as", "web/*", "--do", "GET /a", "policy.toml"],
        ["explain", "--as", "web", "--do", "orders", "policy.toml"],
        ["test", "nothing.toml"],
    ],
)
def test_a_mistake_is_one_message_and_exit_code_1(words: list[str]) -> None:
    result = run(*words)
    assert result.exit_code == 1
    assert result.stderr.startswith("error: ZT")
    assert "Traceback" not in result.output


@pytest.mark.parametrize("words", [["check"], ["explain", "policy.toml"], ["test"], ["nothing"]])
def test_wrong_usage_is_exit_code_2(words: list[str]) -> None:
    assert run(*words).exit_code == 2


def test_what_the_file_says_reaches_the_terminal_escaped() -> None:
    save("odd.toml", POLICY.replace('"web reads"', '"caf\\u00e9"'))
    assert "caf\\u00e9" in run("test", "odd.toml").output
