from __future__ import annotations

import re
from pathlib import Path

import pytest

from support.walkthrough import walk

ROOT = Path(__file__).parents[2]
EXAMPLES = sorted(page.parent for page in (ROOT / "examples").glob("*/README.md"))


@pytest.mark.parametrize("folder", EXAMPLES, ids=lambda folder: folder.name)
def test_an_example_does_what_its_page_says(folder: Path, tmp_path: Path) -> None:
    assert walk(folder / "README.md", tmp_path, folder) >= 4


def test_the_readme_does_what_it_says(tmp_path: Path) -> None:
    assert walk(ROOT / "README.md", tmp_path) >= 7


def test_the_first_screen_of_the_readme_is_python_that_runs() -> None:
    """Its indented lines are fragments; each must at least compile and name what exists."""
    first = (ROOT / "README.md").read_text().partition("## ")[0]
    lines = re.findall(r"^    (?=from |import |with |me |app |    )(.*)$", first, re.MULTILINE)
    names: dict[str, object] = {}
    exec("\n".join(line for line in lines if line.startswith("from ")), names)  # noqa: S102 - ours
    assert {"WorkloadIdentity", "protect", "Client"} <= names.keys()
    compile("\n".join(lines), "README.md", "exec")


def test_every_example_has_a_page_that_is_run() -> None:
    folders = {
        folder.name
        for folder in (ROOT / "examples").iterdir()
        if folder.is_dir() and any(folder.glob("*.py"))
    }
    assert folders - {"demo"} <= {folder.name for folder in EXAMPLES}
