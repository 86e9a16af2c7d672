"""ISSUES. The certificate authority: attestation, entitlement, issuance, records.

Its interface, by module; every call blocks, `now` is seconds since the epoch.

`rotation`   init_ca(directory, trust_domain, *, root_passphrase, passphrase, now, dev, ...)
             rotate_issuer, prepare_root, activate_root, drop_root, while the CA rests
`service`    open_ca(directory, passphrase, *, now, settings) -> CertificateAuthority, which offers
             create_entry(NewEntry, *, now), entries(), delete_entry(id, *, now)
             create_token(entry_id, *, now, ttl, address, csr_key) -> JoinToken
             enrol(EnrolRequest, Connection, *, now) and renew(RenewRequest, VerifiedSvid, *, now)
`server`     run(ca, Listeners(bootstrap, mtls, admin_socket, workload_socket, admin_uids), *,
             policy, audit, rates) until SIGTERM; Running does the same for a `with` block
`admin`      AdminClient(socket): the same acts on entries and tokens, from another process
"""
