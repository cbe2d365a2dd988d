"""Several GPUs by arithmetic: three ways to deal out the sampling, and plans: results/scaling.md.

    python benchmarks/scaling.py      two minutes, without torch or a GPU; writes results/scaling.json beside it

A case is one round of sampling, simulated event by event (jobs/plan/simulate.py) with the step times of `r1v0 plan`,
on each of several draws of lengths. The tables of plans are `r1v0 plan --gpus`, for more numbers of cards at once.
"""

import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from statistics import median

from r1v0 import config
from r1v0.base.writing import write_atomic
from r1v0.jobs.plan import PROMPT, Plan, make_plan
from r1v0.jobs.plan.cluster import alone_on, gradient_bytes, gradient_s, limits, step_on, step_seconds
from r1v0.jobs.plan.cost import Cluster
from r1v0.jobs.plan.simulate import SIGMA, finish_times, lognormal_lengths
from r1v0.models.sizes import GIB, MOST_SLOTS
from r1v0.report.table import markdown_table

RESULTS = Path(__file__).resolve().parent.parent / "results"
SEEDS = range(15)
MODELS = {"1.5B": "Qwen/Qwen2.5-1.5B", "7B": "Qwen/Qwen2.5-7B"}
LENGTHS = ((1000, 4096), (3000, 16384))
CARDS = (1, 8, 64)
GROUP = 8
BETWEEN = (
    0.3  # of the variance of log-lengths: between problems, measured in the last steps of the embedded model's run
)
TOTAL = 1024  # completions of a step whose size does not grow with the cards
PER_CARD = (64, 512)
BUILD = 0.03  # of a step: what a shared counter would have to gain to be built
WAYS = ("fixed", "in turn", "shared")
PLANNED = (1, 2, 4, 8, 16)


@dataclass(frozen=True)
class Case:
    """`completions` in all, on `cards`, each decoding up to `slots`; a share `between` of the variance of the
    logarithms of lengths is that of problems."""

    model: str
    mean: int
    limit: int
    cards: int
    completions: int
    slots: int
    between: float


@dataclass(frozen=True)
class Outcome:
    """Of each way: `seconds` of sampling until the last card is done (median over the draws); the share of them that it
    saves against the first way, (least, median, most); and the median share of a whole step. `even` is as if no card
    waited for another."""

    case: Case
    even: float
    seconds: dict[str, float]
    gain: dict[str, tuple[float, float, float]]
    step_gain: dict[str, float]


def cluster_of(cards: int) -> Cluster:
    """In nodes of 8."""
    return Cluster(min(cards, 8), -(-cards // 8))


def planned(model: str, cards: int, completions: int, mean: int, limit: int, rows: int = 0) -> Plan:
    """On H100s; the 7B model with a sharded optimizer. `rows` is sampling.max_sequences."""
    settings = config.resolve(
        sets=[
            f"model={MODELS[model]}",
            f"sampling.max_new_tokens={limit}",
            f"sampling.max_sequences={rows}",
            f"grpo.groups={max(1, completions // GROUP)}",
            f"grpo.group_size={GROUP}",
            f"optimizer.shard={'true' if model == '7B' and cards > 1 else 'false'}",
            "compute.checkpoint_activations=true",
            "eval.on=[]",
        ]
    )
    return make_plan(settings, "h100", length=mean, cluster=cluster_of(cards))


def cases() -> Iterator[tuple[Case, Plan]]:
    """Every one with its plan."""
    for model in MODELS:
        for mean, limit in LENGTHS:
            for cards in CARDS:
                sizes = [TOTAL, *(each * cards for each in PER_CARD)]
                for completions, rows, between in (
                    *((size, 0, 0.0) for size in sizes),
                    (sizes[-1], 0, BETWEEN),
                    (sizes[-1], 64, BETWEEN),
                ):
                    if cards == 1 and model == "7B":
                        plan = planned(model, 8, 8 * completions, mean, limit, rows)  # one does not hold it
                    else:
                        plan = planned(model, cards, completions, mean, limit, rows)
                    yield Case(model, mean, limit, cards, completions, plan.slots, between), plan


def dealt(lengths: Sequence[int], cards: int) -> list[int]:
    """The lengths in another order, so that equal parts of it are every `cards`-th."""
    return [length for card in range(cards) for length in lengths[card::cards]]


def sampling_s(case: Case, plan: Plan, lengths: Sequence[int], prefill_s: float) -> tuple[list[float], float]:
    """Seconds until the last card is done, in each of WAYS, and the mean over cards of the first.

    A prompt is computed on each card that has one of its completions: `prefill_s` is that of one card's fixed part.
    """
    step_s, slots = step_seconds(plan), case.slots
    spread = min(GROUP, case.cards) * prefill_s
    counted = max(0.0, 1 - slots * case.cards / case.completions)  # what is taken from the counter
    ways = (
        (lengths, False, prefill_s),
        (dealt(lengths, case.cards), False, spread),
        (lengths, True, prefill_s + counted * (spread - prefill_s)),
    )
    times = [finish_times(some, case.cards, slots, step_s, PROMPT, shared) for some, shared, _ in ways]
    whole = [max(found) + more for found, (*_, more) in zip(times, ways, strict=True)]
    return whole, sum(times[0]) / case.cards + prefill_s


def outcome(case: Case, plan: Plan, seeds: Sequence[int] = SEEDS) -> Outcome:
    """The case on several draws of lengths."""
    step = step_on(plan, plan.cluster)
    others = step.seconds - step.sampling_s
    draws = [
        sampling_s(
            case,
            plan,
            lognormal_lengths(case.completions, case.mean, case.limit, seed, SIGMA, GROUP, case.between),
            step.prefill_s,
        )
        for seed in seeds
    ]
    seconds = {way: [whole[i] for whole, _ in draws] for i, way in enumerate(WAYS)}
    gains = {way: [1 - b / a for a, b in zip(seconds["fixed"], found, strict=True)] for way, found in seconds.items()}
    of_step = {
        way: median((a - b) / (a + others) for a, b in zip(seconds["fixed"], found, strict=True))
        for way, found in seconds.items()
    }
    return Outcome(
        case,
        median(even for _, even in draws),
        {way: median(found) for way, found in seconds.items()},
        {way: (min(found), median(found), max(found)) for way, found in gains.items()},
        of_step,
    )


def simulation_table(outcomes: Sequence[Outcome]) -> str:
    heads = ["model", "mean, limit", "completions a card", "rows", "problems' share", "cards", "no waiting, s",
             *(f"{way}, s" for way in WAYS), "in turn gains", "of a step", "shared gains", "of a step"]  # fmt: skip
    rows = []
    for each in outcomes:
        case = each.case
        gains = []
        for way in WAYS[1:]:
            least, middle, most = each.gain[way]
            gains += [f"{middle:.1%} ({least:.0%} to {most:.0%})", f"{each.step_gain[way]:.1%}"]
        rows.append(
            [
                case.model,
                f"{case.mean:,}, {case.limit:,}",
                f"{case.completions // case.cards}",
                f"{case.slots}",
                f"{case.between:g}",
                f"{case.cards}",
                f"{each.even:.1f}",
                *(f"{each.seconds[way]:.1f}" for way in WAYS),
                *gains,
            ]
        )
    return markdown_table(heads, [row for row in rows if row[5] != "1"])


def plan_rows(model: str, growing: bool) -> Iterator[list[str]]:
    """A row a number of cards: of a step of TOTAL completions, or of 512 a card."""
    mean, limit = LENGTHS[0]
    for cards in PLANNED:
        completions = PER_CARD[-1] * cards if growing else TOTAL
        plan = planned(model, cards, completions, mean, limit)
        cells = [model, f"{cards}", f"{completions // cards}", f"{plan.peak / GIB:.0f} of {plan.budget / GIB:.0f}"]
        if not plan.fits:
            yield [*cells, "does not fit", *[""] * 8]
            continue
        step = step_on(plan, plan.cluster)
        once = alone_on(plan)
        if growing:  # against one card with its own 512
            own = replace(plan, config=config.changed(plan.config, {"grpo.groups": PER_CARD[-1] // GROUP}))
            once = alone_on(own)
        speed = step.tokens_per_s / once.tokens_per_s
        added = plan.config.grpo.minibatches * plan.config.grpo.epochs * sum(gradient_s(plan, plan.cluster))
        what = limits(plan, alone_on(plan), step) if cards > 1 else ""
        yield [
            *cells,
            f"{step.sampling_s:.1f}",
            f"{step.wait_s:.1f}",
            f"{step.training_s:.1f}",
            f"{step.exchange_s:.2f}",
            f"{added:.2f}",
            f"{sum(gradient_bytes(plan, plan.cluster)) / 1e9:.1f}",
            f"{step.tokens_per_s:,.0f}",
            f"{speed:.1f} ({speed / cards:.0%})",
            what,
        ]


def plan_table(growing: bool) -> str:
    heads = ["model", "cards", "completions a card", "peak, GiB", "sampling, s", "of it waiting, s", "training, s",
             "rollouts told, s", "gradients added, s", "GB a card and update", "tokens/s", "times one card",
             "what limits"]  # fmt: skip
    return markdown_table(heads, [row for model in MODELS for row in plan_rows(model, growing)], left=1)


def verdict(outcomes: Sequence[Outcome]) -> str:
    """Where a shared counter pays, how much, and so whether to build it: three sentences."""
    several = [each for each in outcomes if each.case.cards > 1]
    queued = [each for each in several if each.case.completions > each.case.cards * each.case.slots]
    kinds: dict[tuple[int, int], list[float]] = {}
    for each in queued:
        kinds.setdefault((each.case.cards, each.case.slots), []).append(each.step_gain["shared"])
    said = [
        f"{min(gains):.1%} to {max(gains):.1%} on {cards} cards with {slots} rows"
        for (cards, slots), gains in sorted(kinds.items(), key=lambda kind: (-kind[0][1], kind[0][0]))
    ]
    over = [each for each in queued if each.step_gain["shared"] > BUILD]
    rows = " or ".join(map(str, sorted({each.case.slots for each in over}))) or "no"
    decided = (
        "So it is not built: most of what is lost is lost within each card to its own longest completions, and with a "
        "counter who samples what would depend on the clock, so that the same command would no longer give the same "
        "bits."
        if all(each.case.slots < MOST_SLOTS for each in over)
        else "So it is worth building."
    )
    return (
        f"A shared counter changes something only where a card has more completions than rows, {len(queued)} of these "
        f"{len(several)} cases, and there it saves of a whole step (medians): {', '.join(said)}. More than {BUILD:.0%} "
        f"of a step is saved in {len(over)} of them, those with {rows} rows a card (a GPU's automatic number is up to "
        f"{MOST_SLOTS}). {decided}"
    )


def page(outcomes: Sequence[Outcome]) -> str:
    return f"""# Several GPUs: estimates, not run

Made by `python benchmarks/scaling.py`, which needs no GPU: arithmetic and a simulation with the constants of `r1v0
plan` (docs/memory.md): H100s with 65 % of 3,350 GB/s and 40 % of 989 TFLOP/s, nodes of 8, 350 GB/s within and 100
Gbit/s between them. Lengths are lognormal, sigma {SIGMA:g}, cut off at the limit; the mean is that of the lengths as
cut. Nothing here was run on a GPU.

## Plans, estimate, not run

A step of {TOTAL:,} completions (mean {LENGTHS[0][0]:,}, limit {LENGTHS[0][1]:,}), the same for any number of cards;
"times one card" is the speed against one card that has the same step. The 7B model with `optimizer.shard=true`.

{plan_table(growing=False)}

{PER_CARD[-1]} completions a card, so a step that grows with the cards; "times one card" is tokens/s against one card
with {PER_CARD[-1]}. "What limits" is still against one card that has the whole step.

{plan_table(growing=True)}

## Fixed parts, parts in turn, or a shared counter

`r1v0` gives each process an equal part of the completions, in order ("fixed"). It could deal them out in turn, or,
since tokens depend on keys alone, let each process take the next one from a counter that all share, whenever a row ends
("shared"). "Rows" are decoded at a time by a card. "Problems' share" is the share of the variance of log-lengths that
lies between problems, of {GROUP} completions each: 0, or {BETWEEN:g}, as in the last 20 of 80 steps of the embedded
model on countdown, where sigma was 0.7. A prompt is computed on every card that has one of its completions. "No
waiting" is the mean over the cards with fixed parts. {len(SEEDS)} draws of lengths a case, medians, with the range of
gains. All cards are equally fast; on one card there is nothing to deal out.

{verdict(outcomes)}

{simulation_table(outcomes)}
"""


def main() -> None:
    outcomes = [outcome(case, plan) for case, plan in cases()]
    rows = ",\n".join(json.dumps(asdict(each)) for each in outcomes)
    write_atomic(RESULTS / "scaling.json", f'{{"sigma": {SIGMA}, "cases": [\n{rows}\n]}}\n'.encode())
    write_atomic(RESULTS / "scaling.md", page(outcomes).encode())
    print(verdict(outcomes))


if __name__ == "__main__":
    main()
