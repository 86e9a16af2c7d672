"""TrustDomain and SpiffeId: parsed at construction or not at all.

1. One canonical spelling: what is not canonical is refused, never normalised (SPIFFE-ID sections
   2.1 to 2.4).
2. Comparison is bytewise over the whole identifier; a path means nothing without its trust domain.
3. `scheme` is `spiffe`; `wimse` exists only where a caller builds such an origin itself (test
   vectors).
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Final

from zerotrust.core.errors import BadSpiffeId

MAX_ID_BYTES: Final = 2048
MAX_TRUST_DOMAIN_BYTES: Final = 255
SCHEMES: Final = ("spiffe", "wimse")

_TRUST_DOMAIN: Final = re.compile(r"[a-z0-9._-]{1,255}", re.ASCII)
_SEGMENT: Final = re.compile(r"[A-Za-z0-9._-]+", re.ASCII)


def _shown(text: str) -> str:
    return ascii(text[:80]) + ("..." if len(text) > 80 else "")  # noqa: PLR2004


@dataclass(frozen=True, slots=True, order=True)
class TrustDomain:
    """The origin of identities: scheme and authority. `str()` is `spiffe://example.org`."""

    name: str
    scheme: str = "spiffe"

    def __post_init__(self) -> None:
        if self.scheme not in SCHEMES:
            raise BadSpiffeId(f"the scheme is {_shown(self.scheme)}; use spiffe")
        if not isinstance(self.name, str) or not _TRUST_DOMAIN.fullmatch(self.name):
            raise BadSpiffeId(
                f"{_shown(str(self.name))} is no trust domain: 1 to 255 of a-z 0-9 . _ -"
            )

    @classmethod
    def parse(cls, text: str) -> TrustDomain:
        """Accept `example.org` or `spiffe://example.org`; raise BadSpiffeId otherwise."""
        if not isinstance(text, str):
            raise BadSpiffeId("not a string")
        scheme, mark, rest = text.partition("://")
        return cls(rest, scheme) if mark else cls(text)

    def __str__(self) -> str:
        return f"{self.scheme}://{self.name}"

    def id(self, path: str) -> SpiffeId:
        """Return the identity with this path, given with or without its leading slash."""
        return SpiffeId.parse(f"{self}/{path.removeprefix('/')}")


@dataclass(frozen=True, slots=True)
class SpiffeId:
    """A workload identity with a non-empty path. `str()` is `spiffe://example.org/web`."""

    trust_domain: TrustDomain
    segments: tuple[str, ...]
    _text: str = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        if not self.segments:
            raise BadSpiffeId(
                f"{self.trust_domain} names a trust domain, not a workload: add a path"
            )
        for segment in self.segments:
            if not _SEGMENT.fullmatch(segment) or segment in {".", ".."}:
                raise BadSpiffeId(f"{_shown(segment)} is no path segment: use A-Z a-z 0-9 . _ -")
        text = f"{self.trust_domain}/{'/'.join(self.segments)}"
        if len(text) > MAX_ID_BYTES:
            raise BadSpiffeId(f"longer than {MAX_ID_BYTES} bytes")
        object.__setattr__(self, "_text", text)

    @classmethod
    def parse(cls, text: str) -> SpiffeId:
        """Parse `spiffe://<trust domain>/<segment>...`; raise BadSpiffeId for anything else."""
        if not isinstance(text, str) or len(text) > MAX_ID_BYTES:
            raise BadSpiffeId(f"not a string of at most {MAX_ID_BYTES} bytes")
        scheme, mark, rest = text.partition("://")
        if not mark:
            raise BadSpiffeId(f"{_shown(text)} does not begin with spiffe://")
        name, slash, path = rest.partition("/")
        trust_domain = TrustDomain(name, scheme)
        return cls(trust_domain, tuple(path.split("/")) if slash else ())

    @property
    def path(self) -> str:
        """The path with its leading slash."""
        return "/" + "/".join(self.segments)

    def __str__(self) -> str:
        return self._text

    def __hash__(self) -> int:
        return hash(self._text)  # once per string; equal identities have equal texts
