"""Attacks on the handshake: an honest call over a certificate with one thing wrong."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from cryptography import x509
from cryptography.x509.oid import ExtendedKeyUsageOID

from zerotrust.core.errors import Reason
from zerotrust.core.spiffe.ids import SpiffeId
from zerotrust.core.spiffe.x509_svid import X509Svid
from zerotrust.probe.catalogue import Attack, Layer, Material
from zerotrust.probe.deliver import Delivery
from zerotrust.probe.forge import ForgedAuthority, common_name

_DAY: Final = 86400.0


def _with(
    certificate: Callable[[Material], X509Svid],
) -> Callable[[Material], tuple[Delivery, ...]]:
    return lambda m: (m.call(svid=certificate(m)),)


def _issued(**knobs: Any) -> Callable[[Material], tuple[Delivery, ...]]:
    return _with(lambda m: m.authority.issue(m.honest.svid.id, **knobs))


def _uris(*uris: str) -> Callable[[Material], tuple[Delivery, ...]]:
    return _issued(uris=uris)


def issued_by_twin(m: Material, identity: SpiffeId) -> X509Svid:
    """Issue from a CA of the same name that has its own keys."""
    twin = ForgedAuthority(m.authority.trust_domain, now=m.now, name=m.authority.name)
    return twin.issue(identity)


def _row(
    ident: str,
    name: str,
    tried: str,
    make: Callable[[Material], tuple[Delivery, ...]],
    *reasons: Reason,
) -> Attack:
    return Attack(ident, name, tried, Layer.HANDSHAKE, make, frozenset(reasons))


ATTACKS: Final = (
    _row("ZT-TLS-001", "plain", "plain HTTP to the TLS port", lambda m: (m.call(tls=False),)),
    _row("ZT-TLS-003", "tls-1.2", "TLS 1.2", lambda m: (m.call(tls12=True),)),
    _row(
        "ZT-TLS-008",
        "resumed",
        "a session of an earlier connection resumed",
        lambda m: (m.call(resume=True),),
        Reason.PEER_RESUMED,
    ),
    _row(
        "ZT-MTLS-001",
        "no-certificate",
        "no client certificate",
        lambda m: (m.call(certificate=False),),
        Reason.PEER_NONE,
    ),
    _row(
        "ZT-MTLS-002",
        "self-signed",
        "a self-signed certificate with a perfect SAN",
        _issued(issuer="self"),
        Reason.PEER_UNTRUSTED,
    ),
    _row(
        "ZT-MTLS-003",
        "same-name",
        "a CA that has the name of ours",
        _with(lambda m: issued_by_twin(m, m.honest.svid.id)),
        Reason.PEER_UNTRUSTED,
    ),
    _row(
        "ZT-MTLS-004",
        "expired",
        "an expired certificate",
        lambda m: (
            m.call(svid=m.authority.issue(m.honest.svid.id, not_before=m.now - 600, ttl=300)),
        ),
        Reason.PEER_EXPIRED,
    ),
    _row(
        "ZT-MTLS-005",
        "not-yet-valid",
        "a certificate that is not valid yet",
        lambda m: (m.call(svid=m.authority.issue(m.honest.svid.id, not_before=m.now + 600)),),
        Reason.PEER_NOT_YET_VALID,
    ),
    _row(
        "ZT-MTLS-007",
        "server-only",
        "a certificate for servers only",
        _issued(eku=(ExtendedKeyUsageOID.SERVER_AUTH,)),
        Reason.PEER_NOT_AN_SVID,
        Reason.PEER_UNTRUSTED,
    ),
    _row(
        "ZT-MTLS-007",
        "no-eku",
        "a certificate without extended key usage",
        _issued(eku=None),
        Reason.PEER_NOT_AN_SVID,
    ),
    _row(
        "ZT-MTLS-008",
        "leaf-signs",
        "a certificate signed by a workload",
        _with(lambda m: m.authority.issue(m.honest.svid.id, issuer=m.neighbour.svid)),
        Reason.PEER_CHAIN,
        Reason.PEER_UNTRUSTED,
    ),
    _row(
        "ZT-MTLS-009",
        "ca-as-client",
        "a CA certificate as client",
        _issued(ca=True, key_usage=("digital_signature", "key_cert_sign")),
        Reason.PEER_NOT_AN_SVID,
        Reason.PEER_UNTRUSTED,
    ),
    _row(
        "ZT-MTLS-009",
        "signing-leaf",
        "a leaf that may sign certificates",
        _issued(key_usage=("digital_signature", "key_cert_sign")),
        Reason.PEER_NOT_AN_SVID,
    ),
    _row(
        "ZT-MTLS-009",
        "too-long-lived",
        "a certificate that lives for a week",
        _issued(ttl=7 * _DAY),
        Reason.PEER_TOO_LONG_LIVED,
    ),
    _row(
        "ZT-MTLS-011",
        "two-uris",
        "two URI SANs",
        _with(
            lambda m: m.authority.issue(
                m.honest.svid.id, uris=(str(m.honest.svid.id), str(m.neighbour.svid.id))
            )
        ),
        Reason.PEER_NOT_AN_SVID,
    ),
    _row(
        "ZT-MTLS-011",
        "cn-only",
        "a name in the CN and no SAN",
        _with(
            lambda m: m.authority.issue(
                m.honest.svid.id, sans=(), subject=common_name(str(m.honest.svid.id)[:60])
            )
        ),
        Reason.PEER_NOT_AN_SVID,
    ),
    _row(
        "ZT-MTLS-011",
        "dns-spells-id",
        "a DNS SAN that spells a SPIFFE ID",
        _with(
            lambda m: m.authority.issue(
                m.honest.svid.id, sans=(x509.DNSName(str(m.honest.svid.id)),)
            )
        ),
        Reason.PEER_NOT_AN_SVID,
    ),
    *(
        _row(
            "ZT-MTLS-011",
            name,
            f"a SAN with {tried}",
            _with(lambda m, form=form: m.authority.issue(m.honest.svid.id, uris=(form(m),))),  # type: ignore[misc]
            Reason.PEER_NOT_AN_SVID,
        )
        for name, tried, form in (
            ("userinfo", "user info", lambda m: _id(m, "spiffe://a@{td}{path}")),
            ("port", "a port", lambda m: _id(m, "spiffe://{td}:1{path}")),
            ("query", "a query", lambda m: _id(m, "spiffe://{td}{path}?x")),
            ("encoded", "an encoded slash", lambda m: _id(m, "spiffe://{td}/a%2f..{path}")),
            ("dots", "dot segments", lambda m: _id(m, "spiffe://{td}/a/..{path}")),
            ("upper-case", "an upper-case domain", lambda m: _id(m, "spiffe://{TD}{path}")),
            ("slash", "a trailing slash", lambda m: _id(m, "spiffe://{td}{path}/")),
            ("scheme", "another scheme", lambda m: _id(m, "https://{td}{path}")),
            ("root", "no path", lambda m: _id(m, "spiffe://{td}")),
            ("nul", "a NUL", lambda m: _id(m, "spiffe://{td}{path}\0x")),
        )
    ),
    _row(
        "ZT-MTLS-012",
        "foreign-signs-ours",
        "our ID signed by another domain's root",
        _with(lambda m: m.foreign.issue(str(m.honest.svid.id))),
        Reason.PEER_WRONG_TRUST_DOMAIN,
        Reason.PEER_UNTRUSTED,
    ),
)


def _id(m: Material, template: str) -> str:
    td = m.honest.svid.id.trust_domain.name
    return template.format(td=td, TD=td.upper(), path=m.honest.svid.id.path)
