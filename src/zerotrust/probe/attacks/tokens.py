"""Attacks on the identity token: an honest call whose WIT has one thing wrong.

The proof beside it is made anew over the changed token, so that nothing else is wrong.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any, Final

from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from zerotrust.core.errors import Reason
from zerotrust.probe.attacks.mutations import (
    as_der,
    confused,
    flip,
    swapped,
    unsigned,
    with_claims_text,
    with_exp,
    with_second_alg,
    with_signature,
    with_spare_bit,
)
from zerotrust.probe.catalogue import Attack, Material, guarded
from zerotrust.probe.deliver import Delivery
from zerotrust.probe.forge import DROP

_MALFORMED: Final = Reason.TOKEN_MALFORMED


def _claims(**changes: Any) -> Callable[[Material], Delivery]:
    """Change a claim or header of an otherwise genuine WIT."""
    return lambda m: m.call(wit=m.authority.wit(m.honest.svid.id, m.key, now=m.now, **changes))


def _text(change: Callable[[Material, str], str]) -> Callable[[Material], Delivery]:
    """Change the text of the honest WIT."""
    return lambda m: m.call(wit=change(m, m.wit))


def _exp(value: str) -> Callable[[Material], Delivery]:
    return _text(lambda m, t: with_exp(t, m.authority.wit_key, value))


def _unsigned(spelling: str) -> Callable[[Material], Delivery]:
    return _text(lambda _m, t: unsigned(t, spelling))


def _public_pem(m: Material) -> bytes:
    return m.authority.wit_key.public.key.public_bytes(
        Encoding.PEM, PublicFormat.SubjectPublicKeyInfo
    )


def _public_jwk(m: Material) -> bytes:
    return json.dumps(m.authority.wit_key.public.as_dict()).encode()


ATTACKS: Final[tuple[Attack, ...]] = (
    guarded(
        "ZT-TOK-001",
        "no-identity",
        "a proof without an identity token",
        lambda m: m.call(drop=(b"workload-identity-token",)),
        Reason.TOKEN_MISSING,
    ),
    guarded(
        "ZT-TOK-002",
        "flipped",
        "a flipped bit in the signature",
        _text(lambda _m, t: with_signature(t, flip)),
        Reason.TOKEN_SIGNATURE,
    ),
    guarded(
        "ZT-TOK-002", "truncated", "a truncated token", _text(lambda _m, t: t[:-4]), _MALFORMED
    ),
    guarded(
        "ZT-TOK-002",
        "swapped",
        "header and claims swapped",
        _text(lambda _m, t: swapped(t)),
        Reason.TOKEN_ALGORITHM,
        _MALFORMED,
    ),
    guarded(
        "ZT-TOK-002", "extra-dot", "a fourth segment", _text(lambda _m, t: t + "."), _MALFORMED
    ),
    guarded("ZT-TOK-002", "padded", "base64 padding", _text(lambda _m, t: t + "=="), _MALFORMED),
    guarded(
        "ZT-TOK-002",
        "spare-bits",
        "base64 with a spare bit set",
        _text(lambda _m, t: with_spare_bit(t)),
        _MALFORMED,
    ),
    *(
        guarded(
            "ZT-TOK-003",
            f"alg-{spelling}",
            f"alg {spelling!r} and no signature",
            _unsigned(spelling),
            Reason.TOKEN_ALGORITHM,
            _MALFORMED,
        )
        for spelling in ("none", "None", "nOnE", "")
    ),
    guarded(
        "ZT-TOK-004",
        "hmac-pem",
        "HMAC under our public key (PEM)",
        _text(lambda m, t: confused(t, _public_pem(m))),
        Reason.TOKEN_ALGORITHM,
    ),
    guarded(
        "ZT-TOK-004",
        "hmac-jwk",
        "HMAC under our public key (JWK)",
        _text(lambda m, t: confused(t, _public_jwk(m))),
        Reason.TOKEN_ALGORITHM,
    ),
    guarded(
        "ZT-TOK-004",
        "other-alg",
        "the algorithm of another key type",
        _claims(header={"alg": "EdDSA"}),
        Reason.TOKEN_ALGORITHM,
        Reason.TOKEN_SIGNATURE,
    ),
    guarded(
        "ZT-TOK-005",
        "jwk",
        "a key in the header",
        lambda m: _claims(header={"jwk": dict(m.key.public.as_dict())}, signer=m.key)(m),
        Reason.TOKEN_HEADER,
    ),
    *(
        guarded(
            "ZT-TOK-005",
            name,
            f"a {name} header",
            _claims(header={name: value}),
            Reason.TOKEN_HEADER,
        )
        for name, value in (
            ("jku", "https://localhost:1/keys"),
            ("x5u", "file:///etc/hosts"),
            ("x5c", ["MIIB"]),
        )
    ),
    *(
        guarded(
            "ZT-TOK-006", name, f"a kid that is {name}", _claims(header={"kid": value}), *reasons
        )
        for name, value, reasons in (
            ("a path", "../../dev/null", (Reason.TOKEN_UNKNOWN_KEY,)),
            ("sql", "x' UNION SELECT 'k", (Reason.TOKEN_UNKNOWN_KEY,)),
            ("a number", 7, (Reason.TOKEN_HEADER, _MALFORMED)),
            ("long", "k" * 1000, (Reason.TOKEN_HEADER, _MALFORMED, Reason.TOKEN_UNKNOWN_KEY)),
            ("missing", DROP, (Reason.TOKEN_HEADER,)),
        )
    ),
    guarded(
        "ZT-TOK-008",
        "psychic",
        "an ECDSA signature of zeros",
        _text(lambda _m, t: with_signature(t, lambda raw: bytes(len(raw)))),
        Reason.TOKEN_SIGNATURE,
    ),
    guarded(
        "ZT-TOK-008",
        "der",
        "a DER signature",
        _text(lambda _m, t: with_signature(t, as_der)),
        Reason.TOKEN_SIGNATURE,
        _MALFORMED,
    ),
    guarded(
        "ZT-TOK-008",
        "longer",
        "a signature with a byte more",
        _text(lambda _m, t: with_signature(t, lambda raw: raw + b"\0")),
        Reason.TOKEN_SIGNATURE,
        _MALFORMED,
    ),
    guarded(
        "ZT-TOK-009", "expired", "an expired identity token", _claims(ttl=-1), Reason.TOKEN_EXPIRED
    ),
    guarded(
        "ZT-TOK-010",
        "iat-ahead",
        "a token issued in the future",
        lambda m: _claims(claims={"iat": int(m.now) + 600})(m),
        Reason.TOKEN_NOT_YET_VALID,
    ),
    guarded(
        "ZT-TOK-011",
        "no-exp",
        "a token that never ends",
        _claims(exp=DROP),
        Reason.TOKEN_CLAIM_MISSING,
    ),
    guarded(
        "ZT-TOK-011",
        "far-exp",
        "a token that ends in a year",
        _claims(ttl=365 * 86400),
        Reason.TOKEN_TOO_LONG_LIVED,
    ),
    guarded(
        "ZT-TOK-011", "exp-string", "exp as a string", _exp('"9999999999"'), Reason.TOKEN_CLAIM
    ),
    guarded("ZT-TOK-011", "exp-nan", "exp NaN", _exp("NaN"), _MALFORMED, Reason.TOKEN_CLAIM),
    guarded(
        "ZT-TOK-011",
        "exp-float",
        "exp as a fraction",
        _exp("9999999999.5"),
        _MALFORMED,
        Reason.TOKEN_CLAIM,
    ),
    guarded("ZT-TOK-011", "exp-true", "exp true", _exp("true"), Reason.TOKEN_CLAIM),
    guarded("ZT-TOK-011", "exp-huge", "exp 1e400", _exp("1e400"), _MALFORMED, Reason.TOKEN_CLAIM),
    guarded(
        "ZT-TOK-014",
        "other-key",
        "the right kid under another key",
        lambda m: _claims(signer=m.foreign.wit_key)(m),
        Reason.TOKEN_SIGNATURE,
    ),
    guarded(
        "ZT-TOK-014",
        "foreign-origin",
        "our key for another domain's identity",
        _claims(claims={"sub": "spiffe://partner.example/web"}),
        Reason.TOKEN_UNKNOWN_KEY,
        Reason.TOKEN_ORIGIN,
    ),
    guarded(
        "ZT-TOK-015",
        "typ-jwt",
        "a plain JWT as identity token",
        _claims(header={"typ": "JWT"}),
        Reason.TOKEN_TYPE,
    ),
    guarded(
        "ZT-TOK-017",
        "no-cnf",
        "an identity token without a key",
        _claims(cnf=DROP),
        Reason.TOKEN_CLAIM_MISSING,
        Reason.TOKEN_CONFIRMATION,
    ),
    guarded(
        "ZT-TOK-017",
        "symmetric-cnf",
        "a symmetric key in cnf",
        _claims(cnf={"jwk": {"kty": "oct", "k": "AAAA", "alg": "HS256"}}),
        Reason.TOKEN_CONFIRMATION,
    ),
    guarded(
        "ZT-TOK-020",
        "crit",
        "an unknown crit",
        _claims(header={"crit": ["x"], "x": 1}),
        Reason.TOKEN_CRITICAL,
        Reason.TOKEN_HEADER,
    ),
    guarded(
        "ZT-TOK-020",
        "crit-empty",
        "an empty crit",
        _claims(header={"crit": []}),
        _MALFORMED,
        Reason.TOKEN_CRITICAL,
    ),
    guarded(
        "ZT-TOK-020",
        "b64",
        "an unencoded payload",
        _claims(header={"b64": False}),
        Reason.TOKEN_HEADER,
        Reason.TOKEN_CRITICAL,
    ),
    guarded(
        "ZT-TOK-021",
        "duplicate-sub",
        "a second sub, spelled with an escape",
        _text(
            lambda m, t: with_claims_text(
                t,
                m.authority.wit_key,
                lambda body: body.replace("{", '{"s\\u0075b":"spiffe://example.org/admin",', 1),
            )
        ),
        _MALFORMED,
    ),
    guarded(
        "ZT-TOK-021",
        "duplicate-alg",
        "a second alg",
        _text(lambda m, t: with_second_alg(t, m.authority.wit_key)),
        _MALFORMED,
    ),
    guarded(
        "ZT-TOK-022",
        "deep",
        "JSON nested a thousand deep",
        _text(
            lambda m, t: with_claims_text(
                t,
                m.authority.wit_key,
                lambda body: body.replace("{", '{"x":' + "[" * 1000 + "]" * 1000 + ",", 1),
            )
        ),
        _MALFORMED,
        Reason.TOKEN_TOO_LARGE,
    ),
    guarded(
        "ZT-TOK-022",
        "six-kilobytes",
        "a token over the limit",
        _claims(pad="x" * 4000),
        Reason.TOKEN_TOO_LARGE,
    ),
    guarded(
        "ZT-TOK-025",
        "other-subject",
        "a genuine token for another subject",
        lambda m: m.call(wit=m.authority.wit(m.neighbour.svid.id, m.key, now=m.now)),
        Reason.TOKEN_BINDING,
    ),
)
