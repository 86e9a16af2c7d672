"""Run attacks against a live service, each between two honest calls."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass

from zerotrust.probe.attacks import certificates, proofs, requests, tokens
from zerotrust.probe.catalogue import Attack, Material
from zerotrust.probe.deliver import deliver
from zerotrust.probe.verdict import Outcome, Verdict, is_honest, judge

ATTACKS: tuple[Attack, ...] = (
    *certificates.ATTACKS,
    *tokens.ATTACKS,
    *proofs.ATTACKS,
    *requests.ATTACKS,
)


@dataclass(frozen=True, slots=True)
class Result:
    """One attack and its verdict."""

    attack: Attack
    verdict: Verdict


def run(
    address: tuple[str, int],
    material: Callable[[], Material],
    *,
    attacks: Iterable[Attack] = ATTACKS,
    reasons_by_id: Callable[[], Mapping[str, str]] = dict,
) -> Iterator[Result]:
    """Yield a result per attack. `material` is asked anew for each, so that time goes on."""
    honest = deliver(address, material().call())
    for attack in attacks:
        if not is_honest(honest):
            yield Result(attack, Verdict(Outcome.INCONCLUSIVE, "the honest call before it failed"))
            honest = deliver(address, material().call())
            continue
        *before, last = attack.make(material())
        prepared = [deliver(address, delivery) for delivery in before]
        answer = deliver(address, last)
        honest = deliver(address, material().call())
        if not all(map(is_honest, prepared)):
            verdict = Verdict(Outcome.INCONCLUSIVE, "the first, honest use was refused")
        elif not is_honest(honest):
            verdict = Verdict(Outcome.INCONCLUSIVE, "the honest call after it failed")
        else:
            verdict = judge(attack, answer, reasons_by_id())
        yield Result(attack, verdict)
