"""One name, one owner; loaded when named."""

from __future__ import annotations

import importlib
import importlib.metadata
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from zerotrust import plugins
from zerotrust.core.errors import ConfigurationError, MissingExtra, UnknownPlugin

GROUP = "zerotrust.tests"


Install = Callable[[str, str], None]


@pytest.fixture
def install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Install:
    """Install a distribution with the given entry points, as a wheel leaves it on the disk."""
    monkeypatch.syspath_prepend(str(tmp_path))

    def install(name: str, points: str) -> None:
        info = tmp_path / f"{name.replace('-', '_')}-1.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1\n")
        (info / "entry_points.txt").write_text(f"[{GROUP}]\n{points}\n")
        importlib.invalidate_caches()

    return install


def test_a_plugin_is_loaded_by_its_name(install: Install) -> None:
    install("acme-plugin", "json = json:loads")
    assert plugins.load(GROUP, "json")("1") == 1
    assert plugins.names(GROUP) == ("json",)


def test_nothing_is_imported_until_it_is_named(install: Install) -> None:
    install("acme-plugin", "bad = no_such_module:x\njson = json:loads")
    assert plugins.load(GROUP, "json")
    assert "no_such_module" not in sys.modules


def test_an_unknown_name_is_refused_with_the_known_ones(install: Install) -> None:
    install("acme-plugin", "json = json:loads")
    with pytest.raises(UnknownPlugin, match="there is: json"):
        plugins.load(GROUP, "jsn")


def test_a_name_with_two_owners_stops_and_names_both(install: Install) -> None:
    install("acme-plugin", "json = json:loads")
    install("Evil.Plugin", "json = json:dumps")
    with pytest.raises(ConfigurationError, match="acme-plugin and evil-plugin both claim 'json'"):
        plugins.load(GROUP, "json")


def test_the_same_distribution_found_twice_is_one_owner(install: Install) -> None:
    install("acme-plugin", "json = json:loads")
    sys.path.append(sys.path[0])
    try:
        assert plugins.load(GROUP, "json")
    finally:
        sys.path.pop()


def test_a_missing_driver_is_reported_as_the_extra(install: Install) -> None:
    install("acme-plugin", "redis = no_such_driver:store [redis]")
    with pytest.raises(MissingExtra, match=r"zerotrust-kit\[redis\]"):
        plugins.load(GROUP, "redis")


def test_a_plugin_that_points_nowhere_is_unknown(install: Install) -> None:
    install("acme-plugin", "json = json:no_such_thing")
    with pytest.raises(UnknownPlugin, match="json:no_such_thing"):
        plugins.load(GROUP, "json")


def test_built_in_sources_are_registered_as_all_others_are() -> None:
    assert {"files", "ca", "worker"} <= set(plugins.names("zerotrust.sources"))


def test_the_package_belongs_to_one_distribution() -> None:
    assert plugins.package_owner_alarms() == ()


def test_another_owner_of_the_package_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    owners = {"zerotrust": ["zerotrust_kit", "zerotrust"]}
    monkeypatch.setattr(importlib.metadata, "packages_distributions", lambda: owners)
    (alarm,) = plugins.package_owner_alarms()
    assert "'zerotrust'" in alarm
    assert "reinstall zerotrust-kit" in alarm
