from __future__ import annotations

import json
import time
from typing import TYPE_CHECKING

import pytest

from support.issuing import DOMAIN, NOW, PASSPHRASE, ROOT_PASSPHRASE, Asker, make_ca, proven
from zerotrust import clock
from zerotrust.ca.authority.entries import MAX_TTL, NewEntry
from zerotrust.ca.identity import OwnIdentity
from zerotrust.ca.rotation import activate_root, drop_root, init_ca, prepare_root, rotate_issuer
from zerotrust.ca.server import Listeners, Running
from zerotrust.ca.service import open_ca
from zerotrust.ca.state import State
from zerotrust.core.enrolment import verify_anchors
from zerotrust.core.errors import CertificateRejected, ConfigurationError, Reason
from zerotrust.core.spiffe.bundle import BundleSet, TrustBundle
from zerotrust.core.spiffe.x509_svid import verify_x509_svid
from zerotrust.core.tokens.wit import verify_wit

if TYPE_CHECKING:
    from pathlib import Path

NEW_PASSPHRASE = b"second root passphrase"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    make_ca(tmp_path / "ca").close()
    return tmp_path / "ca"


def test_a_folder_holds_one_ca(folder: Path) -> None:
    with pytest.raises(ConfigurationError, match="already"):
        init_ca(folder, DOMAIN, root_passphrase=ROOT_PASSPHRASE, passphrase=PASSPHRASE, now=NOW)


def test_a_ca_is_made_in_an_empty_folder_that_is_closed_to_others(tmp_path: Path) -> None:
    def made(name: str, passphrase: bytes = PASSPHRASE) -> None:
        init_ca(
            tmp_path / name,
            DOMAIN,
            root_passphrase=ROOT_PASSPHRASE,
            passphrase=passphrase,
            now=NOW,
            dev=True,
        )

    for name in ("open", "full", "taken"):
        (tmp_path / name).mkdir(mode=0o700)
    (tmp_path / "open").chmod(0o755)
    (tmp_path / "full" / "letter").touch()
    (tmp_path / "taken" / "ca.db").touch()  # records that nobody here wrote
    for name, why in (("open", "chmod 700"), ("full", "letter"), ("taken", "ca.db")):
        before = sorted((tmp_path / name).iterdir())
        with pytest.raises(ConfigurationError, match=why):
            made(name)
        assert sorted((tmp_path / name).iterdir()) == before
    with pytest.raises(ConfigurationError, match="at least 8 bytes"):
        made("new", b"short")
    assert not (tmp_path / "new").exists()
    made("new")


def test_no_keys_are_rotated_where_no_ca_is(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="nowhere"):
        rotate_issuer(
            tmp_path / "nowhere", root_passphrase=ROOT_PASSPHRASE, passphrase=PASSPHRASE, now=NOW
        )
    assert not (tmp_path / "nowhere").exists()


def test_a_new_issuer_signs_and_the_old_certificates_stay_good(folder: Path) -> None:
    with open_ca(folder, PASSPHRASE, now=NOW) as ca:
        entry = ca.create_entry(NewEntry("/ledger"), now=NOW)
        old, bundle = Asker().enrol(ca, ca.create_token(entry.id, now=NOW).evidence), ca.bundle
    rotate_issuer(folder, root_passphrase=ROOT_PASSPHRASE, passphrase=PASSPHRASE, now=NOW + 1)
    with open_ca(folder, PASSPHRASE, now=NOW + 1) as ca:
        new = Asker().enrol(ca, ca.create_token(entry.id, now=NOW + 1).evidence, NOW + 1)
        assert new.chain[1] != old.chain[1]
        assert proven(ca, old, NOW + 1).id == proven(ca, new, NOW + 1).id
        assert verify_wit(old.wit, BundleSet([ca.bundle]), NOW + 1).subject == entry.spiffe_id
        assert (ca.bundle.sequence or 0) > (bundle.sequence or 0)
    # verifiers that still have the old bundle know the next WIT key already
    assert verify_wit(new.wit, BundleSet([bundle]), NOW + 1).subject == entry.spiffe_id


def test_a_wit_key_leaves_the_bundle_with_its_last_token(folder: Path) -> None:
    rotate_issuer(folder, root_passphrase=ROOT_PASSPHRASE, passphrase=PASSPHRASE, now=NOW)
    with open_ca(folder, PASSPHRASE, now=NOW) as ca:
        assert len(ca.bundle.wit_keys) == 3
        before = ca.bundle.sequence or 0
    with open_ca(folder, PASSPHRASE, now=NOW + MAX_TTL) as ca:
        assert len(ca.bundle.wit_keys) == 2
        assert (ca.bundle.sequence or 0) > before


def test_a_wit_key_leaves_the_bundle_of_a_running_ca_too(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(clock, "now", lambda: NOW)
    rotate_issuer(folder, root_passphrase=ROOT_PASSPHRASE, passphrase=PASSPHRASE, now=NOW)
    with open_ca(folder, PASSPHRASE, now=NOW) as ca:
        before = ca.published_body
        ca.prune(now=NOW + MAX_TTL - 1)
        assert ca.published_body is before
        ca.prune(now=NOW + MAX_TTL)
        sequence = ca.bundle.sequence or 0
        assert len(ca.bundle.wit_keys) == 2
        assert ca.published.bundle == ca.bundle.dump()
        assert ca.published_body == ca.published.dump() != before
        snapshot = OwnIdentity(ca).fetch(None)
        assert snapshot.bundles.of(ca.trust_domain) == ca.bundle
    assert len(State.load(folder).wit_keys) == 2
    assert State.load(folder).sequence == sequence > NOW


def test_a_ca_that_serves_prunes_by_itself(tmp_path: Path) -> None:
    made = clock.now() - MAX_TTL - 1
    make_ca(tmp_path / "old", now=made).close()
    rotate_issuer(
        tmp_path / "old", root_passphrase=ROOT_PASSPHRASE, passphrase=PASSPHRASE, now=made
    )
    with open_ca(tmp_path / "old", PASSPHRASE, now=made) as ca:
        assert len(ca.bundle.wit_keys) == 3
        with Running(ca, Listeners("127.0.0.1:0", "127.0.0.1:0")):
            until = clock.now() + 10
            while len(ca.bundle.wit_keys) == 3 and clock.now() < until:
                time.sleep(0.01)
        assert len(ca.bundle.wit_keys) == 2


def test_the_issuing_passphrase_opens_no_root(folder: Path) -> None:
    with pytest.raises(ConfigurationError) as caught:
        rotate_issuer(folder, root_passphrase=PASSPHRASE, passphrase=PASSPHRASE, now=NOW)
    assert caught.value.reason is Reason.PASSPHRASE


def test_a_ca_runs_without_its_root_key(folder: Path) -> None:
    for sealed in folder.glob("root-*.sealed"):
        sealed.unlink()
    with open_ca(folder, PASSPHRASE, now=NOW) as ca:
        assert not ca.root_at_hand
        assert ca.alarms(NOW) == ()


def test_a_root_within_reach_is_said(folder: Path) -> None:
    with open_ca(folder, PASSPHRASE, now=NOW) as ca:
        assert [alarm for alarm in ca.alarms(NOW) if "root" in alarm]


def test_an_ending_issuer_is_said_and_an_ended_one_does_not_start(folder: Path) -> None:
    with open_ca(folder, PASSPHRASE, now=NOW) as ca:
        ends = ca.ends_at
        assert [alarm for alarm in ca.alarms(ends - 3600) if "rotate-issuer" in alarm]
    with pytest.raises(ConfigurationError, match="rotate-issuer"):
        open_ca(folder, PASSPHRASE, now=ends)


def test_rotation_waits_until_the_ca_stops(folder: Path) -> None:
    with (
        open_ca(folder, PASSPHRASE, now=NOW),
        pytest.raises(ConfigurationError, match="stop it first"),
    ):
        rotate_issuer(folder, root_passphrase=ROOT_PASSPHRASE, passphrase=PASSPHRASE, now=NOW)


def test_a_new_root_is_announced_by_the_old_one(folder: Path) -> None:
    with open_ca(folder, PASSPHRASE, now=NOW) as ca:
        first = ca.bundle.x509_authorities
        entry = ca.create_entry(NewEntry("/ledger"), now=NOW)
    passphrases = {"root_passphrase": ROOT_PASSPHRASE, "new_passphrase": NEW_PASSPHRASE}
    state = prepare_root(folder, **passphrases, now=NOW + 1)
    both = state.bundle().x509_authorities
    statement = verify_anchors(
        state.statements, trust_domain=DOMAIN, trusted=first, sequence=int(NOW) + 1
    )
    statement.covers(both)
    with pytest.raises(CertificateRejected):
        statement.covers(first)

    state = activate_root(folder, new_passphrase=NEW_PASSPHRASE, passphrase=PASSPHRASE, now=NOW + 2)
    with open_ca(folder, PASSPHRASE, now=NOW + 2) as ca:
        issued = Asker().enrol(ca, ca.create_token(entry.id, now=NOW + 2).evidence, NOW + 2)
    alone = TrustBundle(DOMAIN, both[1:], {})
    assert verify_x509_svid(issued.chain, BundleSet([alone]), NOW + 2).id == entry.spiffe_id

    state = drop_root(folder, root_passphrase=NEW_PASSPHRASE, now=NOW + 3)
    assert state.roots == both[1:]
    last = verify_anchors(state.statements, trust_domain=DOMAIN, trusted=both, sequence=0)
    last.covers(both[1:])
    with pytest.raises(CertificateRejected):
        verify_anchors(state.statements, trust_domain=DOMAIN, trusted=first, sequence=0)


def test_steps_out_of_order_are_refused(folder: Path) -> None:
    with pytest.raises(ConfigurationError, match="prepare one first"):
        activate_root(folder, new_passphrase=NEW_PASSPHRASE, passphrase=PASSPHRASE, now=NOW)
    with pytest.raises(ConfigurationError, match="one root only"):
        drop_root(folder, root_passphrase=ROOT_PASSPHRASE, now=NOW)
    passphrases = {"root_passphrase": ROOT_PASSPHRASE, "new_passphrase": NEW_PASSPHRASE}
    prepare_root(folder, **passphrases, now=NOW)
    with pytest.raises(ConfigurationError, match="already"):
        prepare_root(folder, **passphrases, now=NOW)


def test_a_damaged_state_is_refused(folder: Path) -> None:
    (folder / "ca.json").write_bytes(b"{}")
    with pytest.raises(ConfigurationError, match="damaged"):
        open_ca(folder, PASSPHRASE, now=NOW)


@pytest.mark.parametrize(
    ("member", "value"),
    [
        ("roots", []),
        ("wit_keys", []),
        ("statements", []),
        ("wit_key", "../../another"),
        ("issuer_key", "../../another"),
        ("signing_root", "../../another"),
        ("issuer", None),
    ],
)
def test_a_state_whose_parts_do_not_fit_is_refused(
    folder: Path, member: str, value: object
) -> None:
    state = json.loads((folder / "ca.json").read_bytes())
    state[member] = state["roots"][0] if value is None else value
    (folder / "ca.json").write_text(json.dumps(state))
    with pytest.raises(ConfigurationError, match=r"ca\.json is damaged"):
        open_ca(folder, PASSPHRASE, now=NOW)


def test_a_rotation_that_ends_while_the_ca_starts_is_not_undone(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    load, reads = State.load, 0

    def load_and_be_overtaken(directory: Path) -> State:
        nonlocal reads
        state, reads = load(directory), reads + 1
        if reads == 1:
            monkeypatch.setattr(State, "load", load)
            rotate_issuer(
                directory, root_passphrase=ROOT_PASSPHRASE, passphrase=PASSPHRASE, now=NOW + 1
            )
            monkeypatch.setattr(State, "load", load_and_be_overtaken)
        return state

    monkeypatch.setattr(State, "load", load_and_be_overtaken)
    with open_ca(folder, PASSPHRASE, now=NOW + 2) as ca:
        assert ca.state == load(folder)


def test_a_failed_start_leaves_the_ca_free(folder: Path) -> None:
    with pytest.raises(ConfigurationError, match="wrong passphrase"):
        open_ca(folder, b"another passphrase", now=NOW)
    open_ca(folder, PASSPHRASE, now=NOW).close()
