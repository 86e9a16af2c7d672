"""The one place that reads entry points.

1. A plugin is loaded by its name, when a setting names it, and never otherwise.
2. A name has one owner. Two distributions that claim it stop the process, whichever would have won;
   so nobody slips in under a built-in name.
3. A missing driver is reported as the extra to install.
"""

from __future__ import annotations

import importlib.metadata
from collections.abc import Iterable
from importlib.metadata import EntryPoint
from typing import Any, Final

from zerotrust.core.errors import ConfigurationError, MissingExtra, Reason, UnknownPlugin

DISTRIBUTION: Final = "zerotrust-kit"
PACKAGE: Final = "zerotrust"


def load(group: str, name: str) -> Any:
    """Return what the entry point `name` of `group` is; raise UnknownPlugin or MissingExtra."""
    found = importlib.metadata.entry_points(group=group)
    point = _only(group, name, found)
    try:
        return point.load()
    except ImportError as exc:
        extras = point.extras or [name]
        raise MissingExtra(extras[0]) from exc
    except AttributeError as exc:
        raise UnknownPlugin(
            f"{group} {name!r} points to {point.value}, which is not there"
        ) from exc


def names(group: str) -> tuple[str, ...]:
    """Return the names somebody registered in `group`, sorted."""
    return tuple(sorted({point.name for point in importlib.metadata.entry_points(group=group)}))


def package_owner_alarms() -> tuple[str, ...]:
    """Return one sentence for each other distribution that installs files into our package.

    The bare name `zerotrust` belongs to somebody else on the package index: its files would shadow
    ours, or join them.
    """
    owners = importlib.metadata.packages_distributions().get(PACKAGE, [])
    others = sorted({_canonical(owner) for owner in owners} - {DISTRIBUTION})
    return tuple(
        f"the distribution {other!r} also installs the package {PACKAGE!r}: "
        f"uninstall it, then reinstall {DISTRIBUTION}"
        for other in others
    )


def _only(group: str, name: str, found: Iterable[EntryPoint]) -> EntryPoint:
    found = tuple(found)
    named = {(_owner(point), point.value): point for point in found if point.name == name}
    if len(named) > 1:
        owners = " and ".join(sorted(owner for owner, _ in named))
        raise ConfigurationError(
            f"{owners} both claim {name!r} of {group}: uninstall one", Reason.UNKNOWN_PLUGIN
        )
    if not named:
        known = ", ".join(sorted({point.name for point in found})) or "none"
        raise UnknownPlugin(f"nothing is called {name!r} in {group}; there is: {known}")
    return next(iter(named.values()))


def _owner(point: EntryPoint) -> str:
    return _canonical(point.dist.name) if point.dist else "an unnamed distribution"


def _canonical(name: str) -> str:
    return name.lower().replace("_", "-").replace(".", "-")
