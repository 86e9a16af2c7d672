"""The table of attacks names tests and rows of the catalogue that exist, and forgets no row."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from zerotrust.probe.attacks import clients, issuance
from zerotrust.probe.run import ATTACKS

TESTS = Path(__file__).parents[1]
PAGE = (TESTS.parent / "docs" / "attack-coverage.md").read_text()
ROW = re.compile(r"^\| (.+) \| (.+) \| (.+) \|$", re.MULTILINE)
CATALOGUE = {
    *(attack.key for attack in ATTACKS),
    *(attack.key for attack in clients.ATTACKS),
    *(attack.key for attack in issuance.ATTACKS),
}
LATER = "## Left to what is not built yet"


def rows() -> Iterator[tuple[str, str]]:
    """Each promise and each of its proofs."""
    for promise, proofs, _ in ROW.findall(PAGE[: PAGE.index(LATER)]):
        if proofs == "proof":
            continue
        for proof in proofs.split("<br>"):
            yield promise, proof


def functions(file: Path) -> set[str]:
    return {
        node.name
        for node in ast.walk(ast.parse(file.read_text()))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
    }


def test_there_is_a_table() -> None:
    assert len({promise for promise, _ in rows()}) > 90


@pytest.mark.parametrize("file", sorted({p.split("::")[0] for _, p in rows() if "::" in p}))
def test_every_test_that_the_table_names_exists(file: str) -> None:
    named = {p.split("::")[1].strip("`") for _, p in rows() if p.startswith(f"{file}::")}
    assert named <= functions(TESTS / file.strip("`")), file


def test_every_proof_is_a_test_or_a_row_of_the_catalogue() -> None:
    others = {proof.strip("`") for _, proof in rows() if "::" not in proof}
    assert others <= CATALOGUE
    assert all(re.fullmatch(r"`[^`]+`", proof) for _, proof in rows())


def test_every_row_of_the_catalogue_belongs_to_a_class_that_the_table_names() -> None:
    named = {proof.strip("`").split("/")[0] for _, proof in rows()}
    assert {key.split("/")[0] for key in CATALOGUE} <= named


def test_every_row_of_either_table_is_whole() -> None:
    lines = [line for line in PAGE.splitlines() if line.startswith("|")]
    assert all(line.count("|") in {3, 4} for line in lines)
    later = PAGE[PAGE.index(LATER) :]
    assert len(re.findall(r"^\| .+ \| .+ \|$", later, re.MULTILINE)) > 8
