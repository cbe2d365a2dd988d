"""A plan as a page of a terminal: aligned tables, what to switch on, and a last line that says whether it fits."""

import shlex
from collections.abc import Sequence

from r1v0.base.command import typed
from r1v0.jobs.plan import FLAT, Plan, remedies
from r1v0.jobs.plan.memory import BASE_CPU, reserve
from r1v0.models.sizes import GIB


def report(plan: Plan, given: Sequence[str] = ()) -> str:
    """The whole page. `given` are the options that the settings were given by, for lines to paste."""
    parts = [_heading(plan), _memory(plan), _sampling(plan), _step(plan)]
    if found := _remedies(plan, given):
        parts.append(found)
    return "\n\n".join([*parts, verdict(plan)])


def verdict(plan: Plan) -> str:
    """The last line."""
    where = f"{plan.total / GIB:.0f} GiB" + ("" if plan.gpu else " of this machine's memory")
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
            f"on {plan.card.title}",
        ]
    )


def _memory(plan: Plan) -> str:
    m = plan.memory
    beside = "reference model" if m.reference else ""
    kept = "with checkpointing" if plan.config.compute.checkpoint_activations else "all kept"
    rows: list[tuple[str, float, str]] = [
        ("weights", m.weights, ""),
        ("master weights", m.masters, "float32"),
        ("AdamW's moments", m.moments, plan.config.optimizer.moments),
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
    return "\n".join(["memory", *lines, *totals])


def _sampling(plan: Plan) -> str:
    limit = plan.config.sampling.max_new_tokens
    tokens = plan.kv_tokens
    fit = [(n, tokens // (n + plan.whole - limit)) for n in sorted({plan.length, limit})]
    room = plan.budget - plan.memory.sampling
    return "\n".join(
        [
            "while sampling",
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
    groups = "no group flat"
    if grpo.refill:
        groups = f"{FLAT:.0%} of the groups flat and refilled (limit: all, {grpo.max_refills} times)"
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


def _remedies(plan: Plan, given: Sequence[str]) -> str:
    """A line to paste for each way to fit, with its memory and hours."""
    lines = []
    for found in remedies(plan):
        more = [word for setting in found.settings for word in ("--set", setting)]
        lines.append(f"  {found.kind}: peak {_gib(found.plan.peak)}, about {seconds(found.plan.run_s[0])}")
        lines.append(f"    {typed('train', *map(shlex.quote, given), *more)}")
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
