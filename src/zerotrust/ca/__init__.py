"""ISSUES. The certificate authority: attestation, entitlement, issuance, records.

What other rooms may rely on, from `zerotrust.ca.service` (blocking calls, no event loop):

    init_ca(directory, trust_domain: TrustDomain, *, root_passphrase: bytes, passphrase: bytes,
    now: float,
            dev: bool = False, issuer_lifetime: float = 7 * 86400) -> None
        makes the 0700 folder: ca.json, root.sealed (only rotation opens it), issuer.sealed,
        wit.sealed, ca.db.
    open_ca(directory, passphrase: bytes, *, settings: CaSettings | None = None) ->
    CertificateAuthority
        unseals the issuing keys, locks the store; ConfigurationError(PASSPHRASE / SEALED_FILE /
        STORE) when it cannot.
    rotate_issuer(directory, *, root_passphrase, passphrase, now, lifetime=...)   while the CA is
    stopped or running
    prepare_root / activate_root / drop_root(directory, *, ...)                   all of these in
    zerotrust.ca.rotation

    CertificateAuthority
        .trust_domain .id (spiffe://<td>/zerotrust/ca) .bundle (TrustBundle) .published (Published)
        .create_entry(NewEntry(path=..., selectors=(), dns_names=(), ttl=3600.0), now=...) ->
        RegistrationEntry
        .entries() -> tuple[RegistrationEntry, ...]      .delete_entry(entry_id, now=...)
        .create_token(entry_id, *, ttl: float = 300, address: str, now: float, csr_key: bytes |
        None = None) -> JoinToken
        .enrol(EnrolRequest, *, selectors=..., now) / .renew(RenewRequest, *, svid, now) -> Issued
        .identity() -> Source                        what WorkloadIdentity runs the CA's own
        identity from
        .close()

`zerotrust.ca.server.run(ca, *, bootstrap="127.0.0.1:8441", mtls="127.0.0.1:8442",
admin_socket=None, hosts=(...),
policy=None, unix_socket=None)` serves until SIGTERM; `Running` (a context manager: `start(ca,
...)`) does the same on a
thread and tells the ports it bound.

`zerotrust.ca.admin.AdminClient(socket_path)` offers create_entry, entries, delete_entry,
create_token over the local
admin socket with the same arguments and results.
"""
