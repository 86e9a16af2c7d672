"""Judge an answer: refused, accepted or inconclusive.

1. An attack passes the service's test only if it was refused where it had to be, and for the
   right reason.
2. Without a good control call before and after, nothing is known: inconclusive, never a pass.
3. The reason is looked up in the service's audit log by the id that the refusal carries; the wire
   does not tell it.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum

from zerotrust.probe.catalogue import Attack, Layer
from zerotrust.probe.deliver import Answer


class Outcome(StrEnum):
    """What an attack came to."""

    REFUSED = "refused"
    ACCEPTED = "ACCEPTED"
    MISPLACED = "REFUSED ELSEWHERE"
    INCONCLUSIVE = "INCONCLUSIVE"


@dataclass(frozen=True, slots=True)
class Verdict:
    """The outcome and what was seen."""

    outcome: Outcome
    seen: str
    reason: str = ""


def judge(attack: Attack, answer: Answer, reasons_by_id: Mapping[str, str]) -> Verdict:
    """Hold one answer against what the attack had to meet."""
    if answer.status is None:
        expected = attack.layer in {Layer.HANDSHAKE, Layer.SERVER}
        outcome = Outcome.REFUSED if expected else Outcome.MISPLACED
        return Verdict(outcome, f"connection refused: {answer.detail}")
    if answer.status < 400:  # noqa: PLR2004 - any success or redirect
        return Verdict(Outcome.ACCEPTED, f"HTTP {answer.status}")
    found = problem_id(answer)
    reason = reasons_by_id.get(found, "") if found else ""
    seen = f"HTTP {answer.status}"
    if attack.layer is Layer.HANDSHAKE:
        return Verdict(Outcome.MISPLACED, seen, reason)
    if reason:
        expected = reason in attack.reasons and answer.status in attack.statuses
    else:
        expected = attack.layer is Layer.SERVER or answer.status in attack.statuses
    return Verdict(Outcome.REFUSED if expected else Outcome.MISPLACED, seen, reason)


def is_honest(answer: Answer) -> bool:
    """Whether a control call was served."""
    return answer.status is not None and 200 <= answer.status < 300  # noqa: PLR2004 - success


def problem_id(answer: Answer) -> str:
    """Return the id a problem+json refusal carries, or nothing."""
    if answer.header("content-type") != "application/problem+json":
        return ""
    try:
        problem = json.loads(answer.body)
    except (ValueError, RecursionError):
        return ""
    found = problem.get("id") if isinstance(problem, dict) else None
    return found if isinstance(found, str) else ""
