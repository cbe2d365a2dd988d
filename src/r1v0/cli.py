"""The command line: parse, call one function, turn errors into exit codes.

Decides: 0 is fine; 1 is a plan that does not fit; 2 is a mistake of the user's, one line on stderr and nothing
overwritten; 130 is an interruption after a clean checkpoint. A traceback is always a defect of ours. torch is
imported only by verbs that compute.
"""

import argparse
import errno
import json
import os
import shutil
import sys
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from typing import Any

from r1v0 import config
from r1v0.base.command import typed
from r1v0.base.errors import Interrupted, UserError
from r1v0.jobs.arguments import parser
from r1v0.runs import runlog, settings
from r1v0.runs.claim import claimed

# What the system says of a path that a user should not have given; any other OSError is a defect of ours.
NO_PATH = {errno.ENAMETOOLONG, errno.ELOOP, errno.ENOTDIR, errno.EACCES, errno.EPERM, errno.EROFS}


def main(argv: Sequence[str] | None = None) -> int:
    """Run one verb and return the exit code."""
    # libgomp's threads spin while they wait for each other. On a machine that does anything else, the one that spins
    # holds the core that the other needs: a decoding step of the tiny model took 28 ms instead of 7 (median, one busy
    # core of two). Waiting asleep costs nothing measurable on an idle machine. Must be set before torch is imported.
    os.environ.setdefault("GOMP_SPINCOUNT", "1000")
    try:
        arguments = parser().parse_args(argv)
        result: int | None = VERBS[arguments.verb](arguments)
        return result or 0
    except UserError as error:
        print(f"r1v0: {error}", file=sys.stderr)
        return 2
    except (Interrupted, KeyboardInterrupt):
        return 130
    except BrokenPipeError:  # a pager or head closed our output
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except OSError as error:
        if error.errno not in NO_PATH or error.filename is None:
            raise
        print(f"r1v0: {UserError(f'{error.filename!s:.200}: {error.strerror}: give another path')}", file=sys.stderr)
        return 2


def _settle(arguments: argparse.Namespace) -> settings.Settled:
    """The settings of a verb, by the one rule for all of them."""
    model, on, flags = getattr(arguments, "model", None), getattr(arguments, "on", None), dict[str, dict[str, Any]]()
    if on is not None:
        flags["--on"] = {"eval": {"on": [name.strip() for name in on.split(",")]}}
    if arguments.verb == "eval" and arguments.samples is not None:
        flags["--samples"] = {"eval": {"samples": arguments.samples}}
    evaluates = on is not None or model is not None
    return settings.settle(model, arguments.preset, arguments.config, arguments.set, flags, evaluates)


def _train(arguments: argparse.Namespace) -> None:
    if arguments.resume is not None:
        if arguments.out or arguments.preset or arguments.config:
            raise UserError(
                "--resume goes on with a run as it was: leave out --out, --preset and --config (--set may "
                "change a few keys)"
            )
        runlog.need_run(arguments.resume)
        from r1v0.jobs import train  # imports torch

        train.resume(arguments.resume, arguments.set)
    else:
        settled = _settle(arguments)
        from r1v0.jobs import train

        train.begin(settled, arguments.out, arguments.config.stem if arguments.config else settled.preset or "run")


def _eval(arguments: argparse.Namespace) -> None:
    from r1v0.report import plot_groups
    from r1v0.report.progress import open_progress
    from r1v0.report.table import evaluation_table
    from r1v0.tasks.prompts import words_of

    settled = _settle(arguments)
    if not settled.config.eval.on:
        raise UserError("eval.on is []: name what to measure, for example --on countdown")
    if settled.origins["eval.on"] == config.DEFAULT:
        raise UserError("nothing says what to measure: name datasets, for example --on math500,aime24")
    templates = arguments.template.split(",") if arguments.template else [settled.config.prompt.template]
    for template in templates:
        words_of(config.with_template(settled.config, template).prompt)
    from r1v0.jobs.eval import measure  # imports torch

    with ExitStack() as stack:
        out = arguments.out or stack.enter_context(claimed("eval"))
        progress = stack.enter_context(open_progress(figures=False))
        try:
            told, rows = measure(arguments.model, settled, templates, out, progress, arguments.against)
        except Interrupted:
            progress.note(f"stopped: the same command with  --out {out}  goes on with the answers that are there")
            raise
    print("\n".join(told), evaluation_table(rows), sep="\n\n")
    figures = plot_groups({out.name: [out]}) if len(rows) > 1 else []
    print(f"answers{' and figures' if figures else ''}: {out}")


def _sample(arguments: argparse.Namespace) -> None:
    settled = _settle(arguments)
    most = config.LARGEST["eval.samples"]
    if not 1 <= arguments.samples <= most:
        raise UserError(f"--samples is {arguments.samples}: expected at least 1 and at most {most}")
    if arguments.greedy and arguments.samples > 1:
        raise UserError(f"--greedy gives one answer, and --samples is {arguments.samples}: leave one of them out")
    from r1v0.jobs.sample import ask  # imports torch

    scores = ask(
        arguments.model,
        arguments.problem,
        settled.config,
        sys.stdout,
        arguments.samples,
        arguments.greedy,
        arguments.gold,
        settled.line,
    )
    if len(scores) > 1:
        print(f"{sum(score.correct for score in scores)} of {len(scores)} right", file=sys.stderr)


def _plot(arguments: argparse.Namespace) -> None:
    from r1v0.report import parse_groups, plot_groups

    pictures = plot_groups(parse_groups(arguments.runs), arguments.out)
    if not pictures:
        print("nothing is logged yet, so nothing is drawn")
    for picture in pictures:
        print(picture)


def _verify(arguments: argparse.Namespace) -> int:
    from r1v0.tasks.grading import verify

    reward = config.resolve(sets=[f"reward.name={json.dumps(arguments.reward)}"]).reward
    if arguments.batch is not None:
        if arguments.gold is not None:
            raise UserError("GOLD and --batch are both given: verify takes GOLD ANSWER or --batch FILE, not both")
        summary = verify.verify_batch(arguments.batch, sys.stdout, reward)
        print(summary, file=sys.stderr)
        return int(summary.equal < summary.lines)
    if arguments.answer is None:
        example = typed("verify", r"\frac{1}{2}", "0.5")
        raise UserError(f"verify needs a gold answer and an answer, for example: {example}")
    lines, right = verify.judge(arguments.gold, arguments.answer, reward)
    print("\n".join(lines))
    return int(not right)


def _doctor(arguments: argparse.Namespace) -> int:
    from r1v0.jobs import doctor

    found = [(run, doctor.examine(run)) for run in arguments.runs]
    if arguments.json:
        print(doctor.as_json(found))
    else:
        width = min(140, shutil.get_terminal_size().columns)
        print("\n\n".join(doctor.report(run, findings, width) for run, findings in found))
    return int(any(finding.mark == "problem" for _, findings in found for finding in findings))


def _pretrain(arguments: argparse.Namespace) -> None:
    from r1v0.report.progress import open_progress

    with open_progress(figures=False) as progress:
        from r1v0.jobs import pretrain  # imports torch

        steps = arguments.steps if arguments.steps is not None else pretrain.STEPS
        if steps < 1:
            raise UserError(f"--steps is {steps}: expected at least 1")

        def show(step: int, total: int, tokens: int, loss: float) -> None:
            progress.phase("pretraining", step, total, tokens=tokens, loss=loss)

        pretrain.pretrain(arguments.out, arguments.seed, steps, arguments.threads, show)
    print(f"base model: {arguments.out}")


def _plan(arguments: argparse.Namespace) -> int:
    from r1v0.jobs.plan import make_plan
    from r1v0.jobs.plan.report import report

    settled = _settle(arguments)
    asked, bfloat16 = settled.config, 1.0
    on_cpu = arguments.card is None and arguments.gpu_memory is None
    if on_cpu and {asked.compute.dtype, asked.sampling.dtype} & {"fastest", "bfloat16"}:
        from r1v0.models import device  # imports torch

        asked, bfloat16 = device.settled(asked), device.bfloat16_cost()
    plan = make_plan(asked, arguments.card, arguments.gpu_memory, arguments.length, bfloat16)
    given = ["--preset", arguments.preset] if arguments.preset else []
    given += ["--config", str(arguments.config)] if arguments.config else []
    given += [word for setting in arguments.set for word in ("--set", setting)]
    print(f"{settled.line}\n\n{report(plan, given)}")
    return 0 if plan.fits else 1


def _bench(arguments: argparse.Namespace) -> None:
    for name in ("rounds", "threads"):
        if getattr(arguments, name) < (name == "rounds"):
            raise UserError(f"--{name} is {getattr(arguments, name)}: expected at least {int(name == 'rounds')}")
    from r1v0.jobs.bench.verb import bench  # imports torch

    bench(arguments.model, arguments.rounds, arguments.threads, not arguments.alone, arguments.quick)


def _config(arguments: argparse.Namespace) -> None:
    settled = _settle(arguments)
    print(settled.toml(), end="")
    if arguments.model is not None or arguments.on is not None:
        print("\n".join(["", *(f"# {line}" for line in settings.evaluations(settled))]))


def _new(arguments: argparse.Namespace) -> None:
    from r1v0.jobs.new import create

    print("\n".join([f"made {arguments.folder}; now type", *(f"    {line}" for line in create(arguments.folder))]))


def _check(arguments: argparse.Namespace) -> int:
    from r1v0.jobs import doctor
    from r1v0.report.progress import open_progress

    if arguments.file is not None and arguments.config is not None:
        raise UserError(f"{arguments.file} and --config {arguments.config} are both given: leave one of them out")
    arguments.config = arguments.config or arguments.file
    settled = _settle(arguments)
    from r1v0.jobs.check import preflight, verdict  # imports torch

    with open_progress(figures=False) as progress:
        findings = preflight(settled.config, progress)
    width = min(140, shutil.get_terminal_size().columns)
    print(settled.line, *(line for finding in findings for line in doctor.lines_of(finding, 12, width)), sep="\n")
    print(verdict(findings))
    return int(any(finding.mark == "problem" for finding in findings))


def _presets(arguments: argparse.Namespace) -> None:
    if arguments.keys:
        described = config.described()
        others = [key for key in described if key not in config.FIRST]
        for title, keys in (("the ten that one needs first", config.FIRST), ("all others", others)):
            print(f"# {title}")
            for key in keys:
                print(f"{key} = {described[key][0]}\n    {described[key][1]}")
    elif arguments.name:
        print(config.preset_text(arguments.name), end="")
    else:
        width = max(map(len, config.presets()))
        for name, text in config.presets().items():
            print(f"{name:{width}}  {text}")


VERBS: dict[str, Callable[[argparse.Namespace], int | None]] = {
    "train": _train,
    "eval": _eval,
    "sample": _sample,
    "plot": _plot,
    "verify": _verify,
    "doctor": _doctor,
    "pretrain": _pretrain,
    "plan": _plan,
    "bench": _bench,
    "config": _config,
    "new": _new,
    "check": _check,
    "presets": _presets,
}
