"""Which patterns cover a call, found without reading them all.

1. A caller leads to the entries of the patterns that name it, a call to the numbers of its routes.
2. A lookup walks the call's own segments: it costs what the call is long, not what the policy is.
3. An index grows only while its policy is built; then any number of threads may read it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final, Generic, TypeVar

from zerotrust.core.policy.patterns import (
    ANY,
    GRPC,
    WEBSOCKET,
    PrincipalPattern,
    RoutePattern,
    Segments,
    path_segments,
)
from zerotrust.core.spiffe.ids import SpiffeId, TrustDomain

T = TypeVar("T")

_NONE: Final = -1


class PrincipalIndex(Generic[T]):
    """From a caller to the entries (whatever `fresh` makes) of the patterns that name it."""

    def __init__(self, own: TrustDomain, fresh: Callable[[], T]) -> None:
        self._own, self._fresh = own, fresh
        self._literal: dict[str, T] = {}  # by full ID, of any trust domain
        self._patterns = _Node()
        self._entries: list[T] = []  # of the patterns, by number

    def add(self, pattern: PrincipalPattern) -> T:
        """Return the pattern's entry, a fresh one where it is new."""
        if not pattern.tail and None not in pattern.segments:
            path = "/".join(segment or "" for segment in pattern.segments)
            text = f"{pattern.trust_domain}/{path}"
            if text not in self._literal:
                self._literal[text] = self._fresh()
            return self._literal[text]
        number = self._patterns.add(pattern.segments, len(self._entries), tail=pattern.tail)
        if number == len(self._entries):
            self._entries.append(self._fresh())
        return self._entries[number]

    def find(self, principal: SpiffeId) -> list[T]:
        """Return the entries of all patterns that cover this caller."""
        literal = self._literal.get(str(principal))
        found = [] if literal is None else [literal]
        if self._entries and principal.trust_domain == self._own:
            found += [self._entries[number] for number in self._patterns.find(principal.segments)]
        return found


class RouteIndex:
    """From a call's method and path to the numbers of the templates that cover it."""

    def __init__(self) -> None:
        self._roots: dict[str, _Node] = {}
        self._everything = _NONE
        self._count = 0

    def add(self, pattern: RoutePattern) -> int:
        """Return the template's number, whatever its parameters are called."""
        if pattern.everything:
            if self._everything == _NONE:
                self._everything = self._count
            number = self._everything
        else:
            root = self._roots.setdefault(pattern.method, _Node())
            number = root.add(pattern.segments, self._count, tail=pattern.tail)
        self._count += number == self._count
        return number

    def find(self, method: str, path: str) -> Sequence[int]:
        """Return the numbers of all templates that cover this call."""
        found: list[int] = []
        segments = path_segments(method, path)
        if segments is not None:
            root = self._roots.get(method)
            if root is not None:
                found = root.find(segments)
            if method not in (WEBSOCKET, GRPC):
                root = self._roots.get(ANY)
                if root is not None and method != ANY:
                    found += root.find(segments)
        if self._everything != _NONE:
            found.append(self._everything)
        return found


_CHILDLESS: Final[dict[str, _Node]] = {}  # shared by all leaves, never written to


class _Node:
    """A place in a tree of segments; pattern `end` stops here, pattern `tail` takes the rest."""

    __slots__ = ("any", "children", "end", "tail")

    def __init__(self) -> None:
        self.children = _CHILDLESS
        self.any: _Node | None = None
        self.end = _NONE
        self.tail = _NONE

    def add(self, segments: Segments, number: int, *, tail: bool) -> int:
        node = self
        for segment in segments:
            if segment is not None:
                below = node.children.get(segment)
                if below is None:
                    node.children = {} if node.children is _CHILDLESS else node.children
                    below = node.children[segment] = _Node()
            else:
                below = node.any = node.any or _Node()
            node = below
        if tail:
            node.tail = number if node.tail == _NONE else node.tail
            return node.tail
        node.end = number if node.end == _NONE else node.end
        return node.end

    def find(self, segments: Sequence[str]) -> list[int]:
        found: list[int] = []
        here = [self]
        for segment in segments:
            below: list[_Node] = []
            for node in here:
                if node.tail != _NONE:
                    found.append(node.tail)
                child = node.children.get(segment)
                if child is not None:
                    below.append(child)
                if node.any is not None and segment:
                    below.append(node.any)
            if not below:
                return found
            here = below
        found.extend(node.end for node in here if node.end != _NONE)
        return found
