"""A decision costs the same whatever the number of rules."""

from __future__ import annotations

import statistics
import time

from bench.http_server import policy
from bench.rig import Figure
from zerotrust.core.mode import Mode
from zerotrust.core.policy.model import Policy
from zerotrust.core.policy.syntax import parse_policy
from zerotrust.core.spiffe.ids import SpiffeId

CALLER = SpiffeId.parse("spiffe://example.org/web")


def figures(*, quick: bool) -> list[Figure]:
    """Return the medians at few and at many rules, and what loading costs per rule."""
    many_rules = 10_000 if quick else 100_000
    started = time.process_time()
    text = policy(many_rules)
    built = time.process_time()
    many = parse_policy(text)
    loaded = time.process_time() - built
    few = parse_policy(policy(10))
    del started
    medians: dict[int, list[float]] = {0: [], 1: []}
    for turn in range(20 if quick else 60):
        for side in (0, 1) if turn % 2 else (1, 0):
            medians[side].append(_median(few if side else many))
    ours, base = min(medians[0]), min(medians[1])
    return [
        Figure(
            "policy_median_100k_vs_10",
            ours * 1e6,
            "us",
            base * 1e6,
            ours / base,
            "<= 1.5",
            f"{many_rules} rules against 10",
        ),
        _among_many(many, many_rules),
        Figure("policy_load_per_rule", loaded / many_rules * 1e6, "us", note=f"{many_rules} rules"),
    ]


def _among_many(rules: Policy, count: int) -> Figure:
    """Return the median when each call has another caller, so that no processor cache helps."""
    spread = range(0, count - 1, max(1, count // 1000))
    calls = [(SpiffeId.parse(f"spiffe://example.org/team-{i}/web"), f"/team-{i}/7") for i in spread]
    medians = []
    for _ in range(20):
        samples = []
        for caller, path in calls:
            started = time.perf_counter()
            rules.decide(caller, "GET", path, Mode.BOUND)
            samples.append(time.perf_counter() - started)
        medians.append(statistics.median(samples))
    note = f"{len(calls)} callers in turn, {count} rules"
    return Figure("policy_median_100k_other_callers", min(medians) * 1e6, "us", note=note)


def _median(rules: Policy) -> float:
    samples = []
    for i in range(500):
        path = f"/orders/{i}"
        started = time.perf_counter()
        rules.decide(CALLER, "GET", path, Mode.BOUND)
        samples.append(time.perf_counter() - started)
    return statistics.median(samples)
