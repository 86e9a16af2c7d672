from __future__ import annotations

import string

import pytest

from zerotrust.core.errors import BadSpiffeId, MalformedError, Reason
from zerotrust.core.spiffe.ids import (
    MAX_ID_BYTES,
    MAX_TRUST_DOMAIN_BYTES,
    SpiffeId,
    TrustDomain,
)

DOMAIN_CHARS = set(string.ascii_lowercase + string.digits + ".-_")
PATH_CHARS = set(string.ascii_letters + string.digits + ".-_")
CODE_POINTS = [chr(point) for point in range(256)]


def is_refused(text: str) -> bool:
    try:
        SpiffeId.parse(text)
    except BadSpiffeId:
        return True
    return False


@pytest.mark.parametrize("position", ["first", "middle", "last"])
def test_a_trust_domain_holds_exactly_its_alphabet(position: str) -> None:
    frame = {"first": "{}ab", "middle": "a{}b", "last": "ab{}"}[position]
    accepted = set()
    for char in CODE_POINTS:
        try:
            accepted.add(char) if TrustDomain(frame.format(char)) else None
        except BadSpiffeId:
            continue
    assert accepted == DOMAIN_CHARS


@pytest.mark.parametrize("frame", ["{}ab", "a{}b", "ab{}", "{}"])
@pytest.mark.parametrize("segments", ["{}", "{}/x", "x/{}", "x/{}/y"])
def test_a_path_segment_holds_exactly_its_alphabet(frame: str, segments: str) -> None:
    accepted = {
        char
        for char in CODE_POINTS
        if not is_refused("spiffe://example.org/" + segments.format(frame.format(char)))
    }
    # A slash inside a segment makes two of them; a lone dot is no segment.
    extra = {"/"} if frame == "a{}b" else set()
    assert accepted == (PATH_CHARS | extra) - ({"."} if frame == "{}" else set())


@pytest.mark.parametrize("char", CODE_POINTS)
def test_no_code_point_is_stripped_around_an_id(char: str) -> None:
    assert is_refused(f"{char}spiffe://example.org/web")
    if char not in PATH_CHARS:
        assert is_refused(f"spiffe://example.org/web{char}")


@pytest.mark.parametrize(
    "char", ["\u0661", "\u212a", "\u017f", "\uff0e", "\u2024", "\ud800", "\U0001d41a"]
)
def test_letters_that_fold_to_allowed_ones_are_refused(char: str) -> None:
    assert is_refused(f"spiffe://example.org/{char}")
    assert is_refused(f"spiffe://{char}/web")


@pytest.mark.parametrize(
    "name",
    ["a", "example.org", "a..b", ".a", "a.", "-a", "_", "...", "10.0.0.1", "1", "xn--nxasmq6b"],
)
def test_a_trust_domain_need_not_look_like_a_dns_name(name: str) -> None:
    assert TrustDomain.parse(name) == TrustDomain.parse(f"spiffe://{name}") == TrustDomain(name)
    assert SpiffeId.parse(f"spiffe://{name}/web").trust_domain == TrustDomain(name)


@pytest.mark.parametrize(
    "name",
    [
        "",
        " ",
        "Example.org",
        "exämple.org",
        "example.org:443",
        "web@example.org",
        "[::1]",
        "::1",
        "example.org/",
        "example.org/web",
        "example.org?x",
        "example.org#x",
        "%65xample.org",
        "example.org\n",
        "\\example.org",
        "a/../b",
    ],
)
def test_what_is_no_trust_domain_is_refused(name: str) -> None:
    for text in (name, f"spiffe://{name}"):
        with pytest.raises(BadSpiffeId) as caught:
            TrustDomain.parse(text)
        assert caught.value.reason is Reason.BAD_SPIFFE_ID


@pytest.mark.parametrize(
    "scheme", ["", "SPIFFE", "Spiffe", "spiffes", "https", "spiffe:", " spiffe"]
)
def test_another_scheme_is_refused(scheme: str) -> None:
    assert is_refused(f"{scheme}://example.org/web")
    with pytest.raises(BadSpiffeId):
        TrustDomain.parse(f"{scheme}://example.org")


@pytest.mark.parametrize(
    "text",
    [
        "",
        "spiffe",
        "spiffe:",
        "spiffe:/",
        "spiffe://",
        "spiffe:///",
        "spiffe:///web",
        "spiffe:example.org/web",
        "spiffe:/example.org/web",
        "//example.org/web",
        "/web",
        "example.org/web",
        "spiffe://example.org",
        "spiffe://example.org/",
        "spiffe://example.org//",
        "spiffe://example.org//web",
        "spiffe://example.org/web/",
        "spiffe://example.org/a//b",
        "spiffe://example.org/.",
        "spiffe://example.org/..",
        "spiffe://example.org/./web",
        "spiffe://example.org/../web",
        "spiffe://example.org/a/.",
        "spiffe://example.org/a/..",
        "spiffe://example.org/a/./b",
        "spiffe://example.org/a/../b",
        "spiffe://example.org/%2e%2e/web",
        "spiffe://example.org/a%2Fb",
        "spiffe://example.org/%",
        "spiffe://example.org/web?a=b",
        "spiffe://example.org/web#a",
        "spiffe://example.org?a",
        "spiffe://web@example.org/web",
        "spiffe://example.org:8443/web",
        "spiffe://[::1]/web",
        "spiffe://example.org\\web",
        "spiffe://example.org/web\x00",
        "spiffe://example.org/*",
    ],
)
def test_what_is_no_spiffe_id_is_refused(text: str) -> None:
    with pytest.raises(BadSpiffeId):
        SpiffeId.parse(text)


@pytest.mark.parametrize(
    "path", ["/web", "/...", "/.x", "/x.", "/-", "/_", "/A", "/a/b/c", "/10.0.0.1", "/..a", "/a.."]
)
def test_a_canonical_id_reads_and_writes_as_itself(path: str) -> None:
    text = f"spiffe://example.org{path}"
    parsed = SpiffeId.parse(text)
    assert str(parsed) == text
    assert parsed.path == path
    assert parsed == TrustDomain("example.org").id(path) == TrustDomain("example.org").id(path[1:])


def test_the_case_of_a_path_matters() -> None:
    assert SpiffeId.parse("spiffe://example.org/Web") != SpiffeId.parse("spiffe://example.org/web")


def test_a_path_means_nothing_without_its_domain() -> None:
    assert SpiffeId.parse("spiffe://a.test/web") != SpiffeId.parse("spiffe://b.test/web")
    assert len({SpiffeId.parse("spiffe://a.test/web"), SpiffeId.parse("spiffe://a.test/web")}) == 1


def test_a_trust_domain_of_255_bytes_is_read_and_one_more_is_not() -> None:
    assert TrustDomain("a" * MAX_TRUST_DOMAIN_BYTES)
    with pytest.raises(BadSpiffeId):
        TrustDomain("a" * (MAX_TRUST_DOMAIN_BYTES + 1))


def test_an_id_of_2048_bytes_is_read_and_one_more_is_not() -> None:
    start = "spiffe://example.org/"
    text = start + "a" * (MAX_ID_BYTES - len(start))
    assert str(SpiffeId.parse(text)) == text
    assert is_refused(text + "a")
    with pytest.raises(BadSpiffeId):
        SpiffeId(TrustDomain("example.org"), ("a" * MAX_ID_BYTES,))


def test_an_id_is_never_built_from_unread_parts() -> None:
    domain = TrustDomain("example.org")
    for segments in ((), ("",), ("a/b",), (".",), ("..",), ("a", ""), ("a\n",)):
        with pytest.raises(BadSpiffeId):
            SpiffeId(domain, segments)
    with pytest.raises(BadSpiffeId):
        domain.id("/")
    with pytest.raises(BadSpiffeId):
        domain.id("//web")


def test_what_is_not_text_is_refused() -> None:
    for value in (None, 7, b"spiffe://example.org/web", ["spiffe://example.org/web"]):
        with pytest.raises(BadSpiffeId):
            SpiffeId.parse(value)  # type: ignore[arg-type]
        with pytest.raises(BadSpiffeId):
            TrustDomain.parse(value)  # type: ignore[arg-type]
        with pytest.raises(BadSpiffeId):
            TrustDomain(value)  # type: ignore[arg-type]


def test_wimse_is_an_origin_of_its_own() -> None:
    assert TrustDomain("example.org", "wimse") != TrustDomain("example.org")
    assert str(TrustDomain.parse("wimse://example.org").id("web")) == "wimse://example.org/web"


def test_a_long_input_is_not_repeated_whole_in_the_error() -> None:
    with pytest.raises(BadSpiffeId) as caught:
        TrustDomain("X" * 5000)
    assert len(caught.value.detail) < 200


def test_a_malformed_id_is_a_value_error_of_the_malformed_kind() -> None:
    with pytest.raises(MalformedError):
        SpiffeId.parse("web")
    with pytest.raises(ValueError, match="ZT1101"):
        SpiffeId.parse("web")


def test_trust_domains_sort_by_name() -> None:
    assert sorted([TrustDomain("b"), TrustDomain("a")]) == [TrustDomain("a"), TrustDomain("b")]
