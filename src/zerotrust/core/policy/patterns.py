"""What a rule may say about callers and routes: the grammar of its texts, and what each covers.

1. A pattern is compared segment by segment. Nothing a user writes ever becomes a regular
   expression.
2. A caller is named by a path in the policy's own trust domain (`ns/prod/sa/web`; `*` is one whole
   segment, a last `...` any tail of one or more) or by a full SPIFFE ID, which is always literal.
3. A route is `METHOD /path`, `WS /path`, `grpc:package.Service/Method`, or `*` for everything.
   `{name}` is one non-empty segment; a last `{name...}` is one or more, the last of which may be
   empty; a trailing slash counts.
4. The path of a route is written as in a URL and must be what the request filter would accept:
   what the filter refuses can never be called, so a rule that names it is a mistake.
5. `covers` reads one pattern at a time, for explanations; the index must agree with it.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from zerotrust.core.errors import BadPolicy, BadSpiffeId
from zerotrust.core.spiffe.ids import SpiffeId, TrustDomain

WEBSOCKET: Final = "WS"
GRPC: Final = "grpc"
ANY: Final = "*"
MAX_TEXT: Final = 2048  # characters of one principal or route
MAX_SEGMENTS: Final = 64

Segments = tuple[str | None, ...]  # None stands for any one segment

_SEGMENT: Final = re.compile(r"[A-Za-z0-9._-]+", re.ASCII)
_METHOD: Final = re.compile(r"[A-Z](?:[A-Z-]{0,30}[A-Z])?", re.ASCII)
_PARAMETER: Final = re.compile(r"\{[A-Za-z_][A-Za-z0-9_]{0,63}(\.\.\.)?\}", re.ASCII)
_PATH_TEXT: Final = re.compile(r"(?:[A-Za-z0-9._~!$&'()+,=:@-]|%[0-9A-F]{2})*", re.ASCII)
_PERCENT: Final = re.compile(r"%([0-9A-F]{2})", re.ASCII)
_DOUBLE_ENCODED: Final = re.compile(r"%25[0-9A-Fa-f]{2}", re.ASCII)
_NEVER_ENCODED: Final = re.compile(rb"[A-Za-z0-9._~\x00-\x1f\x7f/\\;-]")  # by the request filter
_GRPC_NAME: Final = re.compile(
    r"[A-Za-z_][A-Za-z0-9_]*(?:\.[A-Za-z_][A-Za-z0-9_]*)*/(?:[A-Za-z_][A-Za-z0-9_]*|\*)", re.ASCII
)


class PolicyFault(BadPolicy):
    """A BadPolicy that still has to learn its file and line; `at` is the way to the key."""

    def __init__(self, problem: str, *at: str | int) -> None:
        super().__init__(f"{_way(at)}: {problem}" if at else problem)
        self.problem = problem
        self.at = at

    def under(self, *at: str | int) -> PolicyFault:
        """Return the same fault, seen from further out."""
        return PolicyFault(self.problem, *at, *self.at)


@dataclass(frozen=True, slots=True)
class PrincipalPattern:
    """Callers of one trust domain, by the segments of their path."""

    trust_domain: TrustDomain
    segments: Segments
    tail: bool = False

    def covers(self, principal: SpiffeId) -> bool:
        """Whether this pattern names that caller."""
        return principal.trust_domain == self.trust_domain and _covers(
            self.segments, principal.segments, tail=self.tail
        )


@dataclass(frozen=True, slots=True)
class RoutePattern:
    """Calls of one method (`*`: any HTTP method), by the segments of their path."""

    method: str
    segments: Segments = ()
    tail: bool = False

    @property
    def everything(self) -> bool:
        """Whether this is the lone `*`, which covers WebSocket and gRPC calls too."""
        return self.method == ANY and not self.segments and not self.tail

    def covers(self, method: str, path: str) -> bool:
        """Whether this template covers that call; `path` is decoded once and canonical."""
        if self.everything:
            return True
        if self.method != method and (self.method != ANY or method in {WEBSOCKET, GRPC}):
            return False
        segments = path_segments(method, path)
        return segments is not None and _covers(self.segments, segments, tail=self.tail)


def parse_principal(text: str, own: TrustDomain) -> PrincipalPattern:
    """Read one entry of `from`, aliases already replaced; raise PolicyFault."""
    _bounded(text)
    if "://" in text:
        return _full_id(text)
    segments = text.split("/")
    tail = segments[-1] == "..."
    parsed: list[str | None] = []
    for segment in segments[: len(segments) - tail]:
        if segment == ANY:
            parsed.append(None)
        elif segment in {"", ".", "..", "..."} or not _SEGMENT.fullmatch(segment):
            raise PolicyFault(f"{shown(text)} is no caller: {_segment_help(segment)}")
        else:
            parsed.append(segment)
    return PrincipalPattern(own, _counted(parsed, text), tail)


def parse_route(text: str) -> RoutePattern:
    """Read one entry of `to` or `routes`; raise PolicyFault."""
    _bounded(text)
    if text == ANY:
        return RoutePattern(ANY)
    if text.startswith("grpc:"):
        name = text.removeprefix("grpc:")
        if not _GRPC_NAME.fullmatch(name):
            raise PolicyFault(f"{shown(text)}: write grpc:package.Service/Method, or /* for all")
        service, _, method = name.partition("/")
        return RoutePattern(GRPC, (service, None if method == ANY else method))
    method, space, path = text.partition(" ")
    if not space or not path.startswith("/"):
        raise PolicyFault(
            f'{shown(text)} is no route: write "GET /path" or "grpc:pkg.Service/Method"'
        )
    if method != ANY and not _METHOD.fullmatch(method):
        raise PolicyFault(f"{shown(method)} is no method: write it in capitals, or * for any")
    segments, tail = _path_template(path, text)
    return RoutePattern(method, segments, tail)


def parse_caller(text: str, own: TrustDomain) -> SpiffeId:
    """Read one caller: a path of our own trust domain or a full ID; raise PolicyFault."""
    pattern = parse_principal(text, own)
    literal = tuple(segment for segment in pattern.segments if segment is not None)
    if pattern.tail or len(literal) != len(pattern.segments):
        raise PolicyFault(f"{shown(text)} is a pattern; name one caller")
    return SpiffeId(pattern.trust_domain, literal)


def split_call(text: str) -> tuple[str, str]:
    """Split a call, written as `GET /orders/7?x=1`, into method and target; raise PolicyFault."""
    if text.startswith("grpc:"):
        return GRPC, text.removeprefix("grpc:")
    method, _, target = text.partition(" ")
    if not _METHOD.fullmatch(method) or not target.startswith("/"):
        raise PolicyFault(
            f'{shown(text)} is no call: write "GET /path" or "grpc:pkg.Service/Method"'
        )
    return method, target


def path_segments(method: str, path: str) -> list[str] | None:
    """Split a decoded path as all comparisons do; None is a path that no template covers."""
    if method == GRPC:
        return path.split("/")
    return path[1:].split("/") if path[:1] == "/" else None


def shown(text: object) -> str:
    """Return a short ASCII form for messages."""
    whole = str(text)
    return ascii(whole[:80]) + ("..." if len(whole) > 80 else "")  # noqa: PLR2004 - a line's worth


def _way(at: Sequence[str | int]) -> str:
    return "".join(f"[{step + 1}]" if isinstance(step, int) else f".{step}" for step in at)[1:]


def _covers(pattern: Segments, segments: Sequence[str], *, tail: bool) -> bool:
    if len(segments) <= len(pattern) if tail else len(segments) != len(pattern):
        return False
    return all(
        bool(segment) if wanted is None else wanted == segment
        for wanted, segment in zip(pattern, segments, strict=False)
    )


def _bounded(text: str) -> None:
    if not text or len(text) > MAX_TEXT:
        raise PolicyFault(f"{shown(text)} must have 1 to {MAX_TEXT} characters")


def _counted(segments: list[str | None], text: str) -> Segments:
    if len(segments) > MAX_SEGMENTS:
        raise PolicyFault(f"{shown(text)} has more than {MAX_SEGMENTS} segments")
    return tuple(segments)


def _full_id(text: str) -> PrincipalPattern:
    try:
        principal = SpiffeId.parse(text)
    except BadSpiffeId as exc:
        raise PolicyFault(f"{shown(text)}: {exc.detail}") from None
    if principal.trust_domain.scheme != "spiffe":
        raise PolicyFault(f"{shown(text)}: only spiffe:// identities call this service")
    if "..." in principal.segments:
        raise PolicyFault(
            f"{shown(text)}: a full ID is literal; patterns are paths of our own domain"
        )
    return PrincipalPattern(principal.trust_domain, _counted(list(principal.segments), text))


def _segment_help(segment: str) -> str:
    if not segment:
        return "no leading, trailing or double slash"
    if segment == "...":
        return "... stands only at the end"
    if ANY in segment:
        return "* is one whole segment"
    return "segments are made of A-Z a-z 0-9 . _ -"


def _path_template(path: str, text: str) -> tuple[Segments, bool]:
    parts = path[1:].split("/")
    parsed: list[str | None] = []
    for place, part in enumerate(parts):
        last = place == len(parts) - 1
        if part.startswith("{") or part.endswith("}"):
            parameter = _PARAMETER.fullmatch(part)
            if not parameter:
                raise PolicyFault(
                    f"{shown(text)}: {{name}} is one whole segment, {{name...}} a tail"
                )
            if parameter[1]:
                if not last:
                    raise PolicyFault(f"{shown(text)}: {{name...}} stands only at the end")
                return _counted(parsed, text), True
            parsed.append(None)
        elif part or last:
            parsed.append(_decoded(part, text))
        else:
            raise PolicyFault(f"{shown(text)}: a double slash is never accepted in a request")
    return _counted(parsed, text), False


def _decoded(part: str, text: str) -> str:
    if "*" in part:
        raise PolicyFault(f"{shown(text)}: write {{name}} for one segment, {{name...}} for a tail")
    if not _PATH_TEXT.fullmatch(part):
        raise PolicyFault(f"{shown(text)}: percent-encode {shown(part)} as it stands in a URL")
    if part in {".", ".."}:
        raise PolicyFault(f"{shown(text)}: dot segments are never accepted in a request")
    if "%" not in part:
        return part
    codes = bytes(int(code, 16) for code in _PERCENT.findall(part))
    if _NEVER_ENCODED.search(codes) or _DOUBLE_ENCODED.search(part):
        raise PolicyFault(
            f"{shown(text)}: the request filter refuses the encoding in {shown(part)}"
        )
    try:
        return _PERCENT.sub(lambda code: chr(int(code[1], 16)), part).encode("latin-1").decode()
    except UnicodeDecodeError:
        raise PolicyFault(f"{shown(text)}: {shown(part)} is not UTF-8 once decoded") from None
