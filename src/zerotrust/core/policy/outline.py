"""Where the tables and keys of a TOML text stand, and how large it is, before TOML is parsed.

1. `tomllib` tells no line for a key, recurses on brackets and takes quadratic time over dotted
   keys: so the bounds are kept here, over the bare text, in one linear pass.
2. The pass stays in step with TOML up to the point where TOML itself stops with an error.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Final

MAX_DEPTH: Final = 4  # of brackets
MAX_DOTTED: Final = 8  # parts of one key

_LEXEME: Final = re.compile(
    r"""
      \"{3}(?:[^"\\]|\\.|"{1,2}(?!"))*+"{3,5}    # multi-line: the last two quotes may be content
    | '{3}(?:[^']|'{1,2}(?!'))*+'{3,5}
    | \"{3} | '{3}                               # ... not terminated
    | "(?:[^"\\\n]|\\[^\n])*+" | '[^'\n]*+'
    | ["']
    | [#][^\n]*+
    | [^\s"'#=.\[\]{}]++
    | [=.\[\]{}\n]
    """,
    re.DOTALL | re.VERBOSE,
)
_UNTERMINATED: Final = frozenset(('"""', "'''", '"', "'"))


class Sprawl(Exception):
    """The bare text goes beyond a bound."""

    def __init__(self, line: int, problem: str) -> None:
        super().__init__(problem)
        self.line = line


def refuse_sprawl(text: str, *, most_tables: int) -> None:
    """Raise Sprawl where the text has too many tables, too deep brackets or too long keys."""
    depth = dots = tables = 0
    before = ""
    for line, lexeme in _lexemes(text):
        if lexeme in "[{":
            depth += 1
            tables += lexeme == before == "["
        elif lexeme in "]}":
            depth = max(0, depth - 1)
        elif lexeme == ".":
            dots += 1
        elif lexeme in "=\n":
            dots = 0
        before = lexeme
        if depth > MAX_DEPTH:
            raise Sprawl(line, f"brackets nested more than {MAX_DEPTH} deep")
        if dots >= MAX_DOTTED:
            raise Sprawl(line, f"a key of more than {MAX_DOTTED} parts")
        if tables > most_tables:
            raise Sprawl(line, f"more than {most_tables} tables")


def line_of(text: str, at: tuple[str | int, ...]) -> int:
    """Return the line of the key `at` leads to, as ("allow", 3, "from", 1), or the nearest one."""
    if len(at) > 1 and isinstance(at[1], int):
        ordinal, key = at[1], at[2:3]
    else:
        ordinal, key = 0, at[1:2]
    nearest, seen, inside, top = 1, -1, False, True
    for line, mark, parts in outline(text):
        if mark != "=":
            top = False
            header = tuple(parts[:1]) == at[:1]
            seen += header
            inside = header and seen == ordinal
            nearest = line if inside else nearest
        elif (inside and tuple(parts[:1]) == key) or (top and tuple(parts) == at):
            return line
        elif top and tuple(parts[:1]) == at[:1]:
            nearest = line
    return nearest


def outline(text: str) -> Iterator[tuple[int, str, list[str]]]:
    """Yield (line, mark, parts of the key): each table header (`[` or `[[`) and key (`=`)."""
    depth = 0
    mark, parts = "", list[str]()  # of the statement at hand; its mark is `=` from there to its end
    for line, lexeme in _lexemes(text):
        depth += (lexeme in "[{") - (lexeme in "]}")
        if lexeme == "\n" and depth <= 0:
            depth, mark, parts = 0, "", []
        elif mark == "=" or lexeme[0] in "#.\n":
            continue
        elif lexeme in "[{":
            mark += lexeme
        elif lexeme == "=" or (lexeme in "]}" and depth == 0):
            mark = lexeme if lexeme == "=" else mark
            yield line, mark, parts
        elif lexeme not in "]}":
            parts.append(lexeme.strip("\"'"))


def _lexemes(text: str) -> Iterator[tuple[int, str]]:
    line = 1
    for match in _LEXEME.finditer(text):
        lexeme = match[0]
        if lexeme in _UNTERMINATED:
            return
        yield line, lexeme
        line += lexeme.count("\n")
