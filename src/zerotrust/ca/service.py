"""One CA at work: evidence -> entry -> certificate -> record -> answer.

1. The steps stand in `enrol` and `renew`, in the order in which they run.
2. Nothing leaves before its record is on disk: the future of an answer completes after the commit.
3. What may happen once is decided by the store. Who loses there is judged again, by what is then
   on record.
4. Whoever has not proved anything causes reads only.
"""

from __future__ import annotations

import hashlib
import os
import secrets
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final, Self

from zerotrust.ca.answers import done, recorded, refused
from zerotrust.ca.attestors.join_token import REFUSAL, JoinTokenAttestor
from zerotrust.ca.attestors.unix import UnixAttestor
from zerotrust.ca.authority.attestation import Attestor, Connection, entitle
from zerotrust.ca.authority.authority import (
    RANDOM_BYTES,
    Authority,
    Certificate,
    Keys,
    Lineage,
    require_entitled,
    require_rekey,
    same_keys,
)
from zerotrust.ca.authority.csr import CertificationKey, verify_csr
from zerotrust.ca.authority.entries import (
    NewEntry,
    RegistrationEntry,
    register,
    require_sound,
)
from zerotrust.ca.authority.profiles import ends_at
from zerotrust.ca.rotation import init_ca, open_issuer_key, open_wit_key, rotate_issuer
from zerotrust.ca.state import STORE_FILE, State
from zerotrust.ca.stores import (
    AddEntry,
    AddToken,
    CertificateOf,
    ChildOf,
    Conflict,
    DeleteEntry,
    Entries,
    EntryOf,
    Forget,
    FreezeLineage,
    LineageOf,
    RecordIssue,
    Store,
    StoreUnavailable,
    TokenRecord,
)
from zerotrust.ca.stores.sqlite import SqliteStore
from zerotrust.core.enrolment import (
    SECRET_BYTES,
    EnrolRequest,
    Evidence,
    Issued,
    JoinToken,
    RenewRequest,
    ca_id,
    fingerprints,
    verify_wit_key,
)
from zerotrust.core.errors import (
    AttestationFailed,
    ConfigurationError,
    NotEntitled,
    Reason,
    RequestRefused,
)

if TYPE_CHECKING:
    from collections.abc import Callable
    from concurrent.futures import Future

    from zerotrust.core.spiffe.bundle import TrustBundle
    from zerotrust.core.spiffe.x509_svid import VerifiedSvid

__all__ = ["CaSettings", "CertificateAuthority", "init_ca", "open_ca", "rotate_issuer"]

MIN_TOKEN_TTL: Final = 1.0  # seconds
MAX_TOKEN_TTL: Final = 86400.0
TOKEN_TTL: Final = 300.0
OWN_TTL: Final = 3600.0
KEEP_ANSWERS: Final = 3600.0  # after expiry


@dataclass(frozen=True, slots=True)
class CaSettings:
    """What an operator may choose."""

    max_lineage_age: float | None = None  # seconds from attestation; None: as long as the entry
    own_ttl: float = OWN_TTL  # of the CA's own identity
    hosts: tuple[str, ...] = ()  # DNS names of the CA itself


def open_ca(
    directory: str | Path, passphrase: bytes, *, now: float, settings: CaSettings | None = None
) -> CertificateAuthority:
    """Take the lock, ready the records, open the keys; raise ConfigurationError.

    The root key is not needed.
    """
    directory = Path(directory)
    State.load(directory)  # a folder without a CA is left as it is
    store = SqliteStore(directory / STORE_FILE)
    try:
        return _opened(directory, store, passphrase, now, settings or CaSettings())
    except BaseException:
        store.close()
        raise


class CertificateAuthority:
    """The CA of one trust domain. Safe to use from any thread."""

    def __init__(
        self,
        directory: Path,
        state: State,
        authority: Authority,
        store: Store,
        settings: CaSettings,
    ) -> None:
        self._directory, self.settings, self.store = directory, settings, store
        self.trust_domain, self.id = state.trust_domain, ca_id(state.trust_domain)
        self._publish(state)
        self.enrol_address = "localhost:8441"  # as a workload reaches the listeners;
        self.renew_address = "localhost:8442"  # the server writes what it bound
        root = directory / f"root-{state.signing_root}.sealed"
        self.root_at_hand = os.access(root, os.R_OK)  # the service could read the sealed root key
        self._authority = authority
        self._attestors: dict[str, Attestor] = {
            "join_token": JoinTokenAttestor(store),
            "unix": UnixAttestor(),
        }

    @property
    def ends_at(self) -> float:
        """When the issuing CA ends, seconds since the epoch."""
        return ends_at(self.state.issuer)

    def create_entry(self, new: NewEntry, *, now: float) -> RegistrationEntry:
        """Register an identity; raise BadSpiffeId or RequestRefused(ENTRY)."""
        entry = register(
            new,
            trust_domain=self.trust_domain,
            dev=self.state.dev,
            now=now,
            random=secrets.token_bytes(16),
        )
        try:
            self.store.apply(AddEntry(entry)).result()
        except Conflict as exc:
            raise RequestRefused(
                Reason.ENTRY, f"{entry.spiffe_id} is registered, or was a moment ago"
            ) from exc
        return entry

    def entries(self) -> tuple[RegistrationEntry, ...]:
        """Return every entry, by identity."""
        return self.store.read(Entries())

    def delete_entry(self, entry_id: str, *, now: float) -> None:
        """Remove an entry; what it was issued lives on until it expires, unrenewed."""
        try:
            self.store.apply(DeleteEntry(entry_id, now)).result()
        except Conflict as exc:
            raise RequestRefused(Reason.ENTRY, "there is no such entry") from exc

    def create_token(
        self,
        entry_id: str,
        *,
        now: float,
        address: str | None = None,
        ttl: float = TOKEN_TTL,
        csr_key: bytes | None = None,
    ) -> JoinToken:
        """Make a one-time token for one entry, valid `ttl` seconds.

        `address` is `host:port` of the bootstrap listener as the workload reaches it, `csr_key`
        the SHA-256 of the only SPKI the token serves.
        """
        if not MIN_TOKEN_TTL <= ttl <= MAX_TOKEN_TTL:
            raise RequestRefused(
                Reason.ENTRY, f"a token lives {MIN_TOKEN_TTL:.0f} to {MAX_TOKEN_TTL:.0f} seconds"
            )
        secret = secrets.token_bytes(SECRET_BYTES)
        token = JoinToken(
            address or self.enrol_address, self.id, fingerprints(self.state.roots), secret
        )
        digest = hashlib.sha256(token.evidence.value.encode()).digest()
        record = TokenRecord(digest, entry_id, csr_key, now + ttl)
        try:
            self.store.apply(AddToken(record)).result()
        except Conflict as exc:
            raise RequestRefused(Reason.ENTRY, "there is no such entry") from exc
        return token

    def enrol(self, request: EnrolRequest, connection: Connection, *, now: float) -> Future[Issued]:
        """Attest and issue. Refusals are raised.

        The future ends with the answer or StoreUnavailable.
        """
        return self._enrol(request, connection, now, again=True)

    def renew(self, request: RenewRequest, svid: VerifiedSvid, *, now: float) -> Future[Issued]:
        """Rekey the identity that `svid` proves, under the same terms as `enrol`."""
        return self._renew(request, svid, now, again=True)

    def issue_own(self, keys: Keys, *, now: float) -> Certificate:
        """Issue and record the CA's own identity."""
        certificate = self._authority.issue_own(
            keys,
            dns_names=self.settings.hosts,
            ttl=self.settings.own_ttl,
            now=now,
            random=secrets.token_bytes(RANDOM_BYTES),
        )
        self.store.apply(RecordIssue(certificate, None)).result()
        return certificate

    def require_ready(self, now: float) -> None:
        """Raise unless something could be issued now: records readable, issuer valid."""
        self.store.read(CertificateOf(""))
        if self.ends_at <= now:
            raise RequestRefused(Reason.ISSUANCE_CLOCK, "the issuing CA has expired: rotate it")

    def alarms(self, now: float) -> tuple[str, ...]:
        """Return what an operator should know."""
        alarms = []
        if self.ends_at - now < self.state.issuer_lifetime / 4:
            hours = max(0.0, self.ends_at - now) / 3600
            alarms.append(f"the issuing CA ends in {hours:.0f} h: run `zerotrust ca rotate-issuer`")
        if self.root_at_hand:
            alarms.append("the sealed root key lies beside the service: keep it elsewhere")
        return tuple(alarms)

    def forget(self, *, now: float) -> None:
        """Let go of dead tokens and of the answers of expired certificates; their records stay."""
        self.store.apply(Forget(now - KEEP_ANSWERS)).result()

    def prune(self, *, now: float) -> None:
        """Publish no longer the WIT keys whose last token has ended."""
        pruned = self.state.pruned(now)
        if pruned is not self.state:
            pruned.save(self._directory)
            self._publish(pruned)

    def close(self) -> None:
        """Finish what was begun."""
        self.store.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _publish(self, state: State) -> None:
        self.state = state
        self.bundle: TrustBundle = state.bundle()
        self.published = state.published()
        self.published_body = self.published.dump()

    def _enrol(
        self, request: EnrolRequest, connection: Connection, now: float, *, again: bool
    ) -> Future[Issued]:
        # 1. the evidence, before any arithmetic on what a stranger sent
        attestor = self._attestors.get(request.evidence.kind)
        if attestor is None:
            raise AttestationFailed(f"no attestor for {request.evidence.kind}")
        attested = attestor.attest(request.evidence, connection, now)
        # 2. the keys, each with proof that it is held
        keys = self._keys(request.keys, request.evidence)
        if attested.csr_key is not None and attested.csr_key != keys.tls.digest:
            raise AttestationFailed(REFUSAL)
        # 3. a spent token answers its rightful holder again, and nobody else
        if attested.spent_on is not None:
            known = self.store.read(CertificateOf(attested.spent_on))
            if known is None or not same_keys(known, keys) or now >= known.not_after:
                raise AttestationFailed(REFUSAL)
            return done(self._answer(known))
        # 4. what the evidence entitles to
        if attested.entry is not None:
            bound = self.store.read(EntryOf(attested.entry))
            entry = entitle((bound,) if bound else (), attested)
        else:
            entry = entitle(self.entries(), attested)
        # 5. sign, and record it with the token's use before anyone sees it
        lineage = Lineage(secrets.token_hex(16), entry.id, now, attested.selectors)
        certificate = self._issue(entry, keys, lineage.id, None, now)
        change = RecordIssue(certificate, entry.id, lineage, attested.token)
        retry = (lambda: self._enrol(request, connection, now, again=False)) if again else None
        return self._record(change, retry)

    def _renew(
        self, request: RenewRequest, svid: VerifiedSvid, now: float, *, again: bool
    ) -> Future[Issued]:
        # 1. the parent is one of ours
        parent = self.store.read(CertificateOf(f"{svid.serial:x}"))
        lineage = self.store.read(LineageOf(parent.lineage)) if parent else None
        if parent is None or lineage is None or parent.spiffe_id != str(svid.id):
            raise NotEntitled(Reason.NOT_ENTITLED, "the certificate is not one this CA renews")
        # 2. the entry entitles still
        entry = require_entitled(
            self.store.read(EntryOf(lineage.entry)),
            lineage,
            spiffe_id=parent.spiffe_id,
            now=now,
            max_age=self.settings.max_lineage_age,
        )
        # 3. two new keys, each with proof that it is held
        keys = self._keys(request, None)
        require_rekey(parent, keys)
        # 4. one child: the same again for the same keys, theft for others
        child = self.store.read(ChildOf(parent.serial))
        if child is not None:
            if not same_keys(child, keys):
                return self._freeze(lineage, now)
            if now >= child.not_after:  # the same holder, only late: nothing was stolen
                raise NotEntitled(Reason.LINEAGE_TOO_OLD, "attest again: the answer has expired")
            return done(self._answer(child))
        # 5. sign, and record it before anyone sees it
        certificate = self._issue(entry, keys, lineage.id, parent.serial, now)
        retry = (lambda: self._renew(request, svid, now, again=False)) if again else None
        return self._record(RecordIssue(certificate, entry.id), retry)

    def _keys(self, request: RenewRequest, evidence: Evidence | None) -> Keys:
        tls: CertificationKey = verify_csr(request.csr)
        return Keys(tls, verify_wit_key(request, ca=self.id, evidence=evidence, spki=tls.spki))

    def _issue(
        self, entry: RegistrationEntry, keys: Keys, lineage: str, parent: str | None, now: float
    ) -> Certificate:
        random = secrets.token_bytes(RANDOM_BYTES)
        return self._authority.issue(
            entry, keys, lineage=lineage, parent=parent, now=now, random=random
        )

    def _answer(self, certificate: Certificate) -> Issued:
        chain = (certificate.leaf, certificate.issuer)
        return Issued(chain, certificate.wit, self.published, self.renew_address)

    def _record(
        self, change: RecordIssue, retry: Callable[[], Future[Issued]] | None
    ) -> Future[Issued]:
        return recorded(self.store.apply(change), lambda: self._answer(change.certificate), retry)

    def _freeze(self, lineage: Lineage, now: float) -> Future[Issued]:
        theft = NotEntitled(
            Reason.LINEAGE_FROZEN,
            "a renewed certificate was used again with other keys: frozen now",
        )
        return refused(self.store.apply(FreezeLineage(lineage.id, now)), theft)


def _opened(
    directory: Path, store: Store, passphrase: bytes, now: float, settings: CaSettings
) -> CertificateAuthority:
    # 1. read under the lock: a rotation may have ended while we waited for it
    state = State.load(directory)
    if ends_at(state.issuer) <= now:
        raise ConfigurationError("the issuing CA has expired: run `zerotrust ca rotate-issuer`")
    # 2. what no operator could have registered stands there because somebody wrote into the file
    _require_sound_records(store, state)
    authority = Authority(
        state.trust_domain,
        state.issuer,
        open_issuer_key(directory, state, passphrase),
        open_wit_key(directory, state, passphrase),
        dev=state.dev,
    )
    ca = CertificateAuthority(directory, state, authority, store, settings)
    ca.prune(now=now)
    return ca


def _require_sound_records(store: Store, state: State) -> None:
    try:
        for entry in store.read(Entries()):
            where = f"entry {entry.id} ({entry.spiffe_id}) of {STORE_FILE}"
            require_sound(entry, trust_domain=state.trust_domain, dev=state.dev)
    except RequestRefused as exc:
        raise ConfigurationError(f"{where}: {exc.detail}", Reason.STORE) from exc
    except StoreUnavailable as exc:
        raise ConfigurationError(f"{STORE_FILE}: {exc.detail}", Reason.STORE) from exc
