"""Chains that are one change away from a good one, and the reason each must be refused for.

Every entry runs through `accept_leaf` and `verify_x509_svid`; `openssl` says whether a real
OpenSSL server would have let the chain pass, so that nobody mistakes its silence for a check.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from ipaddress import ip_address, ip_network

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed448, rsa
from cryptography.x509.oid import ExtendedKeyUsageOID

from zerotrust.core.errors import Reason
from zerotrust.core.spiffe.bundle import BundleSet
from zerotrust.core.spiffe.x509_svid import X509Svid
from zerotrust.probe.forge import ForgedAuthority, common_name

SERVER = ExtendedKeyUsageOID.SERVER_AUTH
CLIENT = ExtendedKeyUsageOID.CLIENT_AUTH
ANY = ExtendedKeyUsageOID.ANY_EXTENDED_KEY_USAGE
UNKNOWN = x509.UnrecognizedExtension(x509.ObjectIdentifier("1.3.9999.1"), b"\x05\x00")
OVERSIZE = rsa.RSAPublicNumbers(65537, 2**16383 + 1).public_key()


@dataclass(frozen=True)
class Chain:
    """One chain in both forms: as a peer presents it, and as OpenSSL would hand it on."""

    presented: tuple[bytes, ...]
    verified: tuple[bytes, ...]
    svid: X509Svid


class World:
    """Our own CA, a federated partner's, and a stranger's that bears our CA's names."""

    def __init__(self, now: float) -> None:
        self.now = now
        self.own = ForgedAuthority("example.org", now=now)
        self.partner = ForgedAuthority("partner.test", now=now)
        self.stranger = ForgedAuthority("example.org", now=now)
        self.bundles = BundleSet([self.own.bundle, self.partner.bundle])

    def chain(self, svid: X509Svid, authority: ForgedAuthority | None = None) -> Chain:
        return Chain(svid.chain_der, (authority or self.own).chain_der(svid), svid)

    def good(self) -> Chain:
        return self.chain(self.own.issue("web", dns=["web.test"]))


@dataclass(frozen=True)
class Mutant:
    name: str
    make: Callable[[World], Chain]
    reason: Reason
    openssl: bool = False

    def __str__(self) -> str:
        return self.name


def _leaf(name: str, reason: Reason, *, openssl: bool = False, **knobs: object) -> Mutant:
    def make(world: World) -> Chain:
        return world.chain(world.own.issue("web", **knobs))  # type: ignore[arg-type]

    return Mutant(name, make, reason, openssl)


def _below(name: str, reason: Reason, *, openssl: bool = False, **knobs: object) -> Mutant:
    def make(world: World) -> Chain:
        issuer = world.own.intermediate("changed", **knobs)
        return world.chain(world.own.issue("web", dns=["web.test"], issuer=issuer))

    return Mutant(name, make, reason, openssl)


def _patched(name: str, reason: Reason, old: bytes, new: bytes, **knobs: object) -> Mutant:
    """Change bytes after signing: for what no builder agrees to write."""

    def make(world: World) -> Chain:
        svid = world.own.issue("web", **knobs)  # type: ignore[arg-type]
        der = svid.chain_der[0]
        assert old in der
        der = der.replace(old, new)
        chain = world.chain(svid)
        return Chain((der, *chain.presented[1:]), (der, *chain.verified[1:]), svid)

    return Mutant(name, make, reason)


def _uri(name: str, *uris: str) -> Mutant:
    return _leaf(name, Reason.PEER_NOT_AN_SVID, openssl=True, uris=uris)


def _constrained(
    name: str, *, openssl: bool = False, critical: bool = True, **trees: list[x509.GeneralName]
) -> Mutant:
    constraints = x509.NameConstraints(
        permitted_subtrees=trees.get("permitted"), excluded_subtrees=trees.get("excluded")
    )
    return _below(name, Reason.PEER_CHAIN, openssl=openssl, extra=[(constraints, critical)])


def _of_version_1(world: World) -> Chain:
    """Leave out the version, which says 1 (RFC 5280 section 4.1), and put the lengths right."""
    svid = world.own.issue("web")
    der, field = svid.chain_der[0], b"\xa0\x03\x02\x01\x02"
    assert (der[0:2], der[4:6], der[8:13]) == (b"\x30\x82", b"\x30\x82", field)
    shorter = [(int.from_bytes(der[at : at + 2]) - len(field)).to_bytes(2) for at in (2, 6)]
    der = b"\x30\x82" + shorter[0] + b"\x30\x82" + shorter[1] + der[13:]
    chain = world.chain(svid)
    return Chain((der, *chain.presented[1:]), (der, *chain.verified[1:]), svid)


def _by_a_leaf(world: World) -> Chain:
    return world.chain(world.own.issue("web", issuer=world.own.issue("mallory")))


def _too_deep(world: World) -> Chain:
    upper = world.own.intermediate("upper", path_length=None)
    lower = world.own.intermediate("lower", issuer=upper)
    return world.chain(world.own.issue("web", issuer=lower))


def _by_the_stranger(world: World) -> Chain:
    return world.chain(world.stranger.issue("web"), world.stranger)


def _by_the_partner(world: World) -> Chain:
    return world.chain(world.own.issue("web", issuer=world.partner), world.partner)


def _of_nobody(world: World) -> Chain:
    return world.chain(world.own.issue("spiffe://nobody.test/web"))


def _self_signed(world: World) -> Chain:
    svid = world.own.issue("web", issuer="self", subject=common_name("web"))
    return Chain(svid.chain_der, svid.chain_der, svid)


def _wrong_issuer_name(world: World) -> Chain:
    return world.chain(world.own.issue("web", issuer_name=common_name("somebody else")))


def _early(world: World) -> Chain:
    return world.chain(world.own.issue("web", not_before=world.now + 3600))


def _early_issuer(world: World) -> Chain:
    issuer = world.own.intermediate("changed", not_before=world.now + 3600)
    return world.chain(world.own.issue("web", issuer=issuer))


def _outside_a_network(world: World) -> Chain:
    network = x509.IPAddress(ip_network("10.0.0.0/8"))
    constraints = x509.NameConstraints(permitted_subtrees=[network], excluded_subtrees=None)
    issuer = world.own.intermediate("changed", extra=[(constraints, True)])
    names = [
        x509.UniformResourceIdentifier("spiffe://example.org/web"),
        x509.IPAddress(ip_address("127.0.0.1")),
    ]
    return world.chain(world.own.issue("web", sans=names, issuer=issuer))


NOT_AN_SVID = Reason.PEER_NOT_AN_SVID
DAY = 86400

MUTANTS: tuple[Mutant, ...] = (
    # the identity
    _uri("two URI SANs", "spiffe://example.org/web", "spiffe://example.org/root"),
    _uri("the same URI SAN twice", "spiffe://example.org/web", "spiffe://example.org/web"),
    _uri("a URI SAN of another scheme", "https://example.org/web"),
    _uri("a URI SAN of the wimse scheme", "wimse://example.org/web"),
    _uri("an ID without a path", "spiffe://example.org"),
    _uri("an ID that ends in a slash", "spiffe://example.org/"),
    _uri("an ID with an upper-case domain", "spiffe://Example.org/web"),
    _uri("an ID with an upper-case scheme", "SPIFFE://example.org/web"),
    _uri("an ID with a percent sign", "spiffe://example.org/w%65b"),
    _uri("an ID with a dot segment", "spiffe://example.org/x/../web"),
    _uri("an ID with a port", "spiffe://example.org:443/web"),
    _uri("an ID with user information", "spiffe://web@example.org/web"),
    _uri("an ID with a query", "spiffe://example.org/web?x"),
    _uri("an ID with a fragment", "spiffe://example.org/web#x"),
    _uri("an ID with a NUL", "spiffe://example.org/web\0.evil.test"),
    _uri("an ID with a line feed", "spiffe://example.org/web\n"),
    _leaf("no URI SAN", NOT_AN_SVID, openssl=True, uris=(), dns=["web.test"]),
    _leaf("no SAN", NOT_AN_SVID, openssl=True, sans=(), subject=common_name("web")),
    _leaf("a NUL in a DNS SAN", NOT_AN_SVID, openssl=True, dns=["web.test\0.evil.test"]),
    _leaf("a blank in a DNS SAN", NOT_AN_SVID, openssl=True, dns=["web test"]),
    _leaf("an empty DNS SAN", NOT_AN_SVID, openssl=True, dns=[""]),
    _leaf("empty subject, SAN not critical", NOT_AN_SVID, openssl=True, san_critical=False),
    _patched("a letter beyond ASCII in the ID", NOT_AN_SVID, b"/web", b"/w\xe9b"),
    # what the certificate is for
    _leaf("a CA as a leaf", NOT_AN_SVID, openssl=True, ca=True, key_usage=("digital_signature",)),
    _leaf("no basic constraints", NOT_AN_SVID, openssl=True, ca=None),
    _leaf("no key usage", NOT_AN_SVID, openssl=True, omit=(x509.KeyUsage,)),
    _leaf("key usage not critical", NOT_AN_SVID, openssl=True, key_usage_critical=False),
    _leaf("no digitalSignature", NOT_AN_SVID, key_usage=("key_encipherment",)),
    _leaf(
        "keyCertSign", NOT_AN_SVID, openssl=True, key_usage=("digital_signature", "key_cert_sign")
    ),
    _leaf("cRLSign", NOT_AN_SVID, openssl=True, key_usage=("digital_signature", "crl_sign")),
    _leaf("no extended key usage", NOT_AN_SVID, openssl=True, eku=None),
    _leaf("serverAuth alone", NOT_AN_SVID, eku=(SERVER,)),
    _leaf("clientAuth alone", NOT_AN_SVID, openssl=True, eku=(CLIENT,)),
    _leaf("anyExtendedKeyUsage alone", NOT_AN_SVID, eku=(ANY,)),
    _leaf("an unknown critical extension", NOT_AN_SVID, extra=[(UNKNOWN, True)]),
    _patched("an extension twice", NOT_AN_SVID, b"\x06\x03\x55\x1d\x25", b"\x06\x03\x55\x1d\x11"),
    _patched("a negative serial number", NOT_AN_SVID, b"\x02\x01\x01", b"\x02\x01\xff", serial=1),
    _patched("version 2", NOT_AN_SVID, b"\xa0\x03\x02\x01\x02", b"\xa0\x03\x02\x01\x01"),
    _patched("version 1", NOT_AN_SVID, b"\xa0\x03\x02\x01\x02", b"\xa0\x03\x02\x01\x00"),
    Mutant("version 1 and extensions", _of_version_1, NOT_AN_SVID),
    _patched(
        "a version there is not", NOT_AN_SVID, b"\xa0\x03\x02\x01\x02", b"\xa0\x03\x02\x01\x09"
    ),
    # its key
    _leaf(
        "a P-521 key", Reason.PEER_KEY, openssl=True, key=ec.generate_private_key(ec.SECP521R1())
    ),
    _leaf("a secp256k1 key", Reason.PEER_KEY, key=ec.generate_private_key(ec.SECP256K1())),
    _leaf("an Ed448 key", Reason.PEER_KEY, openssl=True, key=ed448.Ed448PrivateKey.generate()),
    _leaf("an RSA key", Reason.PEER_KEY, openssl=True, key=rsa.generate_private_key(65537, 2048)),
    _leaf("an oversize key", Reason.PEER_KEY, public_key=OVERSIZE),
    # its time
    _leaf("expired in this second", Reason.PEER_EXPIRED, ttl=0),
    _leaf("expired a moment ago", Reason.PEER_EXPIRED, ttl=-5),
    Mutant("an hour early", _early, Reason.PEER_NOT_YET_VALID),
    _leaf("a lifetime of two days", Reason.PEER_TOO_LONG_LIVED, openssl=True, ttl=2 * DAY),
    _leaf("signed over SHA-224", Reason.PEER_CHAIN, openssl=True, hash_algorithm=hashes.SHA224()),
    # what stands above it
    _below("an issuer that is no CA", Reason.PEER_CHAIN, ca=False, key_usage=("key_cert_sign",)),
    _below("an issuer without basic constraints", Reason.PEER_CHAIN, ca=None),
    _below("an issuer without keyCertSign", Reason.PEER_CHAIN, key_usage=("crl_sign",)),
    _below(
        "an issuer whose key usage is not critical",
        Reason.PEER_CHAIN,
        openssl=True,
        key_usage_critical=False,
    ),
    _below("an issuer without key usage", Reason.PEER_CHAIN, openssl=True, omit=(x509.KeyUsage,)),
    _below(
        "an issuer with two URI SANs",
        Reason.PEER_CHAIN,
        openssl=True,
        uris=["spiffe://example.org", "spiffe://x.test"],
    ),
    _below(
        "an issuer whose ID has a path",
        Reason.PEER_CHAIN,
        openssl=True,
        uris=["spiffe://example.org/ca"],
    ),
    _below(
        "an issuer of the wimse scheme",
        Reason.PEER_CHAIN,
        openssl=True,
        uris=["wimse://example.org"],
    ),
    _below("an issuer whose ID is none", Reason.PEER_CHAIN, openssl=True, uris=["example.org"]),
    _below(
        "an issuer for client certificates alone",
        Reason.PEER_CHAIN,
        openssl=True,
        extra=[(x509.ExtendedKeyUsage([CLIENT]), False)],
    ),
    _below(
        "an issuer with an unknown critical extension", Reason.PEER_CHAIN, extra=[(UNKNOWN, True)]
    ),
    _below(
        "an issuer with a P-521 key",
        Reason.PEER_KEY,
        openssl=True,
        key=ec.generate_private_key(ec.SECP521R1()),
    ),
    _below(
        "an RSA issuer in our own domain",
        Reason.PEER_KEY,
        openssl=True,
        key=rsa.generate_private_key(65537, 2048),
    ),
    _below("an issuer that expired", Reason.PEER_EXPIRED, ttl=DAY),
    Mutant("an issuer from the future", _early_issuer, Reason.PEER_NOT_YET_VALID),
    _below(
        "an issuer signed over SHA-224",
        Reason.PEER_CHAIN,
        openssl=True,
        hash_algorithm=hashes.SHA224(),
    ),
    Mutant("signed by a leaf", _by_a_leaf, Reason.PEER_CHAIN),
    Mutant("longer than a path length", _too_deep, Reason.PEER_CHAIN),
    Mutant("an issuer of another name", _wrong_issuer_name, Reason.PEER_CHAIN),
    _constrained(
        "URI outside a permitted domain", permitted=[x509.UniformResourceIdentifier("a.test")]
    ),
    _constrained(
        "URI outside permitted subdomains",
        permitted=[x509.UniformResourceIdentifier(".example.org")],
    ),
    _constrained(
        "URI in an excluded domain", excluded=[x509.UniformResourceIdentifier("example.org")]
    ),
    _constrained("DNS outside a permitted domain", permitted=[x509.DNSName("example.org")]),
    _constrained("DNS outside permitted subdomains", permitted=[x509.DNSName(".web.test")]),
    _constrained("DNS in an excluded domain", excluded=[x509.DNSName("test")]),
    _constrained("all DNS excluded", excluded=[x509.DNSName("")]),
    _constrained("a constraint on e-mail", openssl=True, permitted=[x509.RFC822Name("a@b.test")]),
    _constrained(
        "a constraint of names, not critical", critical=False, excluded=[x509.DNSName("web.test")]
    ),
    Mutant("an address outside a permitted network", _outside_a_network, Reason.PEER_CHAIN),
    # whom it leads to
    Mutant("a CA that bears our CA's names", _by_the_stranger, Reason.PEER_UNTRUSTED),
    Mutant(
        "our ID from a partner's CA", _by_the_partner, Reason.PEER_WRONG_TRUST_DOMAIN, openssl=True
    ),
    Mutant(
        "an unknown domain's ID from our CA",
        _of_nobody,
        Reason.PEER_WRONG_TRUST_DOMAIN,
        openssl=True,
    ),
    Mutant("signed by itself", _self_signed, Reason.PEER_UNTRUSTED),
)
