"""A plan as a page of a terminal: aligned tables, what to switch on, and a last line that says whether it fits."""

import shlex
from collections.abc import Sequence

from r1v0.base.command import typed
from r1v0.jobs.plan import FLAT, PROMPT, Plan, remedies
from r1v0.jobs.plan.cluster import alone_on, gradient_bytes, limits, step_on
from r1v0.jobs.plan.memory import BASE_CPU, reserve
from r1v0.jobs.plan.simulate import SIGMA
from r1v0.models.sizes import GIB


def report(plan: Plan, given: Sequence[str] = ()) -> str:
    """The whole page. `given` are the options that the settings were given by, for lines to paste."""
    parts = [_heading(plan), _memory(plan), _sampling(plan), _step(plan) if alone(plan) else _together(plan)]
    if found := _remedies(plan, given):
        parts.append(found)
    return "\n\n".join([*parts, verdict(plan)])


def alone(plan: Plan) -> bool:
    """Whether it is the plan of one card."""
    return plan.cluster.processes == 1


def verdict(plan: Plan) -> str:
    """The last line."""
    where = f"{plan.total / GIB:.0f} GiB" + ("" if plan.gpu else " of this machine's memory")
    where += "" if alone(plan) else " of each card"
    peak = plan.peak / GIB
    if plan.fits:
        return f"fits: the peak is {peak:.1f} of {plan.budget / GIB:.1f} GiB that can be used of {where}"
    tried = remedies(plan)
    if tried:
        return f"does not fit into {where} as it is; it does with: " + " ".join(
            f"--set {setting}" for setting in tried[0].settings
        )
    if plan.peak > plan.budget:
        needs = f"it needs {peak:.1f} GiB, {plan.budget / GIB:.1f} can be used"
        return f"does not fit into {where}: {needs}; take a smaller model or a larger card"
    limit = plan.config.sampling.max_new_tokens
    return f"does not fit into {where}: no completion of {limit} tokens; lower sampling.max_new_tokens"


def in_a_line(plan: Plan) -> str:
    """What `r1v0 train` says before a long run."""
    mean, most = plan.run_s
    peak = f"{plan.peak / GIB:.1f} of {plan.budget / GIB:.1f} GiB"
    much = "fits" if plan.fits else "does not fit"
    count = plan.evaluations
    return (
        f"plan: about {seconds(mean)} if answers take a quarter of their limit, {seconds(most)} if all of it, "
        f"with {count} evaluation{'s' * (count != 1)}; {much}: a peak of {peak}; estimates, see {typed('plan')}"
    )


def _heading(plan: Plan) -> str:
    c, config = plan.shape.config, plan.config
    tied = "tied" if c.tied else "untied"
    return "\n".join(
        [
            f"{config.model}: {_count(plan.shape.parameters)} parameters, from {plan.shape.source}",
            f"  {c.layers} layers, hidden {c.hidden}, intermediate {c.intermediate}, {c.heads} heads and "
            f"{c.kv_heads} KV heads of {c.head_dim}, vocabulary {c.vocab:,}, {tied}",
            f"on {plan.card.title}" if alone(plan) else _cards(plan),
        ]
    )


def _cards(plan: Plan) -> str:
    cluster = plan.cluster
    nodes = f"{cluster.nodes} nodes of {cluster.gpus}, " if cluster.nodes > 1 else ""
    return f"on {cluster.processes} cards ({nodes}one process a card), each {plan.card.title}"


def _memory(plan: Plan) -> str:
    m = plan.memory
    parted = f", 1/{plan.cluster.processes} of all" if plan.config.optimizer.shard and not alone(plan) else ""
    beside = "reference model" if m.reference else ""
    kept = "with checkpointing" if plan.config.compute.checkpoint_activations else "all kept"
    rows: list[tuple[str, float, str]] = [
        ("weights", m.weights, ""),
        ("master weights", m.masters, f"float32{parted}"),
        ("AdamW's moments", m.moments, f"{plan.config.optimizer.moments}{parted}"),
        (beside, m.reference, ""),
        ("gradients", m.gradients, "gone while sampling"),
        ("activations", m.kept, f"{plan.micro_batch:,} tokens at a time, {kept}"),
        ("at work", m.working, "a block's backward pass, or the logprob head"),
    ]
    lines = _aligned([(name, _gib(size), note) for name, size, note in rows if size])
    off = plan.gpu and plan.config.optimizer.offload
    if off:
        trained = plan.shape.adapters(plan.config.lora.rank) if plan.config.lora.rank else plan.shape.parameters
        lines.append(f"  (offloaded: {_gib(12.0 * trained)} of masters and moments in CPU memory)")
    held = reserve(plan.total) if plan.gpu else BASE_CPU
    kind = "context, kernels and fragments" if plan.gpu else "Python and libraries"
    totals = _aligned(
        [
            ("peak of training", _gib(m.training), ""),
            (
                "peak of the update",
                _gib(m.updating),
                "float32 copies of gradients, a bucket at a time" if m.update else "",
            ),
            ("can be used", _gib(plan.budget), f"{_gib(plan.total)} without {_gib(held)} of {kind}"),
        ]
    )
    return "\n".join(["memory" if alone(plan) else "memory of each card", *lines, *totals])


def _sampling(plan: Plan) -> str:
    limit = plan.config.sampling.max_new_tokens
    tokens = plan.kv_tokens
    fit = [(n, tokens // (n + plan.whole - limit)) for n in sorted({plan.length, limit})]
    room = plan.budget - plan.memory.sampling
    return "\n".join(
        [
            "while sampling" if alone(plan) else "while sampling, each card",
            *_aligned(
                [
                    (
                        "KV cache",
                        _gib(max(0.0, room)),
                        f"{plan.memory.kv_token:,.0f} bytes per token: {tokens:,} tokens",
                    ),
                    *(("room for", f"{count:,}", f"completions of {n:,} tokens") for n, count in fit),
                    (
                        "decoded at a time",
                        f"{plan.rows:,}",
                        "sampling.max_sequences, completions a step and room, the least of them",
                    ),
                ]
            ),
        ]
    )


def _step(plan: Plan) -> str:
    grpo, limit = plan.config.grpo, plan.config.sampling.max_new_tokens
    count = grpo.groups * grpo.group_size
    cases = ((plan.length, plan.typical), (limit, plan.longest))
    rows = [
        ("", *(f"mean {n:,}" if n != limit else f"all {n:,} (limit)" for n, _ in cases)),
        ("tokens trained on", *(f"{count * n:,}" for n, _ in cases)),
        ("operations, sampling", *(_flops(c.sampling_flops) for _, c in cases)),
        ("operations, training", *(_flops(c.training_flops) for _, c in cases)),
        ("time, sampling", *(seconds(c.sampling_s) for _, c in cases)),
        ("time, training", *(seconds(c.training_s) for _, c in cases)),
        ("time, an evaluation", *(seconds(c.sampling_s) for c in plan.evaluation)),
        (f"time, {plan.config.steps} steps and {plan.evaluations} evaluations", *map(seconds, plan.run_s)),
    ]
    card = plan.card
    groups = _refilled(plan) + (f" (limit: all, {grpo.max_refills} times)" if grpo.refill else "")
    return "\n".join(
        [
            f"a step: {grpo.groups} problems x {grpo.group_size} completions; "
            f"prompts of {plan.whole - limit} tokens assumed, {groups}",
            *_aligned(rows),
            f"  times are estimates: {card.bandwidth_share:.0%} of {card.bandwidth / 1e9:,.0f} GB/s "
            f"and {card.flops_share:.0%} of {card.rate(plan.sizes[0]) / card.flops_share / 1e12:,.3g} TFLOP/s assumed; "
            "grading not counted",
        ]
    )


def _refilled(plan: Plan) -> str:
    return f"{FLAT:.0%} of the groups flat and refilled" if plan.config.grpo.refill else "no group flat"


def _together(plan: Plan) -> str:
    """A step on all cards beside one card's."""
    if not plan.fits:
        return "what limits: memory, see the last line; so there are no times"
    grpo, cluster = plan.config.grpo, plan.cluster
    one, all_ = alone_on(plan), step_on(plan, cluster)
    both = (one, all_)
    rows = [
        ("", "1 card", f"{cluster.processes} cards"),
        ("time, sampling", *(seconds(step.sampling_s) for step in both)),
        ("  of it waiting for the slowest card", *(seconds(step.wait_s) for step in both)),
        ("time, training", *(seconds(step.training_s) for step in both)),
        ("time, telling all the rollouts", *(seconds(step.exchange_s) for step in both)),
        ("time, adding up gradients", *(seconds(step.sum_s) for step in both)),
        ("time, a step", *(seconds(step.seconds) for step in both)),
        ("time, an evaluation", *(seconds(step.evaluation_s) for step in both)),
        (
            f"time, {plan.config.steps} steps and {plan.evaluations} evaluations",
            *(seconds(s.run_s(plan)) for s in both),
        ),
        ("tokens sampled a second", *(f"{step.tokens_per_s:,.0f}" for step in both)),
    ]
    faster = one.seconds / all_.seconds
    gradients, weights = gradient_bytes(plan, cluster)
    gathered = f", {weights / 1e9:,.1f} GB of new weights" if weights else ""
    network = f", {cluster.network * 8 / 1e9:g} Gbit/s of a node" if cluster.nodes > 1 else ""
    return "\n".join(
        [
            f"a step: {grpo.groups} problems x {grpo.group_size} completions of {plan.length:,} tokens on average, "
            f"lognormal "
            f"(sigma {SIGMA:g});",
            f"  prompts of {PROMPT} tokens assumed, {_refilled(plan)}",
            *_aligned(rows),
            f"  {faster:.1f} times one card with as much room for completions: {faster / cluster.processes:.0%} of "
            f"{cluster.processes}",
            f"  each card sends {gradients / 1e9:,.1f} GB of gradients{gathered} an update, at "
            f"{plan.card.link / 1e9:g} GB/s between cards{network}",
            "  times are estimates: constants as for one card, sampling simulated; grading not counted",
            f"what limits: {limits(plan, one, all_)}",
        ]
    )


def _remedies(plan: Plan, given: Sequence[str]) -> str:
    """A line to paste for each way to fit, with its memory and hours."""
    lines, cluster = [], plan.cluster
    processes = ["--processes", str(cluster.gpus)] if cluster.gpus > 1 == cluster.nodes else []
    everywhere = "  # under torchrun, on each node" if cluster.nodes > 1 else ""
    for found in remedies(plan):
        more = [word for setting in found.settings for word in ("--set", setting)]
        mean = found.plan.run_s[0] if alone(plan) else step_on(found.plan, plan.cluster).run_s(found.plan)
        lines.append(f"  {found.kind}: peak {_gib(found.plan.peak)}, about {seconds(mean)}")
        lines.append(f"    {typed('train', *processes, *map(shlex.quote, given), *more)}{everywhere}")
    return "\n".join(["what makes it fit", *lines]) if lines else ""


def _aligned(rows: Sequence[Sequence[str]]) -> list[str]:
    """Names to the left, numbers to the right, and a note (the last of three, or of four) to the left."""
    count = len(rows[0]) if rows else 0
    widths = [max(len(row[i]) for row in rows) for i in range(count)]
    notes = count >= 3 and rows[0][0] != ""
    made = []
    for row in rows:
        cells = [row[0].ljust(widths[0]), *(cell.rjust(width) for cell, width in zip(row[1:], widths[1:], strict=True))]
        if notes:
            cells[-1] = row[-1]
        made.append(("  " + "  ".join(cells)).rstrip())
    return made


def _gib(size: float) -> str:
    if size >= 0.1 * GIB:
        return f"{size / GIB:,.1f} GiB"
    return f"{size / (1 << 20):,.1f} MiB" if size >= 1 << 20 else f"{size / 1024:,.0f} KiB"


def _count(number: float) -> str:
    for size, unit in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if number >= size:
            return f"{number / size:.2f} {unit}"
    return f"{number:.0f}"


def _flops(number: float) -> str:
    for size, unit in ((1e15, "P"), (1e12, "T"), (1e9, "G")):
        if number >= size:
            return f"{number / size:,.1f} {unit}FLOP"
    return f"{number:.1e} FLOP"


def seconds(number: float) -> str:
    """A time as a person says it: 12.0 s, 3.5 min, 7.2 h, 5.1 days."""
    if number < 60:
        return f"{number:.1f} s"
    if number < 5400:
        return f"{number / 60:.1f} min"
    return f"{number / 3600:.1f} h" if number < 48 * 3600 else f"{number / 86400:,.1f} days"
