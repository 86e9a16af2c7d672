"""The check inside the handshake, and the only place a TLS peer is made.

1. OpenSSL validates the path against the union of all anchors; `accept_leaf` then judges the
   *verified* chain: the leaf's rules, and an anchor of the leaf's own trust domain. The chain as
   sent is never looked at.
2. No byte passes before the check: SSL_read and SSL_write finish a pending handshake by themselves,
   so every method that moves data asks first, and none falls back to plaintext when the TLS layer
   is gone. A socket whose peer was checked is of another class, which asks no more; it turns back
   before the TLS layer goes.
3. A resumed session has no verified chain and skips the expiry check, so it is refused.
4. Every failure, the unforeseen included, leaves as an `ssl.SSLError`: event loops treat anything
   else as a bug of theirs.
"""

from __future__ import annotations

import _ssl
import contextlib
import functools
import socket
import ssl
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, NoReturn

from zerotrust import clock
from zerotrust.core.errors import CertificateRejected, Reason, UnsafeSetting, ZeroTrustError
from zerotrust.core.spiffe.x509_svid import VerifiedSvid, accept_leaf

if TYPE_CHECKING:
    from zerotrust.core.spiffe.bundle import BundleSet

MAX_ACCEPTED: Final = 1024  # peers remembered per snapshot

Authorize = Callable[[VerifiedSvid], None]
OnRefused = Callable[[ZeroTrustError], None]


class HandshakeRefused(ssl.SSLCertVerificationError):
    """The handshake was refused; `error` says why, in our own terms."""

    def __init__(self, error: ZeroTrustError) -> None:
        super().__init__(ssl.SSL_ERROR_SSL, str(error))
        self.error = error


@dataclass(frozen=True, slots=True)
class Terms:
    """What one handshake must fulfil: made when the TLS object is made, from one snapshot.

    `bundles` None means that no peer certificate is asked for (the CA's bootstrap listener);
    `refusal` refuses whatever comes. `front` is the context that users hold.
    """

    front: ssl.SSLContext
    bundles: BundleSet | None = None
    authorize: Authorize | None = None
    on_refused: OnRefused | None = None
    refusal: ZeroTrustError | None = None
    _accepted: dict[tuple[bytes, ...], VerifiedSvid] = field(default_factory=dict, repr=False)

    def accept(self, chain: tuple[bytes, ...], bundles: BundleSet, now: float) -> VerifiedSvid:
        """Judge a verified chain, or recall the judgement of the very same bytes.

        It stands while the bundles do, which is as long as these terms, and until the first
        certificate of the chain ends.
        """
        known = self._accepted.get(chain)
        if known is not None and now < known.expires_at:
            return known
        peer = accept_leaf(chain, bundles, now)
        if len(self._accepted) >= MAX_ACCEPTED:
            self._accepted.clear()
        self._accepted[chain] = peer
        return peer


def peer_of(ssl_object: object) -> VerifiedSvid | None:
    """Return the verified peer of one of our TLS objects after its handshake, or None.

    None is the answer for every object that a SpiffeContext did not make.

    Takes what servers and clients hand out: the SSLObject or SSLSocket, or CPython's raw object
    below it.
    """
    if type(ssl_object) not in _OURS:
        ssl_object = getattr(ssl_object, "owner", None) if _is_raw(ssl_object) else None
    if isinstance(ssl_object, _Checked) and type(ssl_object) in _OURS:
        return ssl_object._peer  # noqa: SLF001 - same module
    return None


_PENDING: Final = (ssl.SSLWantReadError, ssl.SSLWantWriteError)


class _Checked:
    """What our two TLS classes share: a handshake that ends with our check."""

    _sslobj: Any
    _context: ssl.SSLContext  # of a socket that is not connected
    _terms: Terms | None = None  # none given, none fulfilled
    _proven: bool = False
    _peer: VerifiedSvid | None = None
    _refused: ZeroTrustError | None = None

    def do_handshake(self, *args: Any, **kwargs: Any) -> None:
        """Finish the handshake, then judge the peer; otherwise raise and stay unusable."""
        if self._proven:
            return
        if self._refused is not None:
            raise HandshakeRefused(self._refused)
        try:
            terms = self._standing()
            super().do_handshake(*args, **kwargs)  # type: ignore[misc]
            self._peer = self._judge(terms)
        except ssl.SSLCertVerificationError as exc:
            self._refuse(_translated(exc), exc)
        except (
            OSError
        ) as exc:  # ssl.SSLError among them; or the connection broke: nobody was judged
            if isinstance(exc, ssl.SSLError) and not isinstance(exc, _PENDING):
                self._report(_translated(exc))
            raise
        except ZeroTrustError as exc:
            self._refuse(exc, exc)
        except Exception as exc:  # noqa: BLE001 - fail closed on the unforeseen
            self._refuse(CertificateRejected(Reason.UNFORESEEN, type(exc).__name__), exc)
        self._proven = True

    def _standing(self) -> Terms:
        if self._terms is None:
            raise UnsafeSetting("this TLS object was not made by a SpiffeContext")
        if self._terms.refusal is not None:
            raise self._terms.refusal
        return self._terms

    def _judge(self, terms: Terms) -> VerifiedSvid | None:
        if self._sslobj.session_reused:
            raise CertificateRejected(
                Reason.PEER_RESUMED, "a resumed session proves nothing about today"
            )
        if terms.bundles is None:
            return None
        peer = terms.accept(_verified_chain(self), terms.bundles, clock.now())
        if terms.authorize is not None:
            terms.authorize(peer)
        return peer

    def _refuse(self, error: ZeroTrustError, cause: BaseException) -> NoReturn:
        self._refused = error
        self._report(error)
        raise HandshakeRefused(error) from cause

    def _report(self, error: ZeroTrustError) -> None:
        if self._terms is not None and self._terms.on_refused is not None:
            with contextlib.suppress(
                Exception
            ):  # a broken log must not turn a refusal into something else
                self._terms.on_refused(error)

    @property
    def context(self) -> ssl.SSLContext:
        """The context this object was made by; it cannot be swapped."""
        return self._context if self._terms is None else self._terms.front

    @context.setter
    def context(self, _: ssl.SSLContext) -> None:
        raise UnsafeSetting("the context of a TLS object cannot be swapped")

    @property
    def session(self) -> Any:
        """Always None: sessions are never resumed."""

    @session.setter
    def session(self, _: object) -> None:
        raise UnsafeSetting("sessions are never resumed")


class SpiffeObject(_Checked, ssl.SSLObject):
    """For memory BIOs: asyncio, uvloop, anyio, trio."""

    def read(self, len: int = 1024, buffer: Any = None) -> Any:  # noqa: A002 - the overridden signature
        """Read decrypted bytes of a peer that was checked."""
        if not self._proven:
            self.do_handshake()
        if buffer is None:
            return self._sslobj.read(len)
        return self._sslobj.read(len, buffer)

    def write(self, data: Any) -> int:
        """Encrypt bytes for a peer that was checked."""
        if not self._proven:
            self.do_handshake()
        return self._sslobj.write(data)  # type: ignore[no-any-return]


class ProvenSocket(_Checked, ssl.SSLSocket):
    """A socket whose peer was checked, for as long as its TLS layer lasts."""

    def unwrap(self) -> socket.socket:
        """Close the TLS layer; the socket carries nothing afterwards."""
        try:
            return super().unwrap()
        finally:
            self._forget()

    def shutdown(self, how: int) -> None:
        """Close one direction or both; the TLS layer goes with either, so nothing is carried."""
        self._forget()
        super().shutdown(how)

    def _forget(self) -> None:
        self._proven, self._peer = False, None
        self.__class__ = SpiffeSocket  # the same layout


def _guarded(name: str) -> Any:
    """Return SSLSocket's own method, refused before the check and again once TLS is gone."""
    method = getattr(ssl.SSLSocket, name)

    @functools.wraps(method)
    def guarded(self: SpiffeSocket, *args: Any, **kwargs: Any) -> Any:
        if not self._proven and self._made:
            if self._sslobj is None:
                raise ssl.SSLError(
                    ssl.SSL_ERROR_SSL, "no TLS on this socket: nothing goes in the clear"
                )
            self.do_handshake()
        return method(self, *args, **kwargs)

    return guarded


class SpiffeSocket(ProvenSocket):
    """For blocking users: http.client, urllib, werkzeug, gunicorn's threads, sync httpx."""

    _made = False

    @classmethod
    def _create(cls, *args: Any, **kwargs: Any) -> SpiffeSocket:
        made: SpiffeSocket = super()._create(*args, **kwargs)  # type: ignore[misc]
        made._made = True
        return made

    def do_handshake(self, *args: Any, **kwargs: Any) -> None:
        """Finish the handshake and judge the peer; from then on data goes straight to OpenSSL."""
        super().do_handshake(*args, **kwargs)
        self.__class__ = ProvenSocket  # type: ignore[assignment]  # same layout

    read = _guarded("read")
    write = _guarded("write")
    send = _guarded("send")
    sendall = _guarded("sendall")
    sendfile = _guarded("sendfile")
    sendto = _guarded("sendto")
    recv = _guarded("recv")
    recv_into = _guarded("recv_into")
    recvfrom = _guarded("recvfrom")
    recvfrom_into = _guarded("recvfrom_into")


_OURS: Final = frozenset({SpiffeObject, SpiffeSocket, ProvenSocket})


def _is_raw(ssl_object: object) -> bool:
    return type(ssl_object).__name__ == "_SSLSocket" and type(ssl_object).__module__ == "_ssl"


def _verified_chain(checked: Any) -> tuple[bytes, ...]:
    """DER of the chain OpenSSL verified, leaf first and anchor last; public from 3.13 on."""
    if sys.version_info >= (3, 13):
        return tuple(checked.get_verified_chain())
    chain = checked._sslobj.get_verified_chain() or ()  # noqa: SLF001 - the same data
    return tuple(certificate.public_bytes(_ssl.ENCODING_DER) for certificate in chain)


# X509_V_ERR_* of OpenSSL's x509_vfy.h that have a reason of their own; all others are "untrusted".
_VERIFY_CODES: Final = {9: Reason.PEER_NOT_YET_VALID, 10: Reason.PEER_EXPIRED}


def _translated(exc: ssl.SSLError) -> CertificateRejected:
    """Say in our terms what OpenSSL refused."""
    if isinstance(exc, ssl.SSLCertVerificationError):
        reason = _VERIFY_CODES.get(exc.verify_code, Reason.PEER_UNTRUSTED)
        return CertificateRejected(reason, exc.verify_message)
    if exc.reason == "PEER_DID_NOT_RETURN_A_CERTIFICATE":
        return CertificateRejected(Reason.PEER_NONE, "no client certificate")
    return CertificateRejected(Reason.PEER_HANDSHAKE, exc.reason or type(exc).__name__)
