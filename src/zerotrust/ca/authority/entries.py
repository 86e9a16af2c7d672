"""Registration entries: which workload gets which identity, and under which names.

1. The identity stands in the entry; nothing a workload sends can change it.
2. Nothing under `/zerotrust/` can be registered: those names are the CA's own.
3. `<hash>.svid.internal` belongs to the CA: it is added at signing and can be neither stored nor
   asked for.
4. An entry is checked when it is made, when it is read from the store and again before it is
   signed for.
"""

from __future__ import annotations

import base64
import hashlib
import re
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Final

from zerotrust.core.errors import Reason, RequestRefused
from zerotrust.core.spiffe.ids import SpiffeId

if TYPE_CHECKING:
    from zerotrust.core.spiffe.ids import TrustDomain

SVID_SUFFIX: Final = "svid.internal"
RESERVED_SEGMENT: Final = "zerotrust"
MIN_TTL: Final = 60.0  # seconds
MIN_DEV_TTL: Final = 5.0
MAX_TTL: Final = 86400.0
DEFAULT_TTL: Final = 3600.0
MAX_SELECTORS: Final = 16
MAX_DNS_NAMES: Final = 16
MAX_DNS_NAME: Final = 253

_LABEL: Final = re.compile(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?", re.ASCII)
_SELECTOR: Final = re.compile(r"[a-z][a-z0-9_]{0,31}(:[A-Za-z0-9._/@+=-]{1,255}){2}", re.ASCII)


@dataclass(frozen=True, slots=True)
class NewEntry:
    """What an operator asks for. `ttl` and `wit_ttl` are seconds.

    `path` is `/ledger`, or the whole ID: then it has to be of this CA's trust domain.

    Without selectors the entry is reached by a join token only.
    """

    path: str
    selectors: tuple[str, ...] = ()
    dns_names: tuple[str, ...] = ()
    ttl: float = DEFAULT_TTL
    wit_ttl: float | None = None  # None: as long as the certificate


@dataclass(frozen=True, slots=True)
class RegistrationEntry:
    """One workload identity and what entitles to it."""

    id: str  # 32 hex digits
    spiffe_id: SpiffeId
    selectors: tuple[str, ...]
    dns_names: tuple[str, ...]
    ttl: float
    wit_ttl: float | None
    created_at: float


def register(
    new: NewEntry, *, trust_domain: TrustDomain, dev: bool, now: float, random: bytes
) -> RegistrationEntry:
    """Turn a request into an entry (`random`: 16 bytes); raise BadSpiffeId or RequestRefused."""
    entry = RegistrationEntry(
        random.hex(),
        _named(new.path, trust_domain),
        tuple(sorted(set(new.selectors))),
        tuple(sorted(set(new.dns_names))),
        new.ttl,
        new.wit_ttl,
        now,
    )
    require_sound(entry, trust_domain=trust_domain, dev=dev)
    return entry


def require_sound(entry: RegistrationEntry, *, trust_domain: TrustDomain, dev: bool) -> None:
    """Raise RequestRefused(ENTRY) unless every rule on entries holds."""
    if entry.spiffe_id.trust_domain != trust_domain:
        raise _refused(f"{entry.spiffe_id} is of another trust domain: this CA is {trust_domain}'s")
    if entry.spiffe_id.segments[0].lower() == RESERVED_SEGMENT:
        raise _refused(f"/{RESERVED_SEGMENT}/ is the CA's own")
    least = MIN_DEV_TTL if dev else MIN_TTL
    for ttl in (entry.ttl, entry.wit_ttl if entry.wit_ttl is not None else entry.ttl):
        if not least <= ttl <= MAX_TTL:
            raise _refused(f"a lifetime is {least:.0f} to {MAX_TTL:.0f} seconds")
    if len(entry.selectors) > MAX_SELECTORS or len(entry.dns_names) > MAX_DNS_NAMES:
        raise _refused(f"at most {MAX_SELECTORS} selectors and {MAX_DNS_NAMES} DNS names")
    for selector in entry.selectors:
        if not _SELECTOR.fullmatch(selector):
            raise _refused("a selector is kind:key:value, such as unix:uid:1000")
    for name in entry.dns_names:
        require_dns_name(name)


def require_dns_name(name: str) -> None:
    """Raise RequestRefused(ENTRY) unless this is a plain host name outside the CA's suffix."""
    labels = name.split(".")
    if len(name) > MAX_DNS_NAME or not all(_LABEL.fullmatch(label) for label in labels):
        raise _refused(
            "a DNS name is lower-case letters, digits and hyphens: no wildcard, no dot at the end"
        )
    if labels[-1].isdigit():
        raise _refused("an IP address is no DNS name")
    if name == SVID_SUFFIX or name.endswith("." + SVID_SUFFIX):
        raise _refused(f"names under {SVID_SUFFIX} are made by the CA alone")


@lru_cache(maxsize=4096)
def dns_of(spiffe_id: SpiffeId) -> str:
    """Return the DNS name that stands for this ID where only names can be checked.

    66 characters.
    """
    digest = hashlib.sha256(str(spiffe_id).encode()).digest()
    return f"{base64.b32encode(digest).decode().rstrip('=').lower()}.{SVID_SUFFIX}"


def _named(path: str, trust_domain: TrustDomain) -> SpiffeId:
    return SpiffeId.parse(path) if path.startswith("spiffe:") else trust_domain.id(path)


def _refused(detail: str) -> RequestRefused:
    return RequestRefused(Reason.ENTRY, detail)
