from __future__ import annotations

import sqlite3
import subprocess
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from support.issuing import (
    DOMAIN,
    NOW,
    PASSPHRASE,
    SOMEWHERE,
    Asker,
    make_ca,
    proven,
)
from support.tools import tool
from zerotrust import clock
from zerotrust.ca.attestors.join_token import REFUSAL
from zerotrust.ca.authority.attestation import Connection
from zerotrust.ca.authority.csr import verify_csr
from zerotrust.ca.authority.entries import NewEntry, dns_of
from zerotrust.ca.identity import OwnIdentity
from zerotrust.ca.service import CaSettings, CertificateAuthority, open_ca
from zerotrust.core.enrolment import Evidence, Issued
from zerotrust.core.errors import (
    AttestationFailed,
    ConfigurationError,
    IssuanceError,
    MalformedError,
    Reason,
    RequestRefused,
    TokenRejected,
)
from zerotrust.core.jose import SigningKey
from zerotrust.core.spiffe.bundle import BundleSet
from zerotrust.core.tokens.wit import verify_wit

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@pytest.fixture
def ca(tmp_path: Path) -> Iterator[CertificateAuthority]:
    with make_ca(tmp_path / "ca") as authority:
        yield authority


def first(ca: CertificateAuthority, path: str = "/ledger") -> tuple[Asker, Issued, str]:
    entry = ca.create_entry(NewEntry(path), now=NOW)
    asker = Asker()
    return asker, asker.enrol(ca, ca.create_token(entry.id, now=NOW).evidence), entry.id


def refusal(reason: Reason) -> pytest.RaisesExc[IssuanceError]:
    return pytest.RaisesExc(IssuanceError, check=lambda error: error.reason is reason)


def rows(ca_directory: Path, table: str) -> int:
    with sqlite3.connect(ca_directory / "ca.db") as connection:
        count: int = connection.execute(f"SELECT count(*) FROM {table}").fetchone()[0]  # noqa: S608
    connection.close()
    return count


def test_a_join_token_yields_the_identity_of_its_entry(ca: CertificateAuthority) -> None:
    asker, issued, _ = first(ca)
    svid = proven(ca, issued)
    assert str(svid.id) == "spiffe://example.org/ledger"
    wit = verify_wit(issued.wit, BundleSet([ca.bundle]), NOW)
    assert wit.subject == svid.id
    assert wit.key.thumbprint == asker.wit_key.public.thumbprint
    assert wit.expires_at == int(svid.not_after)


def test_a_leaf_names_the_hash_of_its_identity(ca: CertificateAuthority) -> None:
    entry = ca.create_entry(NewEntry("/web", dns_names=("web",)), now=NOW)
    issued = Asker().enrol(ca, ca.create_token(entry.id, now=NOW).evidence)
    leaf = x509.load_der_x509_certificate(issued.chain[0])
    names = leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert names.get_values_for_type(x509.DNSName) == ["web", dns_of(entry.spiffe_id)]


def test_openssl_accepts_the_chain_under_its_strict_rules(
    ca: CertificateAuthority, tmp_path: Path
) -> None:
    _, issued, _ = first(ca)
    names = ("leaf.pem", "issuer.pem")
    for name, der in zip(names, issued.chain, strict=True):
        pem = x509.load_der_x509_certificate(der).public_bytes(Encoding.PEM)
        (tmp_path / name).write_bytes(pem)
    (tmp_path / "root.pem").write_bytes(ca.state.roots[0].public_bytes(Encoding.PEM))
    command = [tool("openssl"), "verify", "-x509_strict", "-attime", str(int(NOW))]
    done = subprocess.run(
        [*command, "-CAfile", "root.pem", "-untrusted", "issuer.pem", "leaf.pem"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stdout == "leaf.pem: OK\n", done.stderr


def test_a_token_works_once(ca: CertificateAuthority) -> None:
    entry = ca.create_entry(NewEntry("/ledger"), now=NOW)
    evidence = ca.create_token(entry.id, now=NOW).evidence
    Asker().enrol(ca, evidence)
    with pytest.raises(AttestationFailed, match=REFUSAL):
        Asker().enrol(ca, evidence)


def test_a_lost_answer_is_given_again_to_the_same_keys(ca: CertificateAuthority) -> None:
    entry = ca.create_entry(NewEntry("/ledger"), now=NOW)
    evidence, asker = ca.create_token(entry.id, now=NOW).evidence, Asker()
    assert asker.enrol(ca, evidence) == asker.enrol(ca, evidence, NOW + 299)


def test_an_answer_is_not_given_again_to_another_wit_key(ca: CertificateAuthority) -> None:
    entry = ca.create_entry(NewEntry("/ledger"), now=NOW)
    evidence, asker = ca.create_token(entry.id, now=NOW).evidence, Asker()
    asker.enrol(ca, evidence)
    with pytest.raises(AttestationFailed, match=REFUSAL):
        Asker(key=asker.key).enrol(ca, evidence)


@pytest.mark.parametrize("age", [300, 301, 1e6])
def test_an_expired_token_is_refused(ca: CertificateAuthority, age: float) -> None:
    entry = ca.create_entry(NewEntry("/ledger"), now=NOW)
    with pytest.raises(AttestationFailed, match=REFUSAL):
        Asker().enrol(ca, ca.create_token(entry.id, now=NOW).evidence, NOW + age)


@pytest.mark.parametrize("value", ["", "x", "A" * 43])
def test_an_unknown_token_is_refused(ca: CertificateAuthority, value: str) -> None:
    with pytest.raises(AttestationFailed, match=REFUSAL):
        Asker().enrol(ca, Evidence("join_token", value))


def test_evidence_of_an_unknown_kind_is_refused(ca: CertificateAuthority) -> None:
    with pytest.raises(AttestationFailed, match="no attestor"):
        Asker().enrol(ca, Evidence("promise", "x"))


def test_a_token_bound_to_a_key_serves_no_other(ca: CertificateAuthority) -> None:
    entry, right = ca.create_entry(NewEntry("/ledger"), now=NOW), Asker()
    spki = right.key.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    digest = verify_csr(right.renewal(ca).csr).digest
    assert len(spki) > len(digest)
    evidence = ca.create_token(entry.id, now=NOW, csr_key=digest).evidence
    with pytest.raises(AttestationFailed, match=REFUSAL):
        Asker().enrol(ca, evidence)
    right.enrol(ca, evidence)


def test_parallel_uses_of_one_token_make_one_certificate(
    ca: CertificateAuthority, tmp_path: Path
) -> None:
    entry = ca.create_entry(NewEntry("/ledger"), now=NOW)
    evidence = ca.create_token(entry.id, now=NOW).evidence

    def use(_: int) -> bool:
        try:
            Asker().enrol(ca, evidence)
        except AttestationFailed:
            return False
        return True

    with ThreadPoolExecutor(8) as pool:
        assert sum(pool.map(use, range(16))) == 1
    assert rows(tmp_path / "ca", "certificates") == 1


def test_what_proves_nothing_writes_nothing(ca: CertificateAuthority, tmp_path: Path) -> None:
    for value in range(50):
        with pytest.raises(AttestationFailed):
            Asker().enrol(ca, Evidence("join_token", f"guess {value}"))
    assert [rows(tmp_path / "ca", table) for table in ("join_tokens", "certificates")] == [0, 0]


def test_the_database_does_not_know_the_secret(ca: CertificateAuthority, tmp_path: Path) -> None:
    entry = ca.create_entry(NewEntry("/ledger"), now=NOW)
    token = ca.create_token(entry.id, now=NOW)
    Asker().enrol(ca, token.evidence)
    ca.close()
    for file in (tmp_path / "ca").iterdir():
        content = file.read_bytes()
        assert token.secret not in content
        assert token.evidence.value.encode() not in content


def test_no_secret_stands_in_a_repr(ca: CertificateAuthority) -> None:
    entry = ca.create_entry(NewEntry("/ledger"), now=NOW)
    token = ca.create_token(entry.id, now=NOW)
    request = Asker().enrolment(ca, token.evidence)
    assert token.evidence.value not in repr(request) + repr(token)


def test_a_wit_key_needs_its_own_proof(ca: CertificateAuthority) -> None:
    entry = ca.create_entry(NewEntry("/ledger"), now=NOW)
    token = ca.create_token(entry.id, now=NOW)
    honest, other = Asker().enrolment(ca, token.evidence), Asker().enrolment(ca, token.evidence)
    forged = replace(honest, keys=replace(honest.keys, wit_proof=other.keys.wit_proof))
    with pytest.raises(TokenRejected):
        ca.enrol(forged, SOMEWHERE, now=NOW)
    ca.enrol(honest, SOMEWHERE, now=NOW).result()


def test_a_wit_key_proof_counts_for_one_evidence(ca: CertificateAuthority) -> None:
    entry, asker = ca.create_entry(NewEntry("/ledger"), now=NOW), Asker()
    one, two = (ca.create_token(entry.id, now=NOW).evidence for _ in range(2))
    with pytest.raises(TokenRejected):
        ca.enrol(replace(asker.enrolment(ca, one), evidence=two), SOMEWHERE, now=NOW)


def test_the_wit_key_is_not_the_tls_key(ca: CertificateAuthority) -> None:
    entry = ca.create_entry(NewEntry("/ledger"), now=NOW)
    key = ec.generate_private_key(ec.SECP256R1())
    with pytest.raises(MalformedError, match="not the TLS key"):
        Asker(key, SigningKey.from_private(key)).enrol(
            ca, ca.create_token(entry.id, now=NOW).evidence
        )


@pytest.mark.parametrize("member", ["d", "kid", "use", "key_ops"])
def test_a_wit_key_with_another_member_is_refused(ca: CertificateAuthority, member: str) -> None:
    entry = ca.create_entry(NewEntry("/ledger"), now=NOW)
    request = Asker().enrolment(ca, ca.create_token(entry.id, now=NOW).evidence)
    keys = replace(request.keys, wit_key={**request.keys.wit_key, member: "sig"})
    with pytest.raises(MalformedError):
        ca.enrol(replace(request, keys=keys), SOMEWHERE, now=NOW)


def test_a_renewal_rekeys(ca: CertificateAuthority) -> None:
    _, issued, _ = first(ca)
    renewed = ca.renew(Asker().renewal(ca), proven(ca, issued), now=NOW + 1800).result()
    assert proven(ca, renewed, NOW + 1800).id == proven(ca, issued).id
    assert renewed.chain[0] != issued.chain[0]


def test_a_renewal_with_an_old_key_is_refused(ca: CertificateAuthority) -> None:
    asker, issued, _ = first(ca)
    for kept in (Asker(key=asker.key), Asker(wit_key=asker.wit_key)):
        with refusal(Reason.CSR):
            ca.renew(kept.renewal(ca), proven(ca, issued), now=NOW)


def test_a_lost_renewal_is_answered_again(ca: CertificateAuthority) -> None:
    _, issued, _ = first(ca)
    svid, asker = proven(ca, issued), Asker()
    once = ca.renew(asker.renewal(ca), svid, now=NOW).result()
    assert ca.renew(asker.renewal(ca), svid, now=NOW + 60).result() == once


def test_a_second_child_freezes_the_lineage(ca: CertificateAuthority) -> None:
    _, issued, _ = first(ca)
    stolen = proven(ca, issued)
    renewed = ca.renew(Asker().renewal(ca), stolen, now=NOW).result()
    with refusal(Reason.LINEAGE_FROZEN):
        ca.renew(Asker().renewal(ca), stolen, now=NOW).result()
    with refusal(Reason.LINEAGE_FROZEN):
        ca.renew(Asker().renewal(ca), proven(ca, renewed), now=NOW).result()


def test_two_renewals_at_once_freeze_the_lineage(ca: CertificateAuthority) -> None:
    _, issued, _ = first(ca)
    svid = proven(ca, issued)

    def renew(_: int) -> Reason | None:
        try:
            ca.renew(Asker().renewal(ca), svid, now=NOW).result(10)
        except IssuanceError as error:
            return error.reason
        return None

    with ThreadPoolExecutor(4) as pool:
        outcomes = list(pool.map(renew, range(4)))
    assert outcomes.count(None) == 1
    assert outcomes.count(Reason.LINEAGE_FROZEN) == 3


def test_a_late_retry_with_the_same_keys_is_no_theft(ca: CertificateAuthority) -> None:
    _, issued, _ = first(ca)
    svid, asker = proven(ca, issued), Asker()
    child = proven(ca, ca.renew(asker.renewal(ca), svid, now=NOW).result(10))
    with refusal(Reason.LINEAGE_TOO_OLD):  # as after a clock that was set back
        ca.renew(asker.renewal(ca), svid, now=child.not_after).result(10)
    assert ca.renew(Asker().renewal(ca), child, now=NOW).result(10)


def test_a_deleted_entry_is_not_renewed(ca: CertificateAuthority) -> None:
    _, issued, entry = first(ca)
    ca.delete_entry(entry, now=NOW)
    with refusal(Reason.NOT_ENTITLED):
        ca.renew(Asker().renewal(ca), proven(ca, issued), now=NOW)


def test_the_tokens_of_a_deleted_entry_are_gone(ca: CertificateAuthority) -> None:
    entry = ca.create_entry(NewEntry("/ledger"), now=NOW)
    evidence = ca.create_token(entry.id, now=NOW).evidence
    ca.delete_entry(entry.id, now=NOW)
    with pytest.raises(AttestationFailed, match=REFUSAL):
        Asker().enrol(ca, evidence)


def test_a_deleted_identity_stays_reserved_while_its_certificates_live(
    ca: CertificateAuthority,
) -> None:
    _, issued, entry = first(ca)
    ends = proven(ca, issued).not_after
    ca.delete_entry(entry, now=NOW)
    with refusal(Reason.ENTRY):
        ca.create_entry(NewEntry("/ledger"), now=ends - 1)
    ca.create_entry(NewEntry("/ledger"), now=ends)


def test_an_old_lineage_attests_again(tmp_path: Path) -> None:
    with make_ca(tmp_path / "ca", settings=CaSettings(max_lineage_age=100)) as ca:
        _, issued, _ = first(ca)
        with refusal(Reason.LINEAGE_TOO_OLD):
            ca.renew(Asker().renewal(ca), proven(ca, issued), now=NOW + 101)
        ca.renew(Asker().renewal(ca), proven(ca, issued), now=NOW + 100).result()


def test_the_own_certificate_is_not_renewed_over_the_network(tmp_path: Path) -> None:
    now = clock.now()
    with make_ca(tmp_path / "ca", now=now) as ca:
        own = OwnIdentity(ca).fetch(None).svid
        issued = Issued(own.chain_der, "", ca.published, "localhost:1")
        with refusal(Reason.NOT_ENTITLED):
            ca.renew(Asker().renewal(ca), proven(ca, issued, now + 1), now=now + 1)


def test_a_uid_entitles_to_the_entry_that_names_it(ca: CertificateAuthority) -> None:
    ca.create_entry(NewEntry("/web", selectors=("unix:uid:1000",)), now=NOW)
    issued = Asker().enrol(ca, Evidence("unix"), by=Connection("uid:1000", 1000))
    assert proven(ca, issued).id == DOMAIN.id("/web")
    with refusal(Reason.NOT_ENTITLED):
        Asker().enrol(ca, Evidence("unix"), by=Connection("uid:1001", 1001))
    with pytest.raises(AttestationFailed):
        Asker().enrol(ca, Evidence("unix"), by=SOMEWHERE)


def test_a_wanted_identity_picks_and_does_not_entitle(ca: CertificateAuthority) -> None:
    for path, uid in (("/web", 1), ("/ledger", 1), ("/vault", 2)):
        ca.create_entry(NewEntry(path, selectors=(f"unix:uid:{uid}",)), now=NOW)
    by = Connection("uid:1", 1)
    with refusal(Reason.NOT_ENTITLED):
        Asker().enrol(ca, Evidence("unix"), by=by)
    issued = Asker().enrol(ca, Evidence("unix", "spiffe://example.org/web"), by=by)
    assert proven(ca, issued).id == DOMAIN.id("/web")
    with refusal(Reason.NOT_ENTITLED):
        Asker().enrol(ca, Evidence("unix", "spiffe://example.org/vault"), by=by)


def test_an_entry_without_selectors_is_no_ones_by_uid(ca: CertificateAuthority) -> None:
    ca.create_entry(NewEntry("/web"), now=NOW)
    with refusal(Reason.NOT_ENTITLED):
        Asker().enrol(ca, Evidence("unix"), by=Connection("uid:0", 0))


@pytest.mark.parametrize(
    ("column", "value"),
    [
        ("dns_names", '["evil.svid.internal"]'),
        ("dns_names", '["*.example.org"]'),
        ("spiffe_id", "spiffe://example.org/zerotrust/ca"),
        ("spiffe_id", "spiffe://other.example/ledger"),
        ("spiffe_id", "not an id"),
        ("ttl", "1e9"),
    ],
)
def test_an_entry_changed_in_the_database_yields_no_certificate(
    ca: CertificateAuthority, tmp_path: Path, column: str, value: str
) -> None:
    entry = ca.create_entry(NewEntry("/ledger"), now=NOW)
    evidence = ca.create_token(entry.id, now=NOW).evidence
    with sqlite3.connect(tmp_path / "ca" / "ca.db") as connection:
        connection.execute(f"UPDATE entries SET {column} = ?", (value,))  # noqa: S608
    connection.close()
    with pytest.raises(IssuanceError):
        Asker().enrol(ca, evidence)
    assert rows(tmp_path / "ca", "certificates") == 0
    ca.close()
    with pytest.raises(ConfigurationError, match=r"ca\.db: "):
        open_ca(tmp_path / "ca", PASSPHRASE, now=NOW)


def test_a_leaf_never_outlives_its_issuer(ca: CertificateAuthority) -> None:
    entry = ca.create_entry(NewEntry("/ledger", ttl=86400), now=NOW)
    late = ca.ends_at - 100
    evidence = ca.create_token(entry.id, now=late).evidence
    assert proven(ca, Asker().enrol(ca, evidence, late), late).not_after == ca.ends_at
    evidence = ca.create_token(entry.id, now=ca.ends_at).evidence
    with refusal(Reason.ISSUANCE_CLOCK):
        Asker().enrol(ca, evidence, ca.ends_at)


def test_a_second_process_is_told_that_the_first_one_runs(
    ca: CertificateAuthority, tmp_path: Path
) -> None:
    with pytest.raises(ConfigurationError, match="another process runs this CA"):
        open_ca(tmp_path / "ca", PASSPHRASE, now=NOW)
    ca.close()
    open_ca(tmp_path / "ca", PASSPHRASE, now=NOW).close()


def test_an_open_folder_is_refused(ca: CertificateAuthority, tmp_path: Path) -> None:
    ca.close()
    (tmp_path / "ca").chmod(0o750)
    with pytest.raises(ConfigurationError, match="chmod 700"):
        open_ca(tmp_path / "ca", PASSPHRASE, now=NOW)


@pytest.mark.parametrize("ttl", [0, -1, 86401, float("inf"), float("nan")])
def test_a_token_has_a_bounded_life(ca: CertificateAuthority, ttl: float) -> None:
    entry = ca.create_entry(NewEntry("/ledger"), now=NOW)
    with pytest.raises(RequestRefused):
        ca.create_token(entry.id, now=NOW, ttl=ttl)


def test_a_token_needs_an_entry(ca: CertificateAuthority) -> None:
    with pytest.raises(RequestRefused, match="no such entry"):
        ca.create_token("0" * 32, now=NOW)


def test_an_identity_is_registered_once(ca: CertificateAuthority) -> None:
    ca.create_entry(NewEntry("/ledger"), now=NOW)
    with refusal(Reason.ENTRY):
        ca.create_entry(NewEntry("/ledger"), now=NOW)


def test_forgetting_keeps_the_record_and_drops_the_answer(
    ca: CertificateAuthority, tmp_path: Path
) -> None:
    first(ca)
    ca.forget(now=NOW + 86400)
    assert rows(tmp_path / "ca", "certificates") == 1
    assert rows(tmp_path / "ca", "join_tokens") == 0


def test_a_certificate_that_is_not_on_record_is_not_renewed(
    ca: CertificateAuthority, tmp_path: Path
) -> None:
    with make_ca(tmp_path / "other") as other:
        _, issued, _ = first(other)
        svid = proven(other, issued)
    with refusal(Reason.NOT_ENTITLED):
        ca.renew(Asker().renewal(ca), svid, now=NOW)
