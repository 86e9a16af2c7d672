from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner

from zerotrust.cli import cli
from zerotrust.cli.explain import page, texts
from zerotrust.core.errors import PUBLIC_TEXT, Category, Reason

DOCS = Path(__file__).parents[2] / "docs" / "errors.md"


@pytest.mark.parametrize("reason", list(Reason), ids=str)
def test_every_reason_says_what_happened_and_how_to_mend_it(reason: Reason) -> None:
    text = texts()[reason.code]
    assert text.keys() <= {"what", "mend", "peer"}
    assert text["what"].endswith(".")
    assert text["mend"].endswith((".", "?"))


def test_the_table_explains_nothing_that_does_not_exist() -> None:
    assert texts().keys() == {reason.code for reason in Reason}


def test_no_two_reasons_share_a_code() -> None:
    assert len({reason.code for reason in Reason}) == len(list(Reason))


def test_the_page_in_docs_is_the_one_the_package_makes() -> None:
    assert DOCS.read_text("utf-8") == page(), "zerotrust explain --page > docs/errors.md"


@pytest.mark.parametrize("reason", list(Reason), ids=str)
def test_every_code_has_one_anchor(reason: Reason) -> None:
    assert page().count(f'<a id="{reason.code.lower()}"></a>') == 1


@pytest.mark.parametrize("word", ["ZT4018", "zt4018", "token.audience"])
def test_a_code_or_a_reason_is_explained(word: str) -> None:
    result = CliRunner().invoke(cli, ["explain", word])
    assert result.exit_code == 0
    assert result.stdout.startswith("ZT4018 token.audience\n")
    assert "next: " in result.stdout


def test_an_explanation_tells_what_the_peer_saw_and_that_is_never_the_reason() -> None:
    result = CliRunner().invoke(cli, ["explain", "ZT4020", "--json"])
    told = json.loads(result.stdout)
    assert PUBLIC_TEXT[Category.UNAUTHENTICATED] in told["peer"]
    assert "token.binding" not in told["peer"]
