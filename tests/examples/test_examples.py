from __future__ import annotations

from pathlib import Path

import pytest

from support.walkthrough import walk

ROOT = Path(__file__).parents[2]
EXAMPLES = sorted(page.parent for page in (ROOT / "examples").glob("*/README.md"))


@pytest.mark.parametrize("folder", EXAMPLES, ids=lambda folder: folder.name)
def test_an_example_does_what_its_page_says(folder: Path, tmp_path: Path) -> None:
    assert walk(folder / "README.md", folder, tmp_path) >= 4


def test_every_example_has_a_page_that_is_run() -> None:
    folders = {
        folder.name
        for folder in (ROOT / "examples").iterdir()
        if folder.is_dir() and any(folder.glob("*.py"))
    }
    assert folders - {"demo"} <= {folder.name for folder in EXAMPLES}
