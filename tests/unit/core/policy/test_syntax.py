from __future__ import annotations

import pytest

from zerotrust.core.errors import BadPolicy
from zerotrust.core.mode import Mode
from zerotrust.core.policy import outline, syntax
from zerotrust.core.policy.model import Policy
from zerotrust.core.policy.syntax import MAX_BYTES, format_policy, parse_policy

GOOD = """\
schema = 1
service = "orders"                       # a comment, with "quotes" and [[brackets]]
trust_domain = "corp.example"
mode = "enforce"
federated = ["partner.example"]

[alias]
checkout = "ns/prod/sa/checkout"
batch    = 'ns/prod/batch/*'

[open]
routes = ["GET /healthz"]

[[allow]]
id = "orders-read"
owner = "team-orders"
from = ["checkout", "batch", "spiffe://partner.example/audit"]
to   = [
  "GET /orders/{id}",
  "grpc:orders.v1.Orders/Get",
]

[[allow]]
id = "orders-write"
from = ["checkout"]
to   = ["POST /orders"]
token = "proof"

[[deny]]
id = "no-batch"
from = ["batch"]
to   = ["*"]

[[test]]
name = "checkout reads"
as = "checkout"
do = "GET /orders/42"
want = "allow:orders-read"

[[test]]
name = "traversal never helps"
as = "spiffe://partner.example/audit"
do = "GET /orders/..%2fadmin"
token = "proof"
want = "deny:path.ambiguous"
"""

HEAD = 'schema = 1\nservice = "s"\ntrust_domain = "t"\nmode = "enforce"\n'


def parse(text: str) -> Policy:
    return parse_policy(text.encode())


def refusal(text: str | bytes) -> str:
    with pytest.raises(BadPolicy) as caught:
        parse_policy(text.encode() if isinstance(text, str) else text)
    return caught.value.detail


def test_a_policy_is_read_with_its_aliases_replaced() -> None:
    policy = parse(GOOD)
    read, write = policy.allow
    assert read.principals == (
        "ns/prod/sa/checkout",
        "ns/prod/batch/*",
        "spiffe://partner.example/audit",
    )
    assert (read.owner, read.token) == ("team-orders", Mode.BOUND)
    assert (write.owner, write.token) == (None, Mode.PROOF)
    assert policy.deny[0].routes == ("*",)
    assert policy.open_routes == ("GET /healthz",)
    assert policy.tests[0].principal == "ns/prod/sa/checkout"
    caller = policy.trust_domain.id("ns/prod/sa/checkout")
    assert policy.decide(caller, "GET", "/orders/42", Mode.BOUND).rule == "orders-read"


def test_what_is_written_reads_back_the_same() -> None:
    policy = parse(GOOD)
    text = format_policy(policy)
    assert parse(text) == policy
    assert parse(text).digest == policy.digest
    assert format_policy(parse(text)) == text


def test_what_is_not_said_is_not_written() -> None:
    text = HEAD + '\n[[allow]]\nid = "a"\nfrom = ["web"]\nto = ["GET /"]\n'
    text += '\n[[test]]\nname = "t"\nas = "web"\ndo = "GET /"\nwant = "allow"\n'
    assert format_policy(parse(text)) == text


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        # one line of GOOD changed: what is said begins with file, line and key
        ("schema = 1", "schema = 2", ":1: schema: must be 1"),
        ("schema = 1", "schema = true", ":1: schema: must be 1"),
        ("schema = 1\n", "", ":1: schema: must be 1"),
        ('service = "orders"', "service = 7", ":2: service: "),
        ('service = "orders"', 'service = ""', ":2: service: "),
        ('service = "orders"', 'service = "a\\nb"', ":2: service: "),
        ('"corp.example"', '"Corp.example"', ":3: trust_domain: "),
        ('"corp.example"', '"spiffe://corp.example"', ":3: trust_domain: "),
        ('mode = "enforce"', 'mode = "report"', ":4: mode: report is not built"),
        ('mode = "enforce"', 'mode = "off"', ":4: mode: "),
        ('mode = "enforce"', "", ":1: mode: "),
        ('["partner.example"]', '["partner.example", "x.example"]', ":5: federated: no rule names"),
        ('["partner.example"]', '["partner.example", "partner.example"]', ":5: federated: "),
        ('["partner.example"]', '["*"]', ":5: federated[1]: "),
        ('["partner.example"]', "[]", ":5: federated: is empty"),
        ('federated = ["partner.example"]', "", ":17: allow[1].from[3]: "),
        ('federated = ["partner.example"]', "max_staleness = 3", ":5: max_staleness: no such key"),
        ("checkout = ", "che.ckout = ", ":8: alias.che: "),
        ("checkout = ", '"check out" = ', ":8: alias.check out: "),
        ('"ns/prod/sa/checkout"', '"ns//checkout"', ":8: alias.checkout: "),
        ('"ns/prod/sa/checkout"', "[]", ":8: alias.checkout: "),
        ('[open]\nroutes = ["GET /healthz"]', "[open]", ":11: open: is empty"),
        ("[open]\nroutes", "open", ":11: alias.open: "),
        ("[open]", "[opened]", ":11: opened: no such key"),
        ("[open]", "[[open]]", ":11: open: must be a table"),
        ("routes = [", "paths = [", ":12: open.paths: no such key"),
        ('"GET /healthz"', '"GET /healthz/{x}"', ":12: open.routes[1]: "),
        ('["GET /healthz"]', '["GET /h", "GET /h"]', ":12: open.routes[2]: "),
        ('id = "orders-read"', "", ":14: allow[1].id: is missing"),
        ('id = "orders-read"', 'id = "orders-write"', ":24: allow[2].id: "),
        ('id = "orders-read"', 'id = "orders read"', ":15: allow[1].id: "),
        ('owner = "team-orders"', 'owner = ""', ":16: allow[1].owner: "),
        ('owner = "team-orders"', 'scopes = ["x"]', ":16: allow[1].scopes: no such key"),
        ('owner = "team-orders"', 'when = { utc = "x" }', ":16: allow[1].when: no such key"),
        (
            'from = ["checkout", "batch", ',
            'from = ["chekout", "batch", ',
            ":17: allow[1].from[1]: ",
        ),
        ('from = ["checkout"]', 'from = "checkout"', ":25: allow[2].from: must be a list"),
        ('from = ["checkout"]', "from = []", ":25: allow[2].from: is empty"),
        ('from = ["checkout"]', "from = [1]", ":25: allow[2].from: must be a list"),
        ('"GET /orders/{id}"', '"GET orders"', ":18: allow[1].to[1]: "),
        ('to   = ["POST /orders"]', "", ":23: allow[2].to: is missing"),
        ('["POST /orders"]', '["*"]', ":26: allow[2].to[1]: only deny rules"),
        ('token = "proof"\n\n[[deny]]', 'token = "bearer"\n\n[[deny]]', ":27: allow[2].token: "),
        ('token = "proof"\n\n[[deny]]', 'token = "sealed"\n\n[[deny]]', ":27: allow[2].token: "),
        ('to   = ["*"]', 'to   = ["*"]\ntoken = "proof"', ":33: deny[1].token: no such key"),
        ('as = "checkout"', 'as = "batch"', ":36: test[1].as: "),
        ('as = "checkout"', 'as = "nobody"', ":36: test[1].as: "),
        ('do = "GET /orders/42"', 'do = "orders"', ":37: test[1].do: "),
        ('"allow:orders-read"', '"allow:no-batch"', ":38: test[1].want: "),
        ('"deny:path.ambiguous"', '"deny:whatever"', ":45: test[2].want: "),
        ('want = "allow:orders-read"', 'wants = "allow"', ":38: test[1].wants: no such key"),
        ("[[deny]]", "[deny]", ":29: deny: must be tables"),
        ("[[deny]]", "[[denied]]", ":29: denied: no such key"),
    ],
)
def test_a_fault_names_file_line_and_key(old: str, new: str, said: str) -> None:
    assert GOOD.count(old) >= 1
    assert refusal(GOOD.replace(old, new, 1)).startswith(f"policy.toml{said}")


def test_an_alias_that_no_rule_uses_is_refused() -> None:
    text = GOOD.replace("[open]", 'spare = "ns/x"\n[open]')
    assert refusal(text).startswith("policy.toml:11: alias.spare: no rule uses this alias")


def test_a_test_alone_does_not_use_an_alias() -> None:
    text = GOOD.replace("[open]", 'spare = "ns/x"\n[open]').replace(
        'as = "checkout"', 'as = "spare"'
    )
    assert "alias.spare: no rule uses" in refusal(text)


def test_a_lone_word_is_a_path_where_there_are_no_aliases() -> None:
    text = HEAD + '[[allow]]\nid="a"\nfrom=["web"]\nto=["GET /"]'
    assert parse(text).allow[0].principals == ("web",)
    aliased = text.replace("[[allow]]", '[alias]\nx="y"\n[[allow]]').replace(
        '["web"]', '["x", "web"]'
    )
    assert "no alias here; a caller of that name is spiffe://t/web" in refusal(aliased)
    assert len(parse(aliased.replace('"web"', '"spiffe://t/web"')).allow[0].principals) == 2


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("schema = 1\nschema = 1", ":2: not TOML: "),
        ("schema = ", ":1: not TOML: "),
        ('a = "x', ":1: not TOML: "),
        ("a = '''x\n\n", ":3: not TOML: "),
        ("[[allow]\n", ":1: not TOML: "),
        ('a = "x\n[a' + ".a" * 9 + "]", ":1: not TOML: "),
        (b"schema = 1\n\xff", ":2: not UTF-8"),
        ("\n\na = [[[[[1]]]]]", ":3: brackets nested"),
        ("a = " + "[" * 100_000, ":1: brackets nested"),
        ("a = " + "{a=" * 100_000, ":1: brackets nested"),
        ("a" + ".a" * 100_000 + " = 1", ":1: a key of more than 8 parts"),
        ('"a"' + ".'a'" * 9 + " = 1", ":1: a key of more than 8 parts"),
        ("[a" + ".a" * 9 + "]", ":1: a key of more than 8 parts"),
        ("x = {a" + ".a" * 9 + "=1}", ":1: a key of more than 8 parts"),
        ("x = '''\n''''\n[a" + ".a" * 9 + "]", ":3: a key of more than 8 parts"),
        ('x = """\n"""""\n[a' + ".a" * 9 + "]", ":3: a key of more than 8 parts"),
        ('x = """\\"""" # """\n[a' + ".a" * 9 + "]", ":2: a key of more than 8 parts"),
    ],
)
def test_text_that_is_no_toml_or_out_of_bounds_is_refused(text: str | bytes, said: str) -> None:
    assert refusal(text).startswith(f"policy.toml{said}")


def test_dots_and_brackets_inside_of_texts_are_only_text() -> None:
    comment = "# [[[[[[ a.a.a.a.a.a.a.a.a.a.a ''' \"\"\"\n"
    owner = 'owner = "[[[[[[ a.a.a.a.a.a.a.a.a.a.a"'
    assert parse(comment + GOOD.replace('owner = "team-orders"', owner)).allow == (
        parse(GOOD.replace('owner = "team-orders"', owner)).allow
    )


def test_a_text_that_is_too_long_is_not_even_decoded() -> None:
    assert "at most" in refusal(b"\xff" * (MAX_BYTES + 1))


def test_a_text_may_be_as_long_as_its_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(syntax, "MAX_BYTES", len(GOOD))
    assert parse(GOOD)
    assert "at most" in refusal(GOOD + "\n")


@pytest.mark.parametrize("tables", ["3", '["x"]', "{ id = 1 }"])
def test_rules_that_are_no_tables_are_refused(tables: str) -> None:
    assert refusal(f"{HEAD}deny = {tables}").startswith("policy.toml:5: deny: must be tables")


@pytest.mark.parametrize(
    ("most", "more"),
    [
        ("a = [[[[1]]]]", "a = [[[[[1]]]]]"),
        ("a" + ".a" * 7 + " = 1", "a" + ".a" * 8 + " = 1"),
        ("a.a = 1\n" * 9, "a.a = 1\n" * 9 + "[" + "a." * 8 + "a]"),
        ("a = [1.5\n, 1.5\n]" * 5, "a = [1" + ".5" * 8 + "]"),
    ],
    ids=["brackets", "dots", "dots of many keys", "dots of many numbers"],
)
def test_the_bare_text_is_bounded_to_the_last_bracket_and_dot(most: str, more: str) -> None:
    outline.refuse_sprawl(most, most_tables=99)
    with pytest.raises(outline.Sprawl):
        outline.refuse_sprawl(more, most_tables=99)


@pytest.mark.parametrize(
    ("text", "keys"),
    [
        ("a.b = 1", [(1, "=", ["a", "b"])]),
        ("[[a]] # x\nb = 2", [(1, "[[", ["a"]), (2, "=", ["b"])]),
        ("# x\na = [\n{ b = 1 },\n]\nc = 2", [(2, "=", ["a"]), (5, "=", ["c"])]),
    ],
)
def test_the_outline_holds_the_keys_that_stand_in_no_bracket(
    text: str, keys: list[tuple[int, str, list[str]]]
) -> None:
    assert list(outline.outline(text)) == keys


def test_a_key_of_the_file_is_not_looked_for_in_its_tables() -> None:
    assert outline.line_of("a = 1\nb = 1\n[t]\nb = 1", ("b",)) == 2
    assert outline.line_of("a = 1\n[t]\nb = 1", ("b",)) == 1
    assert outline.line_of("a = 1\n[t]\nb.x = 1", ("b", "y")) == 1
    assert outline.line_of("a.x = 1\na.y = 1", ("a", "x")) == 1


def test_tables_are_counted_before_parsing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(syntax, "MAX_RULES", 2)
    monkeypatch.setattr(syntax, "MAX_TESTS", 2)
    assert parse("# [[x]] [[x]]\n" + GOOD.rpartition("[[test]]")[0])
    assert refusal(GOOD).startswith("policy.toml:40: more than 4 tables")


@pytest.mark.parametrize(
    ("bound", "said"), [("MAX_RULES", "allow: 2 of"), ("MAX_TESTS", "test: 2 of")]
)
def test_rules_and_tests_are_counted_once_parsed(
    monkeypatch: pytest.MonkeyPatch, bound: str, said: str
) -> None:
    monkeypatch.setattr(syntax, bound, 1)
    assert said in refusal(GOOD)


def test_a_recursion_error_is_a_refusal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(outline, "MAX_DEPTH", 10**9)
    assert "nested too deeply" in refusal("a = " + "[" * 100_000)


def test_a_fault_in_an_inline_array_of_tables_names_the_line_of_its_key() -> None:
    text = HEAD + '\nallow = [{id="a", from=[], to=["GET /"]}]'
    assert refusal(text).startswith("policy.toml:6: allow[1].from: is empty")


def test_a_control_character_of_the_file_never_reaches_the_message() -> None:
    said = refusal(GOOD.replace('"POST /orders"', '"POST /\\u001b[31mx"'))
    assert "\x1b" not in said
    assert "\\x1b" in said


@pytest.mark.slow
def test_a_hundred_thousand_rules_load_within_the_time_of_a_test() -> None:
    rules = (
        f'[[allow]]\nid="r{n}"\nfrom=["s/{n}"]\nto=["GET /{n}/{{x}}"]\n' for n in range(100_000)
    )
    policy = parse(HEAD + "".join(rules))
    assert len(policy.allow) == 100_000
