from __future__ import annotations

import pytest

from support.tokens import nested
from zerotrust.core.errors import MalformedError, Reason
from zerotrust.core.jose import b64url_decode, b64url_encode, parse_json_object
from zerotrust.core.jose.encoding import parse_claims


@pytest.mark.parametrize(
    ("data", "text"),
    [(b"", ""), (b"\0", "AA"), (b"\xff\xfe", "__4"), (b"foo", "Zm9v"), (b"\xfb\xff\xbf", "-_-_")],
)
def test_base64url_has_one_spelling_in_both_directions(data: bytes, text: str) -> None:
    assert b64url_encode(data) == text
    assert b64url_decode(text) == data
    assert b64url_decode(text.encode()) == data


@pytest.mark.parametrize(
    "text",
    [
        pytest.param("AA==", id="padding"),
        pytest.param("AAA=", id="one padding"),
        pytest.param("AB", id="spare bits of two"),
        pytest.param("AAB", id="spare bits of three"),
        pytest.param("A", id="impossible length"),
        pytest.param("+/+/", id="the standard alphabet"),
        pytest.param("AAAA\n", id="line feed at the end"),
        pytest.param("AA\nAA", id="line feed inside"),
        pytest.param(" AAAA", id="space"),
        pytest.param("AA*A", id="a character of no alphabet"),
        pytest.param("AAéA", id="not ASCII"),
        pytest.param("AA\0A", id="NUL"),
    ],
)
def test_any_other_base64_is_refused(text: str) -> None:
    with pytest.raises(MalformedError) as caught:
        b64url_decode(text)
    assert caught.value.reason is Reason.BAD_JSON


def test_a_json_object_is_read_from_bytes_and_from_text() -> None:
    expected = {"a": [1, -2.5, True, None, "é\n"], "b": {"c": {}}}
    text = ' {"a": [1, -2.5, true, null, "\\u00e9\\n"], "b": {"c": {}}}\n'
    assert parse_json_object(text, max_bytes=100) == expected
    assert parse_json_object(text.encode(), max_bytes=100) == expected
    assert parse_claims(text.encode()) == expected


AMBIGUOUS = [
    pytest.param(b'{"a":1,"a":1}', id="a member twice"),
    pytest.param(b'{"a":1,"\\u0061":2}', id="a member twice, once escaped"),
    pytest.param(b'{"a":{"b":1,"b":2}}', id="a member twice in a nested object"),
    pytest.param(b'{"a":NaN}', id="NaN"),
    pytest.param(b'{"a":Infinity}', id="Infinity"),
    pytest.param(b'{"a":-Infinity}', id="minus Infinity"),
    pytest.param(b'{"a":1e400}', id="a float that overflows"),
    pytest.param(b'{"a":-1e400}', id="a negative float that overflows"),
    pytest.param(b'{"a":' + b"9" * 5000 + b"}", id="an integer of 5000 digits"),
    pytest.param(b'{"a":"\\ud800"}', id="a lone surrogate"),
    pytest.param(b'{"\\udfff":1}', id="a lone surrogate as a name"),
    pytest.param(b'\xef\xbb\xbf{"a":1}', id="a BOM"),
    pytest.param('{"a":1}'.encode("utf-16"), id="UTF-16"),
    pytest.param('{"a":1}'.encode("utf-32"), id="UTF-32"),
    pytest.param(b'{"a":"\xff"}', id="invalid UTF-8"),
    pytest.param(b'{"a":"\xed\xa0\x80"}', id="a surrogate in UTF-8"),
    pytest.param(b'{"a":"\xc0\xaf"}', id="overlong UTF-8"),
    pytest.param(b'{"a":1}{"b":2}', id="two objects"),
    pytest.param(b'{"a":1},', id="a trailing comma"),
    pytest.param(b"[1]", id="an array"),
    pytest.param(b'"a"', id="a string"),
    pytest.param(b"null", id="null"),
    pytest.param(b"", id="nothing"),
    pytest.param(b"{", id="half an object"),
    pytest.param(b'{"a":01}', id="a leading zero"),
    pytest.param(b'{"a":"\n"}', id="a control character in a string"),
    pytest.param(b"{'a':1}", id="single quotes"),
    pytest.param(b'{"a":' + nested(8).encode() + b"}", id="nine levels"),
    pytest.param(b'{"a":' + nested(2000).encode() + b"}", id="two thousand levels"),
]


@pytest.mark.parametrize("data", AMBIGUOUS)
def test_json_that_parsers_could_read_differently_is_refused(data: bytes) -> None:
    with pytest.raises(MalformedError) as caught:
        parse_json_object(data, max_bytes=10_000)
    assert caught.value.reason is Reason.BAD_JSON
    with pytest.raises(MalformedError):
        parse_claims(data)


def test_a_lone_surrogate_in_text_is_refused() -> None:
    with pytest.raises(MalformedError):
        parse_json_object('{"a":"\ud800"}', max_bytes=100)


def test_a_pair_of_surrogates_is_one_character() -> None:
    assert parse_json_object(b'{"a":"\\ud83d\\ude00"}', max_bytes=100) == {"a": "\U0001f600"}


def test_size_is_bounded_in_bytes_before_anything_is_parsed() -> None:
    assert parse_json_object('{"a":"é"}', max_bytes=10) == {"a": "é"}
    for data in ('{"a":"é"}', '{"a":"é"}'.encode(), '{"a":"éé"}'):
        with pytest.raises(MalformedError, match="more than 9 bytes"):
            parse_json_object(data, max_bytes=9)


@pytest.mark.parametrize("number", [2**53, -(2**53), 0])
def test_integers_keep_their_value(number: int) -> None:
    assert parse_json_object(f'{{"a":{number}}}', max_bytes=100) == {"a": number}


@pytest.mark.parametrize("number", [2**53 + 1, -(2**53) - 1, 10**16, 10**30])
def test_an_integer_that_others_would_round_is_refused(number: int) -> None:
    with pytest.raises(MalformedError, match="beyond"):
        parse_json_object(f'{{"a":{number}}}', max_bytes=100)


def test_claims_leave_integers_to_their_reader() -> None:
    assert parse_claims(b'{"exp":1000000000000000000}') == {"exp": 10**18}


def test_depth_counts_levels_and_not_brackets() -> None:
    assert parse_json_object(b'{"a":' + nested(7).encode() + b"}", max_bytes=100)
    assert parse_json_object(b'{"a":[[],[],[],[],[],[],[],[],[]]}', max_bytes=100)
    assert parse_json_object(b'{"a":"[[[[[[[[[[[","b":"\\"[[[[[[["}', max_bytes=100)
    assert parse_claims(b'{"a":"{{{{{{{{{{{{"}') == {"a": "{" * 12}
    assert parse_json_object(b'{"a":' + nested(7).encode() + b',"b":[]}', max_bytes=100)
    with pytest.raises(MalformedError, match="levels"):  # however shallow it ends
        parse_json_object(b'{"a":' + nested(8).encode() + b',"b":[]}', max_bytes=100)
    with pytest.raises(MalformedError, match="levels"):
        parse_json_object(b'{"a":[1]}', max_bytes=100, max_depth=1)


def test_members_are_counted_before_they_are_built() -> None:
    three = b'{"a":1,"b":[1]}'
    assert parse_json_object(three, max_bytes=100, max_members=2)
    assert parse_json_object(b'{"a":",,,,,,"}', max_bytes=100, max_members=2)
    assert parse_json_object(b'{"a":1,"b":",,"}', max_bytes=100, max_members=2)
    with pytest.raises(MalformedError, match="members"):
        parse_json_object(b'{"a":1,"b":[1,2]}', max_bytes=100, max_members=2)
