"""Every error of the toolkit, in one tree.

ZeroTrustError                    never raised itself
├ ConfigurationError              ours, at start, never per call
│ ├ UnknownPlugin
│ ├ MissingExtra
│ └ UnsafeSetting
├ MalformedError(ValueError)      bytes that are not what they claim to be
│ ├ BadSpiffeId
│ ├ BadBundle
│ └ BadPolicy
├ PeerError                       the other side did not prove who it is
│ ├ CertificateRejected
│ ├ TokenRejected
│ └ CallReplayed
├ RequestRejected                 the request's shape is ambiguous or over a limit
├ AccessDenied                    proven, and not allowed
├ IssuanceError                   the CA says no
│ ├ AttestationFailed
│ ├ NotEntitled
│ └ RequestRefused
├ AuditUnavailable                the call would be allowed, and its audit line cannot be written
└ IdentityUnavailable             retryable: no usable identity or trust right now
  ├ NotYetIssued
  ├ RenewalFailed
  └ Closed

1. The class says whose fault it is, `reason` says which check failed, `category` says what the
   peer is told.
2. `detail` is for our log. The peer sees `public`, constant per category, and an id; nothing else.
3. A detail never holds a token, a key or a passphrase.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Final, Self


class Category(StrEnum):
    """What the peer is told; each adapter maps it to the wire in one table."""

    CONFIGURATION = "configuration"
    MALFORMED = "malformed"
    UNAUTHENTICATED = "unauthenticated"
    PROOF_STALE = "proof-stale"
    MODE_INSUFFICIENT = "mode-insufficient"
    FORBIDDEN = "forbidden"
    MISDIRECTED = "misdirected"
    UNAVAILABLE = "unavailable"


PUBLIC_TEXT: Final[dict[Category, str]] = {
    Category.CONFIGURATION: "The service is not configured.",
    Category.MALFORMED: "The request is malformed or ambiguous.",
    Category.UNAUTHENTICATED: "The caller did not prove its identity.",
    Category.PROOF_STALE: "The proof is no longer fresh; mint a new one.",
    Category.MODE_INSUFFICIENT: "This route asks for a stronger proof.",
    Category.FORBIDDEN: "The caller may not do this.",
    Category.MISDIRECTED: "This service does not answer for that authority.",
    Category.UNAVAILABLE: "The service cannot decide this call right now.",
}


class Reason(StrEnum):
    """Which check failed. The value is stable and goes to logs; `code` names its help page."""

    code: str
    category: Category

    def __new__(cls, value: str, code: str, category: Category) -> Self:
        """Make a member that is its own dotted name and knows its code and category."""
        member = str.__new__(cls, value)
        member._value_ = value
        member.code = code
        member.category = category
        return member

    # 1xxx: configuration and input of our own side
    SETTING = "config.setting", "ZT1001", Category.CONFIGURATION
    UNKNOWN_PLUGIN = "config.plugin", "ZT1002", Category.CONFIGURATION
    MISSING_EXTRA = "config.extra", "ZT1003", Category.CONFIGURATION
    UNSAFE = "config.unsafe", "ZT1004", Category.CONFIGURATION
    FILE_ACCESS = "config.file", "ZT1005", Category.CONFIGURATION
    ADDRESS_IN_USE = "config.address", "ZT1006", Category.CONFIGURATION
    PASSPHRASE = "config.passphrase", "ZT1007", Category.CONFIGURATION
    SEALED_FILE = "config.sealed", "ZT1008", Category.CONFIGURATION
    STORE = "config.store", "ZT1009", Category.CONFIGURATION
    BAD_SPIFFE_ID = "malformed.spiffe_id", "ZT1101", Category.MALFORMED
    BAD_BUNDLE = "malformed.bundle", "ZT1102", Category.MALFORMED
    BAD_POLICY = "malformed.policy", "ZT1103", Category.MALFORMED
    BAD_JSON = "malformed.json", "ZT1104", Category.MALFORMED
    BAD_KEY = "malformed.key", "ZT1105", Category.MALFORMED
    BAD_CERTIFICATE = "malformed.certificate", "ZT1106", Category.MALFORMED
    BAD_MESSAGE = "malformed.message", "ZT1107", Category.MALFORMED
    # 2xxx: the shape of a request
    PATH_AMBIGUOUS = "path.ambiguous", "ZT2001", Category.MALFORMED
    HOST_INVALID = "host.invalid", "ZT2002", Category.MALFORMED
    HOST_UNKNOWN = "host.unknown", "ZT2003", Category.MISDIRECTED
    HEADER_DUPLICATE = "header.duplicate", "ZT2004", Category.MALFORMED
    HEADER_TWIN = "header.twin", "ZT2005", Category.MALFORMED
    HEADER_CONNECTION = "header.connection", "ZT2006", Category.MALFORMED
    REQUEST_TOO_LARGE = "request.too_large", "ZT2007", Category.MALFORMED
    METHOD_INVALID = "method.invalid", "ZT2008", Category.MALFORMED
    SCOPE_UNKNOWN = "scope.unknown", "ZT2009", Category.MALFORMED
    HEADER_INVALID = "header.invalid", "ZT2010", Category.MALFORMED
    REQUEST_UNREADABLE = "request.unreadable", "ZT2011", Category.MALFORMED
    # 3xxx: the peer's certificate
    PEER_NONE = "peer.none", "ZT3001", Category.UNAUTHENTICATED
    PEER_UNTRUSTED = "peer.untrusted", "ZT3002", Category.UNAUTHENTICATED
    PEER_EXPIRED = "peer.expired", "ZT3003", Category.UNAUTHENTICATED
    PEER_NOT_YET_VALID = "peer.not_yet_valid", "ZT3004", Category.UNAUTHENTICATED
    PEER_NOT_AN_SVID = "peer.not_an_svid", "ZT3005", Category.UNAUTHENTICATED
    PEER_WRONG_TRUST_DOMAIN = "peer.wrong_trust_domain", "ZT3006", Category.UNAUTHENTICATED
    PEER_RESUMED = "peer.resumed", "ZT3007", Category.UNAUTHENTICATED
    PEER_KEY = "peer.key", "ZT3008", Category.UNAUTHENTICATED
    PEER_TOO_LONG_LIVED = "peer.too_long_lived", "ZT3009", Category.UNAUTHENTICATED
    PEER_UNEXPECTED = "peer.unexpected", "ZT3010", Category.UNAUTHENTICATED
    PEER_CHAIN = "peer.chain", "ZT3011", Category.UNAUTHENTICATED
    BUNDLE_NONE = "bundle.none", "ZT3012", Category.UNAVAILABLE
    PEER_HANDSHAKE = "peer.handshake", "ZT3013", Category.UNAUTHENTICATED
    # 4xxx: the tokens
    TOKEN_MISSING = "token.missing", "ZT4001", Category.UNAUTHENTICATED
    TOKEN_MALFORMED = "token.malformed", "ZT4002", Category.UNAUTHENTICATED
    TOKEN_ALGORITHM = "token.algorithm", "ZT4003", Category.UNAUTHENTICATED
    TOKEN_TYPE = "token.type", "ZT4004", Category.UNAUTHENTICATED
    TOKEN_HEADER = "token.header", "ZT4005", Category.UNAUTHENTICATED
    TOKEN_CRITICAL = "token.critical", "ZT4006", Category.UNAUTHENTICATED
    TOKEN_UNKNOWN_KEY = "token.unknown_key", "ZT4007", Category.UNAUTHENTICATED
    TOKEN_SIGNATURE = "token.signature", "ZT4008", Category.UNAUTHENTICATED
    TOKEN_CLAIM_MISSING = "token.claim_missing", "ZT4009", Category.UNAUTHENTICATED
    TOKEN_CLAIM = "token.claim", "ZT4010", Category.UNAUTHENTICATED
    TOKEN_EXPIRED = "token.expired", "ZT4011", Category.UNAUTHENTICATED
    TOKEN_NOT_YET_VALID = "token.not_yet_valid", "ZT4012", Category.UNAUTHENTICATED
    TOKEN_TOO_LONG_LIVED = "token.too_long_lived", "ZT4013", Category.UNAUTHENTICATED
    TOKEN_SUBJECT = "token.subject", "ZT4014", Category.UNAUTHENTICATED
    TOKEN_ORIGIN = "token.origin", "ZT4015", Category.UNAUTHENTICATED
    TOKEN_ISSUER = "token.issuer", "ZT4016", Category.UNAUTHENTICATED
    TOKEN_CONFIRMATION = "token.confirmation", "ZT4017", Category.UNAUTHENTICATED
    TOKEN_AUDIENCE = "token.audience", "ZT4018", Category.UNAUTHENTICATED
    TOKEN_WIT_BINDING = "token.wit_binding", "ZT4019", Category.UNAUTHENTICATED
    TOKEN_BINDING = "token.binding", "ZT4020", Category.UNAUTHENTICATED
    TOKEN_OTHER_BINDING = "token.other_binding", "ZT4021", Category.UNAUTHENTICATED
    TOKEN_SCHEME = "token.scheme", "ZT4022", Category.UNAUTHENTICATED
    TOKEN_METHOD = "token.method", "ZT4023", Category.UNAUTHENTICATED
    TOKEN_TARGET = "token.target", "ZT4024", Category.UNAUTHENTICATED
    TOKEN_MODE_UNCLEAR = "mode", "ZT4025", Category.UNAUTHENTICATED
    TOKEN_REPLAY = "token.replay", "ZT4026", Category.PROOF_STALE
    TOKEN_STALE = "token.stale", "ZT4027", Category.PROOF_STALE
    TOKEN_TOO_LARGE = "token.too_large", "ZT4028", Category.UNAUTHENTICATED
    REPLAY_FULL = "replay.full", "ZT4029", Category.UNAVAILABLE
    REPLAY_QUOTA = "replay.quota", "ZT4030", Category.UNAVAILABLE
    # 5xxx: policy
    RULE_NONE = "rule.none", "ZT5001", Category.FORBIDDEN
    RULE_DENY = "rule.deny", "ZT5002", Category.FORBIDDEN
    TOKEN_MODE = "token.mode", "ZT5003", Category.MODE_INSUFFICIENT
    RATE_EXCEEDED = "rate.exceeded", "ZT5004", Category.UNAVAILABLE
    # 6xxx: issuance
    ATTESTATION = "issuance.attestation", "ZT6001", Category.UNAUTHENTICATED
    NOT_ENTITLED = "issuance.not_entitled", "ZT6002", Category.FORBIDDEN
    CSR = "issuance.csr", "ZT6003", Category.MALFORMED
    LINEAGE_FROZEN = "issuance.lineage_frozen", "ZT6004", Category.FORBIDDEN
    LINEAGE_TOO_OLD = "issuance.lineage_too_old", "ZT6005", Category.FORBIDDEN
    ENTRY = "issuance.entry", "ZT6006", Category.MALFORMED
    ISSUANCE_RATE = "issuance.rate", "ZT6007", Category.UNAVAILABLE
    ISSUANCE_STORE = "issuance.store", "ZT6008", Category.UNAVAILABLE
    ISSUANCE_CLOCK = "issuance.clock", "ZT6009", Category.UNAVAILABLE
    ANCHOR_UNANNOUNCED = "issuance.anchor", "ZT6010", Category.UNAUTHENTICATED
    # 7xxx: our own identity
    NOT_YET_ISSUED = "identity.not_yet_issued", "ZT7001", Category.UNAVAILABLE
    RENEWAL_FAILED = "identity.renewal_failed", "ZT7002", Category.UNAVAILABLE
    IDENTITY_EXPIRED = "identity.expired", "ZT7003", Category.UNAVAILABLE
    IDENTITY_CLOSED = "identity.closed", "ZT7004", Category.UNAVAILABLE
    DEV_MARKER = "identity.dev_marker", "ZT7005", Category.UNAUTHENTICATED
    # 9xxx
    UNFORESEEN = "unforeseen", "ZT9001", Category.UNAVAILABLE
    AUDIT_SINK = "audit.sink", "ZT9002", Category.UNAVAILABLE


class ZeroTrustError(Exception):
    """What all our errors have in common; never raised itself."""

    def __init__(self, reason: Reason, detail: str = "") -> None:
        self.reason = reason
        self.detail = detail
        super().__init__(reason, detail)

    @property
    def code(self) -> str:
        """The stable code, `ZTnnnn`, explained in docs/errors.md and by `zerotrust explain`."""
        return self.reason.code

    @property
    def category(self) -> Category:
        """What the peer is told."""
        return self.reason.category

    @property
    def public(self) -> str:
        """Constant text that may be shown to the peer."""
        return PUBLIC_TEXT[self.category]

    def __str__(self) -> str:
        return (
            f"{self.code} {self.reason}: {self.detail}"
            if self.detail
            else f"{self.code} {self.reason}"
        )


class ConfigurationError(ZeroTrustError):
    """Our own configuration is wrong; raised at start, never per call."""

    def __init__(self, detail: str, reason: Reason = Reason.SETTING) -> None:
        super().__init__(reason, detail)


class UnknownPlugin(ConfigurationError):
    """No plugin has that name."""

    def __init__(self, detail: str) -> None:
        super().__init__(detail, Reason.UNKNOWN_PLUGIN)


class MissingExtra(ConfigurationError):
    """The feature needs an extra that is not installed."""

    def __init__(self, extra: str) -> None:
        super().__init__(
            f'this needs an extra: pip install "zerotrust-kit[{extra}]"', Reason.MISSING_EXTRA
        )


class UnsafeSetting(ConfigurationError):
    """The setting would weaken what the toolkit promises."""

    def __init__(self, detail: str) -> None:
        super().__init__(detail, Reason.UNSAFE)


class MalformedError(ZeroTrustError, ValueError):
    """Bytes that are not what they claim to be."""


class BadSpiffeId(MalformedError):
    """Not a SPIFFE ID."""

    def __init__(self, detail: str) -> None:
        super().__init__(Reason.BAD_SPIFFE_ID, detail)


class BadBundle(MalformedError):
    """Not a trust bundle document, or (DEV_MARKER) one of a throw-away CA."""

    def __init__(self, detail: str, reason: Reason = Reason.BAD_BUNDLE) -> None:
        super().__init__(reason, detail)


class BadPolicy(MalformedError):
    """Not a policy; the detail names file, line and key."""

    def __init__(self, detail: str) -> None:
        super().__init__(Reason.BAD_POLICY, detail)


class PeerError(ZeroTrustError):
    """The other side did not prove who it is."""


class CertificateRejected(PeerError):
    """The peer's certificate is not an acceptable X509-SVID."""


class TokenRejected(PeerError):
    """The peer's token is not acceptable."""


class CallReplayed(PeerError):
    """A one-time proof was seen before, or cannot be known to be new."""


class RequestRejected(ZeroTrustError):
    """The request's shape is ambiguous or over a limit."""


class AccessDenied(ZeroTrustError):
    """The caller is proven and the policy does not allow the call."""

    def __init__(self, reason: Reason, detail: str = "", *, rule: str | None = None) -> None:
        super().__init__(reason, detail)
        self.rule = rule


class IssuanceError(ZeroTrustError):
    """The CA refuses to issue."""


class AttestationFailed(IssuanceError):
    """The evidence does not hold. One constant reason for unknown, expired and used."""

    def __init__(self, detail: str) -> None:
        super().__init__(Reason.ATTESTATION, detail)


class NotEntitled(IssuanceError):
    """The evidence holds, and no entry entitles it."""


class RequestRefused(IssuanceError):
    """The request itself is not acceptable."""


class AuditUnavailable(ZeroTrustError):
    """The call would be allowed, but audit is required and its line cannot be written."""

    def __init__(self, detail: str) -> None:
        super().__init__(Reason.AUDIT_SINK, detail)


class IdentityUnavailable(ZeroTrustError):
    """No usable identity or trust right now; trying again later may help."""


class NotYetIssued(IdentityUnavailable):
    """No identity has been issued to this workload yet."""

    def __init__(self, detail: str) -> None:
        super().__init__(Reason.NOT_YET_ISSUED, detail)


class RenewalFailed(IdentityUnavailable):
    """The identity could not be renewed."""

    def __init__(self, detail: str) -> None:
        super().__init__(Reason.RENEWAL_FAILED, detail)


class Closed(IdentityUnavailable):
    """The identity was closed by its owner."""

    def __init__(self, detail: str = "the identity was closed") -> None:
        super().__init__(Reason.IDENTITY_CLOSED, detail)
