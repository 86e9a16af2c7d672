from __future__ import annotations

import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from support.home_ca import DOMAIN, PASSPHRASE, ROOT, Home, home
from zerotrust import clock
from zerotrust.ca.authority.entries import NewEntry
from zerotrust.ca.rotation import activate_root, drop_root, prepare_root
from zerotrust.ca.service import init_ca, open_ca
from zerotrust.core.enrolment import Issued, JoinToken, Published, ca_id, fingerprints
from zerotrust.core.errors import (
    CertificateRejected,
    ConfigurationError,
    Reason,
    TokenRejected,
)
from zerotrust.core.jose import SigningKey
from zerotrust.core.spiffe.bundle import BundleSet, TrustBundle
from zerotrust.probe.forge import ForgedAuthority
from zerotrust.workload.ca_answer import Pending, Trust, believe
from zerotrust.workload.identity import Snapshot
from zerotrust.workload.layout import write_private
from zerotrust.workload.sources import ca as source_module
from zerotrust.workload.sources.ca import open_source

__all__ = ["home"]


# ---- an answer that is not believed ---------------------------------------------------------


@dataclass(frozen=True)
class Answered:
    issued: Issued
    pending: Pending
    trust: Trust


@pytest.fixture
def answered(home: Home, monkeypatch: pytest.MonkeyPatch) -> Answered:
    """One honest answer, with the question and what was trusted."""
    kept: list[Answered] = []

    def watch(issued: Issued, pending: Pending, trust: Trust, **options: Any) -> Snapshot:
        kept.append(Answered(issued, pending, trust))
        return believe(issued, pending, trust, **options)

    monkeypatch.setattr(source_module, "believe", watch)
    open_source(str(home.token()), dev=True).fetch(None)
    return kept[0]


def judged(a: Answered, previous: Snapshot | None = None) -> Snapshot:
    return believe(a.issued, a.pending, a.trust, previous=previous, now=clock.now())


def test_the_honest_answer_is_believed(answered: Answered) -> None:
    assert str(judged(answered).svid.id) == "spiffe://example.org/web"


def test_a_certificate_for_another_key_is_refused(answered: Answered) -> None:
    from cryptography.hazmat.primitives.asymmetric import ec

    other = replace(answered.pending, key=ec.generate_private_key(ec.SECP256R1()))
    with pytest.raises(CertificateRejected) as caught:
        judged(replace(answered, pending=other))
    assert caught.value.reason is Reason.PEER_KEY


def test_a_wit_for_another_key_is_refused(answered: Answered) -> None:
    other = replace(answered.pending, wit_key=SigningKey.generate())
    with pytest.raises(TokenRejected) as caught:
        judged(replace(answered, pending=other))
    assert caught.value.reason is Reason.TOKEN_CONFIRMATION


def test_a_wit_for_another_workload_is_refused(home: Home, answered: Answered) -> None:
    entry = home.ca.create_entry(NewEntry("/other", ttl=60.0), now=clock.now())
    token = home.ca.create_token(entry.id, address=home.running.bootstrap, now=clock.now())
    path = home.path / "other"
    write_private(path, token.dump().encode())
    other = open_source(str(path), dev=True).fetch(None)
    assert other.wit is not None
    with pytest.raises(TokenRejected) as caught:
        judged(replace(answered, issued=replace(answered.issued, wit=other.wit.token)))
    assert caught.value.reason is Reason.TOKEN_SUBJECT
    with pytest.raises(CertificateRejected) as unexpected:
        judged(answered, previous=other)
    assert unexpected.value.reason is Reason.PEER_UNEXPECTED


def test_a_chain_under_another_root_is_refused(home: Home, answered: Answered) -> None:
    init_ca(
        home.path / "evil",
        DOMAIN,
        root_passphrase=ROOT,
        passphrase=PASSPHRASE,
        now=clock.now(),
        dev=True,
    )
    with open_ca(home.path / "evil", PASSPHRASE, now=clock.now()) as evil:
        trust = Trust(evil.bundle)
    with pytest.raises(CertificateRejected) as caught:
        judged(replace(answered, trust=trust))
    assert caught.value.reason is Reason.PEER_UNTRUSTED


def test_a_root_announced_by_a_trusted_root_is_followed(home: Home, tmp_path: Path) -> None:
    trust = Trust(home.ca.bundle)
    home.running.__exit__()
    home.ca.close()
    new = b"new-root-passphrase"
    folder = tmp_path / "ca"
    published: list[Published] = []
    now = clock.now() + 10
    prepare_root(folder, root_passphrase=ROOT, new_passphrase=new, now=now)
    published.append(_published(folder))
    activate_root(folder, new_passphrase=new, passphrase=PASSPHRASE, now=now + 1)
    drop_root(folder, root_passphrase=new, now=now + 2)
    published.append(_published(folder))
    # 1. one step after the other is believed
    between = trust.follow(published[0], dev=True)
    after = between.follow(published[1], dev=True)
    assert len(between.bundle.x509_authorities) == 2
    assert len(after.bundle.x509_authorities) == 1
    # 2. a root that no root we trust has announced is not
    with pytest.raises(CertificateRejected) as caught:
        trust.follow(published[1], dev=True)
    assert caught.value.reason is Reason.ANCHOR_UNANNOUNCED
    # 3. and there is no way back: the statement before is older
    with pytest.raises(CertificateRejected) as older:
        after.follow(published[0], dev=True)
    assert older.value.reason is Reason.ANCHOR_UNANNOUNCED


def _published(folder: Path) -> Published:
    from zerotrust.ca.state import State

    return State.load(folder).published()


def test_an_older_bundle_is_refused_even_with_the_same_roots(home: Home) -> None:
    bundle = home.ca.bundle
    newer = TrustBundle(
        bundle.origin, bundle.x509_authorities, bundle.wit_keys, (bundle.sequence or 0) + 1
    )
    with pytest.raises(CertificateRejected) as caught:
        Trust(newer).follow(home.ca.published, dev=True)
    assert caught.value.reason is Reason.ANCHOR_UNANNOUNCED


def test_a_bundle_that_has_lost_its_sequence_is_refused(home: Home) -> None:
    bundle, said = home.ca.bundle, home.ca.published.anchors
    for held in (bundle, replace(bundle, sequence=None)):
        assert Trust(held).follow(Published(bundle.dump(), said), dev=True).bundle == bundle
    newer = replace(bundle, sequence=1)
    bare = json.loads(bundle.dump())
    del bare["spiffe_sequence"]
    with pytest.raises(CertificateRejected) as caught:
        Trust(newer).follow(Published(json.dumps(bare).encode(), said), dev=True)
    assert caught.value.reason is Reason.ANCHOR_UNANNOUNCED


def test_a_bundle_nobody_states_is_refused(home: Home) -> None:
    bare = Published(home.ca.published.bundle, ())
    with pytest.raises(CertificateRejected) as caught:
        Trust(home.ca.bundle).follow(bare, dev=True)
    assert caught.value.reason is Reason.ANCHOR_UNANNOUNCED


def test_pending_keys_do_not_show_and_are_not_pickled(answered: Answered) -> None:
    import pickle

    assert repr(answered.pending) == "<Pending, keys redacted>"
    with pytest.raises(TypeError):
        pickle.dumps(answered.pending)
    assert Pending.parse(answered.pending.dump()).request == answered.pending.request
    assert BundleSet([answered.trust.bundle]).of(DOMAIN) is not None


# ---- answers of a CA that does what it should not ------------------------------------------


def answer_for(path: str) -> Answered:
    """Return what a CA says that names the asker `path`, certifying the very keys it sent."""
    authority = ForgedAuthority(DOMAIN.name, now=clock.now())
    pending = Pending.generate(ca=ca_id(DOMAIN), evidence=None, parent="")
    svid = authority.issue(path, key=pending.key)
    wit = authority.wit(path, pending.wit_key)
    published = Published(authority.bundle_document(), ())
    issued = Issued(svid.chain_der, wit, published, "localhost:8442")
    return Answered(issued, pending, Trust(authority.bundle))


def test_a_bundle_that_changed_replaces_the_one_in_use() -> None:
    answer = answer_for("web")
    first = judged(answer)
    assert judged(answer, first).bundles is first.bundles
    newer = replace(answer.trust.bundle, sequence=2)
    bundles = judged(replace(answer, trust=Trust(newer)), first).bundles
    assert bundles == BundleSet([newer]) != first.bundles


def test_an_answer_that_makes_a_workload_the_ca_is_refused() -> None:
    assert (
        str(judged(answer_for("zerotrusted/ca")).svid.id) == "spiffe://example.org/zerotrusted/ca"
    )
    with pytest.raises(CertificateRejected) as caught:
        judged(answer_for("zerotrust/ca"))
    assert caught.value.reason is Reason.PEER_WRONG_TRUST_DOMAIN


def test_a_root_that_the_statement_does_not_list_is_refused(home: Home) -> None:
    bundle, said = home.ca.bundle, home.ca.published.anchors
    stranger = ForgedAuthority(DOMAIN.name, now=clock.now()).root
    wider = replace(bundle, x509_authorities=(*bundle.x509_authorities, stranger))
    assert Trust(bundle).follow(Published(bundle.dump(), said), dev=True).bundle == bundle
    with pytest.raises(CertificateRejected) as caught:
        Trust(bundle).follow(Published(wider.dump(), said), dev=True)
    assert caught.value.reason is Reason.ANCHOR_UNANNOUNCED


def test_the_first_bundle_has_exactly_the_roots_that_the_join_token_lists(home: Home) -> None:
    listed = fingerprints(home.ca.bundle.x509_authorities)
    token = JoinToken("localhost:8441", ca_id(DOMAIN), listed, bytes(32))
    assert Trust.first(home.ca.published, token, dev=True).bundle == home.ca.bundle
    with pytest.raises(CertificateRejected) as caught:
        Trust.first(home.ca.published, replace(token, anchors=("0" * 64,)), dev=True)
    assert caught.value.reason is Reason.ANCHOR_UNANNOUNCED


def test_pending_keys_of_another_kind_are_damaged() -> None:
    pending = Pending.generate(ca=ca_id(DOMAIN), evidence=None, parent="")
    members = json.loads(pending.dump())
    assert Pending.parse(json.dumps(members).encode()).request == pending.request
    members["key"] = SigningKey.generate("EdDSA").to_pem().decode()
    with pytest.raises(ConfigurationError, match="damaged"):
        Pending.parse(json.dumps(members).encode())
