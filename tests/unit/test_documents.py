from __future__ import annotations

import re
from pathlib import Path

import pytest

from zerotrust.probe.run import ATTACKS

ROOT = Path(__file__).parents[2]
SOURCE = ROOT / "src" / "zerotrust"
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md"), *ROOT.glob("examples/*/*.md")])

each_page = pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))


def _tests() -> set[str]:
    return {
        name
        for file in (ROOT / "tests").rglob("test_*.py")
        for name in re.findall(r"def (test_\w+)", file.read_text())
    }


def test_every_test_that_the_threat_model_names_exists() -> None:
    named = set(re.findall(r"`(test_\w+)`", (ROOT / "docs/threat-model.md").read_text()))
    assert len(named) > 40
    assert named <= _tests()


def test_every_attack_that_the_threat_model_names_is_in_the_catalogue() -> None:
    named = set(re.findall(r"`(ZT-[A-Z]+-\d+/[^`]+)`", (ROOT / "docs/threat-model.md").read_text()))
    assert len(named) > 3
    assert named <= {attack.key for attack in ATTACKS}


def test_the_walks_of_the_architecture_name_files_that_exist() -> None:
    text = (ROOT / "ARCHITECTURE.md").read_text()
    walks = text[text.index("## Direction of imports") :]
    named = {path for path in re.findall(r"`([a-z0-9_/]+\.py)`", walks) if "/" in path}
    assert len(named) > 25
    assert [path for path in sorted(named) if not (SOURCE / path).is_file()] == []


def test_the_layout_of_the_architecture_names_every_module_of_core_and_workload() -> None:
    text = (ROOT / "ARCHITECTURE.md").read_text()
    layout = text[text.index("```") : text.index("## Direction of imports")]
    named = set(re.findall(r"([a-z0-9_]+\.py)", layout))
    rooms = {
        file.name
        for room in ("core", "core/spiffe", "core/tokens", "core/policy", "workload", "asgi", "ca")
        for file in (SOURCE / room).glob("*.py")
        if file.name != "__init__.py"
    }
    assert sorted(rooms - named) == []
    files = {file.name for file in SOURCE.rglob("*.py")}
    assert sorted(named - files) == []


@each_page
def test_a_link_leads_somewhere(page: Path) -> None:
    for target, fragment in re.findall(r"\]\((?!https?:)([^)#]*)(#[^)]*)?\)", page.read_text()):
        there = page.parent / target if target else page
        assert there.exists(), target
        if fragment and there.suffix == ".md":
            assert f'id="{fragment[1:]}"' in there.read_text(), fragment


@each_page
def test_a_page_shouts_nothing_and_names_no_machine(page: Path) -> None:
    text = page.read_text()
    assert not re.search(r"/root/|/tmp/|/work/|TODO|FIXME", text)
