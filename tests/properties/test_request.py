"""No bytes pass the request's shape in two readings, and nothing but our own error comes out."""

from __future__ import annotations

from urllib.parse import quote, unquote_to_bytes

from hypothesis import example, given
from hypothesis import strategies as st

from zerotrust.core.errors import RequestRejected
from zerotrust.core.request import SINGLE_FIELDS, Host, parse_target, read_fields

PCHAR = "~!$&'()*+,=:@/"
TARGETS = st.one_of(
    st.binary(max_size=40),
    st.lists(
        st.sampled_from(
            [b"/", b"a", b"..", b".", b"%2e", b"%2F", b"%C3%A9", b"%40", b"?", b";", b"%", b"//"]
        ),
        max_size=8,
    ).map(b"".join),
)


@given(TARGETS)
@example(b"/%C3%A9%40")
def test_an_accepted_path_encodes_back_to_itself_and_hides_nothing(target: bytes) -> None:
    try:
        read = parse_target(target)
    except RequestRejected:
        return
    # the only freedom left is whether a reserved character such as `@` is sent encoded
    assert quote(read.path, safe=PCHAR) == quote(unquote_to_bytes(read.raw_path), safe=PCHAR)
    assert read.path.startswith("/")
    assert "//" not in read.path
    assert not {"", ".", ".."} & set(read.path.strip("/").split("/")) or read.path == "/"
    assert not set(read.path) & set("\\;\x00\x1f\x7f")
    assert b"%2" not in read.raw_path.upper() or b"%2E" not in read.raw_path.upper()
    again = parse_target(read.raw_path + (b"?" + read.query if read.query else b""))
    assert again == read


@given(st.binary(max_size=60))
def test_a_host_is_read_or_refused(value: bytes) -> None:
    try:
        host = Host.parse(value)
    except RequestRejected:
        return
    assert host.name == host.name.lower()
    assert host.port is None or 0 < host.port < 65536


@given(st.lists(st.tuples(st.binary(max_size=12), st.binary(max_size=12)), max_size=6))
def test_fields_are_read_or_refused(fields: list[tuple[bytes, bytes]]) -> None:
    try:
        read = read_fields(fields, SINGLE_FIELDS)
    except RequestRejected:
        return
    assert set(read) == {name.lower() for name, _ in fields}
