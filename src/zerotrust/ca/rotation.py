"""Making a CA, and replacing its keys one generation at a time.

    issuer     rotate_issuer: new issuing key and the next WIT key in force; needs the root key
    root       prepare_root: the new root is published beside the old, vouched for by both
               activate_root: the issuing CA moves under the new root
               drop_root: the old root is published no longer

1. Every step holds the CA's lock: stop the CA, take the step, start it.
2. Who trusts the old generation is told of the new one by the old: anchors change only by a
   statement signed with a
   root key that is trusted already.
3. A WIT key is published one rotation before it signs, so verifiers know it when they meet it.
"""

from __future__ import annotations

import os
import secrets
from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Final

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec

from zerotrust.ca.authority.entries import MAX_TTL
from zerotrust.ca.authority.profiles import (
    ISSUER_LIFETIME,
    SERIAL_BYTES,
    issuer_profile,
    root_profile,
)
from zerotrust.ca.signers.file import LEAST, Cost, open_key, require_passphrase, seal_key
from zerotrust.ca.state import STATE_FILE, STORE_FILE, State, WitKey, require_private
from zerotrust.ca.stores.sqlite import hold
from zerotrust.core.anchors import sign_anchors
from zerotrust.core.errors import ConfigurationError, Reason
from zerotrust.core.jose import PublicJwk, SigningKey

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from cryptography import x509

    from zerotrust.core.spiffe.ids import TrustDomain

MIN_ISSUER_LIFETIME: Final = 3600.0
MAX_ISSUER_LIFETIME: Final = 366 * 86400.0


def init_ca(
    directory: Path,
    trust_domain: TrustDomain,
    *,
    root_passphrase: bytes,
    passphrase: bytes,
    now: float,
    dev: bool = False,
    issuer_lifetime: float = ISSUER_LIFETIME,
) -> State:
    """Make a CA in a new or empty folder; raise ConfigurationError.

    Dev keys are sealed at the least cost.
    """
    if not MIN_ISSUER_LIFETIME <= issuer_lifetime <= MAX_ISSUER_LIFETIME:
        raise ConfigurationError("the issuing CA lives one hour to 366 days")
    for given in (root_passphrase, passphrase):
        require_passphrase(given)
    _own_folder(directory)
    with locked(directory):
        if (directory / STATE_FILE).exists():  # since a moment ago
            raise ConfigurationError(f"{directory} holds a CA already", Reason.FILE_ACCESS)
        root_key, issuer_key = _new_key(), _new_key()
        wit_keys = [_new_key(), _new_key()]
        root = _sign_root(root_key, trust_domain, dev=dev, now=now)
        seal = _Sealer(directory, trust_domain, dev=dev)
        state = State(
            trust_domain,
            dev,
            int(now),
            (root,),
            seal("root", root_key, root_passphrase),
            _sign_issuer(issuer_key, root_key, root, trust_domain, dev, now, issuer_lifetime),
            seal("issuer", issuer_key, passphrase),
            issuer_lifetime,
            seal("wit", wit_keys[0], passphrase),
            seal("wit", wit_keys[1], passphrase),
            tuple(WitKey(_wit(key)) for key in wit_keys),
            (_state_anchors(root_key, trust_domain, int(now), (root,)),),
        )
        state.save(directory)
    return state


def rotate_issuer(
    directory: Path,
    *,
    root_passphrase: bytes,
    passphrase: bytes,
    now: float,
    lifetime: float | None = None,
) -> State:
    """Put a new issuing key and the next WIT key in force."""
    with locked(directory):
        state = State.load(directory).pruned(now)
        seal = _Sealer(directory, state.trust_domain, dev=state.dev)
        root_key = seal.open("root", state.signing_root, root_passphrase)
        seal.open("issuer", state.issuer_key, passphrase)  # one passphrase for what `ca run` opens
        key, wit_key = _new_key(), _new_key()
        lifetime = state.issuer_lifetime if lifetime is None else lifetime
        root = _certificate_of(state, state.signing_root)
        keys = tuple(
            replace(k, until=now + MAX_TTL) if k.key.thumbprint == state.wit_key else k
            for k in state.wit_keys
        )
        state = replace(
            state,
            sequence=state.next_sequence(now),
            issuer=_sign_issuer(key, root_key, root, state.trust_domain, state.dev, now, lifetime),
            issuer_key=seal("issuer", key, passphrase),
            issuer_lifetime=lifetime,
            wit_key=state.next_wit_key,
            next_wit_key=seal("wit", wit_key, passphrase),
            wit_keys=(*keys, WitKey(_wit(wit_key))),
        )
        state.save(directory)
    return state


def prepare_root(
    directory: Path, *, root_passphrase: bytes, new_passphrase: bytes, now: float
) -> State:
    """Publish a second root, vouched for by the first and by itself."""
    with locked(directory):
        state = State.load(directory)
        if len(state.roots) > 1:
            raise ConfigurationError("a second root is published already: activate it, or drop one")
        seal = _Sealer(directory, state.trust_domain, dev=state.dev)
        old_key, key = seal.open("root", state.signing_root, root_passphrase), _new_key()
        root = _sign_root(key, state.trust_domain, dev=state.dev, now=now)
        seal("root", key, new_passphrase)
        roots, sequence = (*state.roots, root), state.next_sequence(now)
        statements = tuple(
            _state_anchors(signer, state.trust_domain, sequence, roots) for signer in (old_key, key)
        )
        state = replace(state, roots=roots, sequence=sequence, statements=statements)
        state.save(directory)
    return state


def activate_root(
    directory: Path, *, new_passphrase: bytes, passphrase: bytes, now: float
) -> State:
    """Certify the issuing key under the new root. Verifiers must have seen it published before."""
    with locked(directory):
        state = State.load(directory)
        new = [_key_id(root) for root in state.roots if _key_id(root) != state.signing_root]
        if not new:
            raise ConfigurationError("no second root is published: prepare one first")
        seal = _Sealer(directory, state.trust_domain, dev=state.dev)
        root_key = seal.open("root", new[0], new_passphrase)
        key = seal.open("issuer", state.issuer_key, passphrase)
        issuer = _sign_issuer(
            key,
            root_key,
            _certificate_of(state, new[0]),
            state.trust_domain,
            state.dev,
            now,
            state.issuer_lifetime,
        )
        state = replace(state, issuer=issuer, signing_root=new[0])
        state.save(directory)
    return state


def drop_root(directory: Path, *, root_passphrase: bytes, now: float) -> State:
    """Publish the active root alone. What still chains to the other is trusted no longer."""
    with locked(directory):
        state = State.load(directory)
        if len(state.roots) == 1:
            raise ConfigurationError("there is one root only")
        seal = _Sealer(directory, state.trust_domain, dev=state.dev)
        key = seal.open("root", state.signing_root, root_passphrase)
        roots, sequence = (_certificate_of(state, state.signing_root),), state.next_sequence(now)
        statement = _state_anchors(key, state.trust_domain, sequence, roots)
        state = replace(state, roots=roots, sequence=sequence, statements=(statement,))
        state.save(directory)
    return state


@contextmanager
def locked(directory: Path) -> Iterator[None]:
    """Hold the CA's lock; raise ConfigurationError(STORE) while the CA runs."""
    require_private(directory)
    descriptor = hold(directory / f"{STORE_FILE}.lock")
    try:
        yield
    finally:
        os.close(descriptor)


def _own_folder(directory: Path) -> None:
    """Make the folder, or see that it is ours, closed to others, and holds nothing but a CA."""
    try:
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        names = {path.name for path in directory.iterdir()}
    except OSError as exc:
        detail = f"{directory} cannot be made: {exc.strerror}"
        raise ConfigurationError(detail, Reason.FILE_ACCESS) from exc
    require_private(directory)
    if STATE_FILE in names:
        raise ConfigurationError(f"{directory} holds a CA already", Reason.FILE_ACCESS)
    if strangers := sorted(name for name in names if not _is_ours(name)):
        raise ConfigurationError(
            f"{directory} holds other files ({strangers[0]!a}): name a new or an empty folder",
            Reason.FILE_ACCESS,
        )


def _is_ours(name: str) -> bool:
    """Whether it is a CA's, or what an init that was cut off left."""
    plain = name.removeprefix(".")
    return plain.startswith((STATE_FILE, f"{STORE_FILE}.lock")) or ".sealed" in plain


def open_wit_key(directory: Path, state: State, passphrase: bytes) -> SigningKey:
    """Return the WIT key in force."""
    seal = _Sealer(directory, state.trust_domain, dev=state.dev)
    return SigningKey.from_private(seal.open("wit", state.wit_key, passphrase), "ES256")


def open_issuer_key(directory: Path, state: State, passphrase: bytes) -> ec.EllipticCurvePrivateKey:
    """Return the issuing key in force."""
    seal = _Sealer(directory, state.trust_domain, dev=state.dev)
    return seal.open("issuer", state.issuer_key, passphrase)


class _Sealer:
    """Seals and opens the keys of one folder."""

    def __init__(self, directory: Path, trust_domain: TrustDomain, *, dev: bool) -> None:
        self._directory, self._trust_domain = directory, trust_domain
        self._cost = LEAST if dev else Cost()

    def __call__(self, purpose: str, key: ec.EllipticCurvePrivateKey, passphrase: bytes) -> str:
        return seal_key(
            self._path(purpose, _thumbprint(key.public_key())),
            key,
            passphrase,
            purpose=purpose,
            trust_domain=self._trust_domain,
            cost=self._cost,
        )

    def open(self, purpose: str, key_id: str, passphrase: bytes) -> ec.EllipticCurvePrivateKey:
        key = open_key(
            self._path(purpose, key_id),
            passphrase,
            purpose=purpose,
            trust_domain=self._trust_domain,
        )
        if _thumbprint(key.public_key()) != key_id:
            raise ConfigurationError(f"the {purpose} key is another", Reason.SEALED_FILE)
        return key

    def _path(self, purpose: str, key_id: str) -> Path:
        return self._directory / f"{purpose}-{key_id}.sealed"


def _new_key() -> ec.EllipticCurvePrivateKey:
    return ec.generate_private_key(ec.SECP256R1())


def _thumbprint(key: ec.EllipticCurvePublicKey) -> str:
    return PublicJwk.from_key(key).thumbprint


def _wit(key: ec.EllipticCurvePrivateKey) -> PublicJwk:
    return PublicJwk.from_key(key.public_key(), "ES256")


def _key_id(root: x509.Certificate) -> str:
    key = root.public_key()
    if not isinstance(key, ec.EllipticCurvePublicKey):
        raise ConfigurationError("a root's key is P-256", Reason.SEALED_FILE)
    return _thumbprint(key)


def _certificate_of(state: State, key_id: str) -> x509.Certificate:
    return next(root for root in state.roots if _key_id(root) == key_id)


def _sign_root(
    key: ec.EllipticCurvePrivateKey, trust_domain: TrustDomain, *, dev: bool, now: float
) -> x509.Certificate:
    profile = root_profile(
        key.public_key(),
        trust_domain=trust_domain,
        dev=dev,
        now=now,
        random=secrets.token_bytes(SERIAL_BYTES),
    )
    return profile.sign(key, hashes.SHA256())


def _sign_issuer(
    key: ec.EllipticCurvePrivateKey,
    root_key: ec.EllipticCurvePrivateKey,
    root: x509.Certificate,
    trust_domain: TrustDomain,
    dev: bool,  # noqa: FBT001 - private
    now: float,
    lifetime: float,
) -> x509.Certificate:
    profile = issuer_profile(
        key.public_key(),
        root=root,
        trust_domain=trust_domain,
        dev=dev,
        now=now,
        lifetime=lifetime,
        random=secrets.token_bytes(SERIAL_BYTES),
    )
    return profile.sign(root_key, hashes.SHA256())


def _state_anchors(
    key: ec.EllipticCurvePrivateKey,
    trust_domain: TrustDomain,
    sequence: int,
    roots: tuple[x509.Certificate, ...],
) -> str:
    signer = SigningKey.from_private(key, "ES256")
    return sign_anchors(signer, trust_domain=trust_domain, sequence=sequence, anchors=roots)
