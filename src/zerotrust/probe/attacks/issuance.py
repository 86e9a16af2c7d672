"""Attacks on the CA: what a workload with its own token, a stolen key or nothing may try."""

from __future__ import annotations

import secrets
import threading
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Final, TypeAlias

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding

from zerotrust.core.enrolment import (
    BUNDLE_PATH,
    ENROL_PATH,
    RENEW_PATH,
    EnrolRequest,
    Evidence,
    Issued,
    JoinToken,
    RenewRequest,
    parse_address,
    prove_wit_key,
)
from zerotrust.core.jose import SigningKey
from zerotrust.core.spiffe.ids import SpiffeId
from zerotrust.core.spiffe.x509_svid import X509Svid
from zerotrust.probe.catalogue import Material
from zerotrust.probe.deliver import Answer, Delivery, Request, deliver
from zerotrust.probe.forge import common_name

Address: TypeAlias = tuple[str, int]


@dataclass(frozen=True)
class Issuer:
    """The CA under attack. `mint` returns a fresh join token for the attacker's own workload."""

    bootstrap: Address
    id: SpiffeId
    mint: Callable[[], JoinToken] = field(repr=False)


@dataclass(frozen=True)
class IssuanceAttack:
    """One attack on the CA; `run` returns its answer, which must have one of these statuses."""

    id: str
    name: str
    tried: str
    run: Callable[[Issuer, Material], Answer] = field(repr=False)
    statuses: frozenset[int]

    @property
    def key(self) -> str:
        """The id and variant, unique in the catalogue."""
        return f"{self.id}/{self.name}"


@dataclass(frozen=True)
class Enrolled:
    """An identity the CA really issued, and all its keys."""

    svid: X509Svid
    wit: str
    wit_key: SigningKey
    renew: Address


def enrol(issuer: Issuer, request: EnrolRequest) -> Answer:
    """Send one enrolment."""
    return _post(issuer.bootstrap, ENROL_PATH, request.dump())


def fetch_bundle(bootstrap: Address) -> bytes:
    """Return what the CA publishes to anybody."""
    return _post(bootstrap, BUNDLE_PATH, b"", method="GET").body


def honest_request(issuer: Issuer, evidence: Evidence) -> EnrolRequest:
    """Return an enrolment that the CA must accept while the evidence holds."""
    return EnrolRequest(evidence, _keys(issuer.id, evidence)[0])


def join(issuer: Issuer) -> Enrolled:
    """Enrol honestly with a fresh token."""
    evidence = issuer.mint().evidence
    keys, private, wit_key = _keys(issuer.id, evidence)
    answer = enrol(issuer, EnrolRequest(evidence, keys))
    if answer.status != 200:  # noqa: PLR2004 - success
        raise RuntimeError(f"the honest enrolment was answered {answer.status}")
    issued = Issued.parse(answer.body)
    chain = tuple(x509.load_der_x509_certificate(der) for der in issued.chain)
    identity = SpiffeId.parse(
        chain[0]
        .extensions.get_extension_for_class(x509.SubjectAlternativeName)
        .value.get_values_for_type(x509.UniformResourceIdentifier)[0]
    )
    svid = X509Svid(identity, chain, private)
    return Enrolled(svid, issued.wit, wit_key, parse_address(issued.renew))


def renew(issuer: Issuer, holder: Enrolled, m: Material, *, tokens: bool = True) -> Answer:
    """Ask for new keys over the holder's own certificate."""
    keys, _, _ = _keys(issuer.id, None)
    wpt = m.authority.wpt(
        holder.wit, holder.wit_key, aud=str(issuer.id), x5t=holder.svid.thumbprint, now=m.now
    )
    fields = (
        (
            (b"Workload-Identity-Token", holder.wit.encode()),
            (b"Authorization", b"WPT " + wpt.encode()),
        )
        if tokens
        else ()
    )
    return _post(holder.renew, RENEW_PATH, keys.dump(), svid=holder.svid, extra=fields)


def _keys(
    ca: SpiffeId,
    evidence: Evidence | None,
    *,
    subject: x509.Name | None = None,
    san: str | None = None,
) -> tuple[RenewRequest, ec.EllipticCurvePrivateKey, SigningKey]:
    private = ec.generate_private_key(ec.SECP256R1())
    builder = x509.CertificateSigningRequestBuilder().subject_name(subject or x509.Name([]))
    if san is not None:
        names = x509.SubjectAlternativeName([x509.UniformResourceIdentifier(san)])
        builder = builder.add_extension(names, critical=False)
    csr = builder.sign(private, hashes.SHA256()).public_bytes(Encoding.DER)
    wit_key = SigningKey.generate()
    proof = prove_wit_key(wit_key, csr=csr, ca=ca, evidence=evidence)
    return RenewRequest(csr, wit_key.public.as_dict(), proof), private, wit_key


def _post(
    address: Address,
    path: str,
    body: bytes,
    *,
    svid: X509Svid | None = None,
    extra: tuple[tuple[bytes, bytes], ...] = (),
    method: str = "POST",
) -> Answer:
    headers = (
        (b"Host", f"{address[0]}:{address[1]}".encode()),
        (b"Content-Type", b"application/json"),
        (b"Content-Length", str(len(body)).encode()),
        (b"Connection", b"close"),
        *extra,
    )
    return deliver(address, Delivery(Request(method, path.encode(), headers, body), svid))


def _anonymous(issuer: Issuer, _m: Material) -> Answer:
    secret = issuer.mint().evidence.value
    guess = secrets.token_urlsafe(len(secret))[: len(secret)]
    return enrol(issuer, honest_request(issuer, Evidence("join_token", guess)))


def _no_evidence(issuer: Issuer, _m: Material) -> Answer:
    return enrol(issuer, honest_request(issuer, Evidence("none")))


def _greedy(issuer: Issuer, m: Material) -> Answer:
    evidence = issuer.mint().evidence
    keys, _, _ = _keys(issuer.id, evidence, san=str(m.target))
    return enrol(issuer, EnrolRequest(evidence, keys))


def _named(issuer: Issuer, _m: Material) -> Answer:
    evidence = issuer.mint().evidence
    keys, _, _ = _keys(issuer.id, evidence, subject=common_name("admin"))
    return enrol(issuer, EnrolRequest(evidence, keys))


def _broken_csr(issuer: Issuer, _m: Material) -> Answer:
    evidence = issuer.mint().evidence
    keys, _, wit_key = _keys(issuer.id, evidence)
    csr = keys.csr[:-1] + bytes([keys.csr[-1] ^ 1])
    proof = prove_wit_key(wit_key, csr=csr, ca=issuer.id, evidence=evidence)
    return enrol(issuer, EnrolRequest(evidence, replace(keys, csr=csr, wit_proof=proof)))


def _borrowed_wit_key(issuer: Issuer, _m: Material) -> Answer:
    """Ask for a WIT over a public key whose private half somebody else holds."""
    evidence = issuer.mint().evidence
    keys, _, _ = _keys(issuer.id, evidence)
    other = SigningKey.generate().public.as_dict()
    return enrol(issuer, EnrolRequest(evidence, replace(keys, wit_key=other)))


def _huge(issuer: Issuer, _m: Material) -> Answer:
    evidence = issuer.mint().evidence
    keys, _, _ = _keys(issuer.id, evidence)
    return enrol(issuer, EnrolRequest(evidence, replace(keys, csr=keys.csr + bytes(10 << 20))))


def _reused(issuer: Issuer, _m: Material) -> Answer:
    evidence = issuer.mint().evidence
    first = enrol(issuer, honest_request(issuer, evidence))
    if first.status != 200:  # noqa: PLR2004 - success
        return Answer(200, detail="the first use was refused")
    return enrol(issuer, honest_request(issuer, evidence))


def _parallel(issuer: Issuer, _m: Material) -> Answer:
    """Use one token several times at once: the worst answer counts, and one use must succeed."""
    evidence = issuer.mint().evidence
    requests = [honest_request(issuer, evidence) for _ in range(4)]
    answers: list[Answer] = []
    threads = [
        threading.Thread(target=lambda r=request: answers.append(enrol(issuer, r)))
        for request in requests
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    served = [answer for answer in answers if answer.status == 200]  # noqa: PLR2004 - success
    if len(served) != 1:
        return Answer(200, detail=f"{len(served)} of {len(answers)} uses were served")
    return next(answer for answer in answers if answer is not served[0])


def _no_token_renewal(issuer: Issuer, m: Material) -> Answer:
    return renew(issuer, join(issuer), m, tokens=False)


def _thief(issuer: Issuer, m: Material) -> Answer:
    holder = join(issuer)
    owner = renew(issuer, holder, m)
    if owner.status != 200:  # noqa: PLR2004 - success
        return Answer(200, detail=f"the owner's renewal was answered {owner.status}")
    return renew(issuer, holder, m)


def _renew_without_mutual_tls(issuer: Issuer, _m: Material) -> Answer:
    holder = join(issuer)
    keys, _, _ = _keys(issuer.id, None)
    return _post(issuer.bootstrap, RENEW_PATH, keys.dump(), svid=holder.svid)


def _admin(issuer: Issuer, _m: Material) -> Answer:
    holder = join(issuer)
    return _post(issuer.bootstrap, "/v1/admin/entries", b"", svid=holder.svid, method="GET")


def _browser(issuer: Issuer, _m: Material) -> Answer:
    return _post(
        issuer.bootstrap,
        BUNDLE_PATH,
        b"",
        method="GET",
        extra=((b"Origin", b"https://evil.example"),),
    )


def _attack(
    ident: str,
    name: str,
    tried: str,
    run: Callable[[Issuer, Material], Answer],
    *statuses: int,
) -> IssuanceAttack:
    return IssuanceAttack(ident, name, tried, run, frozenset(statuses))


ATTACKS: Final = (
    _attack("ZT-CA-001", "guessed", "enrolling with a guessed token", _anonymous, 401, 403),
    _attack("ZT-CA-001", "no-evidence", "enrolling without evidence", _no_evidence, 400, 401, 403),
    _attack("ZT-CA-002", "greedy-san", "a CSR that asks for another ID", _greedy, 400),
    _attack("ZT-CA-002", "subject", "a CSR that names a subject", _named, 400),
    _attack("ZT-CA-002", "ten-megabytes", "a CSR of ten megabytes", _huge, 400, 413),
    _attack("ZT-CA-003", "broken-csr", "a CSR whose signature is broken", _broken_csr, 400),
    _attack("ZT-CA-003", "borrowed-key", "a WIT key we do not hold", _borrowed_wit_key, 400, 401),
    _attack("ZT-CA-004", "reused", "a join token used twice", _reused, 401, 403),
    _attack("ZT-CA-004", "parallel", "a join token used four times at once", _parallel, 401, 403),
    _attack("ZT-CA-005", "no-token", "renewing without a token", _no_token_renewal, 401),
    _attack("ZT-CA-005", "thief", "a stolen key renewing beside its owner", _thief, 403),
    _attack(
        "ZT-CA-005", "bootstrap", "renewing on the bootstrap port", _renew_without_mutual_tls, 404
    ),
    _attack("ZT-CA-001", "admin", "administration on the bootstrap port", _admin, 404),
    _attack("ZT-CA-001", "browser", "a browser that was lured to the CA", _browser, 403),
)
