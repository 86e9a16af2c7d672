"""Attacks on the proof: an honest call whose WPT is missing, relayed, or has one thing wrong."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from zerotrust.core.errors import Reason
from zerotrust.probe.attacks.mutations import flip, with_signature
from zerotrust.probe.catalogue import Attack, Material, guarded
from zerotrust.probe.deliver import Delivery
from zerotrust.probe.forge import DROP


def _claims(**changes: Any) -> Callable[[Material], Delivery]:
    """Change a claim or header of an otherwise genuine proof."""
    return lambda m: m.call(wpt=m.bound(**changes))


def _text(change: Callable[[str], str]) -> Callable[[Material], Delivery]:
    return lambda m: m.call(wpt=change(m.bound()))


def _authorization(value: Callable[[Material], str]) -> Callable[[Material], Delivery]:
    return lambda m: m.call(
        drop=(b"authorization",), extra=((b"Authorization", value(m).encode("latin-1")),)
    )


ATTACKS: Final[tuple[Attack, ...]] = (
    guarded(
        "ZT-TOK-001",
        "no-tokens",
        "a certificate and no token",
        lambda m: m.call(drop=(b"authorization", b"workload-identity-token")),
        Reason.TOKEN_MISSING,
    ),
    guarded(
        "ZT-TOK-001",
        "no-proof",
        "an identity token without a proof",
        lambda m: m.call(drop=(b"authorization",)),
        Reason.TOKEN_MISSING,
    ),
    guarded(
        "ZT-TOK-001",
        "bearer",
        "the proof presented as a bearer token",
        _authorization(lambda m: f"Bearer {m.bound()}"),
        Reason.TOKEN_SCHEME,
    ),
    guarded(
        "ZT-TOK-001",
        "legacy-field",
        "the proof in the field of an earlier draft",
        lambda m: m.call(
            drop=(b"authorization",), extra=((b"Workload-Proof-Token", m.bound().encode()),)
        ),
        Reason.TOKEN_MISSING,
    ),
    guarded(
        "ZT-TOK-001",
        "in-query",
        "the proof in the query",
        lambda m: m.call(
            drop=(b"authorization",), target=m.path + b"?access_token=" + m.bound().encode()
        ),
        Reason.TOKEN_MISSING,
    ),
    guarded(
        "ZT-TOK-002",
        "proof-flipped",
        "a flipped bit in the proof's signature",
        _text(lambda t: with_signature(t, flip)),
        Reason.TOKEN_SIGNATURE,
    ),
    guarded(
        "ZT-TOK-009", "proof-expired", "an expired proof", _claims(ttl=-1), Reason.TOKEN_EXPIRED
    ),
    guarded(
        "ZT-TOK-011",
        "far-proof",
        "a proof that lives for an hour",
        _claims(ttl=3600),
        Reason.TOKEN_TOO_LONG_LIVED,
    ),
    guarded(
        "ZT-TOK-012",
        "other-audience",
        "a proof made for another service",
        lambda m: _claims(aud=str(m.neighbour.svid.id))(m),
        Reason.TOKEN_AUDIENCE,
    ),
    *(
        guarded(
            "ZT-TOK-013",
            name,
            f"aud with {name}",
            lambda m, form=form: _claims(claims={"aud": form(str(m.target))})(m),  # type: ignore[misc]
            Reason.TOKEN_AUDIENCE,
            Reason.TOKEN_CLAIM,
            Reason.TOKEN_CLAIM_MISSING,
        )
        for name, form in (
            ("a suffix", lambda aud: aud + "/x"),
            ("a prefix only", lambda aud: aud[:-1]),
            ("upper case", lambda aud: aud.upper()),
            ("a trailing slash", lambda aud: aud + "/"),
            ("a list", lambda aud: [aud, "spiffe://evil.example/x"]),
            ("a list of one", lambda aud: [aud]),
            ("null", lambda _aud: None),
        )
    ),
    guarded(
        "ZT-TOK-013",
        "no-aud",
        "a proof for nobody in particular",
        _claims(claims={"aud": DROP}),
        Reason.TOKEN_CLAIM_MISSING,
    ),
    guarded(
        "ZT-TOK-015",
        "typ-dpop",
        "a DPoP proof as proof",
        _claims(header={"typ": "dpop+jwt"}),
        Reason.TOKEN_TYPE,
    ),
    guarded(
        "ZT-TOK-015",
        "wit-as-wpt",
        "the identity token as its own proof",
        lambda m: m.call(wpt=m.wit),
        Reason.TOKEN_ALGORITHM,
        Reason.TOKEN_HEADER,
        Reason.TOKEN_TYPE,
    ),
    guarded(
        "ZT-TOK-016",
        "other-certificate",
        "a proof bound to another certificate",
        lambda m: _claims(x5t=m.neighbour.svid.thumbprint)(m),
        Reason.TOKEN_BINDING,
    ),
    guarded(
        "ZT-TOK-016",
        "other-wit",
        "a proof bound to another identity token",
        lambda m: m.call(wpt=m.bound(wit=m.authority.wit(m.honest.svid.id, m.key, now=m.now))),
        Reason.TOKEN_WIT_BINDING,
    ),
    guarded(
        "ZT-TOK-017",
        "no-x5t",
        "a proof bound to no certificate",
        lambda m: m.call(wpt=m.authority.wpt(m.wit, m.key, aud=str(m.target), now=m.now)),
        Reason.TOKEN_MODE_UNCLEAR,
    ),
    guarded(
        "ZT-TOK-025",
        "neighbour-relayed",
        "a neighbour's tokens over our own connection",
        lambda m: m.call(wit=m.of_neighbour.token, wpt=m.neighbour_bound()),
        Reason.TOKEN_BINDING,
    ),
)
