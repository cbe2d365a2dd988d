"""The verbs that load a model and compute: train, eval, sample, pretrain, bench."""

import argparse
import sys
from contextlib import ExitStack
from pathlib import Path

from r1v0 import config
from r1v0.base.errors import Interrupted, Lost, UserError
from r1v0.base.notes import launched, speaks
from r1v0.jobs.arguments import Verb, config_options, path, settle
from r1v0.runs import runlog
from r1v0.runs.claim import claimed
from r1v0.runs.progress import Progress


def add(verb: Verb) -> None:
    """The arguments of these verbs."""
    train = verb(
        "train",
        "train a model by GRPO; without arguments, the embedded countdown run",
        "--set steps=10",
        "--resume runs/countdown-001 --set steps=80",
    )
    config_options(train)
    train.add_argument(
        "--out", type=path, metavar="DIR", help="run folder to make (default: the next free one in runs/)"
    )
    train.add_argument(
        "--resume", type=path, metavar="DIR", help="go on with the run in this folder from its newest checkpoint"
    )
    train.add_argument(
        "--requeue", action="store_true", help="go on if --out holds a run, else begin it: one command for restarts"
    )
    train.add_argument(
        "--processes", type=int, default=1, metavar="N", help="train in this many processes of this machine (torchrun)"
    )
    train.set_defaults(run=_train)

    evaluate = verb(
        "eval",
        "measure a model on named datasets; goes on where it was stopped if --out is the same",
        "runs/countdown-001 --on countdown",
        "Qwen/Qwen2.5-1.5B --on math500,aime24 --out runs/base",
    )
    evaluate.add_argument("model", metavar="MODEL", help="folder, run folder, hub id or 'tiny'")
    evaluate.add_argument("--on", metavar="NAME[,NAME]", help="datasets (default: those of the preset)")
    evaluate.add_argument("--samples", type=int, metavar="K", help="answers per problem")
    evaluate.add_argument(
        "--template", metavar="NAME[,FILE]", help="prompt templates to compare: names, chat, or .toml files"
    )
    evaluate.add_argument(
        "--against", type=path, metavar="DIR", help="an earlier evaluation's folder: print paired differences"
    )
    evaluate.add_argument(
        "--out", type=path, metavar="DIR", help="folder for the answers (default: the next free one in runs/)"
    )
    config_options(evaluate)
    evaluate.set_defaults(run=_eval)

    sample = verb(
        "sample",
        "answer one problem, as text",
        'runs/countdown-001 "4 7 6 target 31"',
        'tiny "4 7 6 target 31" --samples 4',
    )
    sample.add_argument("model", metavar="MODEL", help="folder, run folder, hub id or 'tiny'")
    sample.add_argument("problem", metavar="PROBLEM", help='for example "3 7 4 target 17"')
    sample.add_argument("--samples", type=int, default=1, metavar="K", help="answers to draw, printed in order")
    sample.add_argument("--greedy", action="store_true", help="take the likeliest token each time, instead of drawing")
    sample.add_argument("--gold", default="", metavar="ANSWER", help="the right answer: say which answers are right")
    config_options(sample)
    sample.set_defaults(run=_sample)

    pretrain = verb("pretrain", "rebuild the embedded base model", "--out base --steps 20", "--out base")
    pretrain.add_argument("--out", type=path, required=True, metavar="DIR", help="model folder to make")
    pretrain.add_argument("--seed", type=int, default=0)
    pretrain.add_argument("--steps", type=int, help="optimizer steps (default: the recipe's)")
    pretrain.add_argument("--threads", type=int, default=0, help="CPU threads (default: all cores)")
    pretrain.set_defaults(run=_pretrain)

    bench = verb("bench", "measure sampling and training on this machine", "--quick", "runs/countdown-001")
    bench.add_argument(
        "model", nargs="?", default="tiny", metavar="MODEL", help="folder, run folder, hub id or 'tiny' (default)"
    )
    bench.add_argument(
        "--rounds", type=int, default=3, help="rounds of each measurement; medians are shown (default: 3)"
    )
    bench.add_argument("--threads", type=int, default=0, help="CPU threads (default: all cores)")
    bench.add_argument("--quick", action="store_true", help="a few tokens only: does everything run?")
    bench.set_defaults(run=_bench)


def _train(arguments: argparse.Namespace) -> int | None:
    if arguments.requeue and (arguments.resume or not arguments.out):
        raise UserError("--requeue goes on with the run in --out, or begins it there: give --out, and no --resume")
    if arguments.processes < 1:
        raise UserError(f"--processes is {arguments.processes}: expected at least 1")
    settled = settle(arguments) if arguments.resume is None else None
    if arguments.processes > 1 and launched() == 1:
        from r1v0.jobs.launch import launch

        return launch(arguments.processes)
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
        assert settled is not None
        from r1v0.jobs import train

        if arguments.requeue:
            train.requeue(settled, arguments.out, arguments.set)
        else:
            train.begin(settled, arguments.out, arguments.config.stem if arguments.config else settled.preset or "run")
    return None


def _eval(arguments: argparse.Namespace) -> None:
    from r1v0.report import plot_groups
    from r1v0.report.progress import open_progress
    from r1v0.report.table import evaluation_table
    from r1v0.tasks.prompts import words_of

    settled = settle(arguments)
    if not settled.config.eval.on:
        raise UserError("eval.on is []: name what to measure, for example --on countdown")
    if settled.origins["eval.on"] == config.DEFAULT:
        raise UserError("nothing says what to measure: name datasets, for example --on math500,aime24")
    templates = arguments.template.split(",") if arguments.template else [settled.config.prompt.template]
    for template in templates:
        words_of(config.with_template(settled.config, template).prompt)
    from r1v0.grpo import parallel  # imports torch
    from r1v0.jobs.eval import measure
    from r1v0.models.processes import processes

    with processes(), ExitStack() as stack:
        out = arguments.out or parallel.first(lambda: stack.enter_context(claimed("eval")), str, Path)
        progress = stack.enter_context(open_progress(figures=False) if speaks() else Progress())
        try:
            told, rows = measure(arguments.model, settled, templates, out, progress, arguments.against)
        except Interrupted:
            progress.note(f"stopped: the same command with  --out {out}  goes on with the answers that are there")
            raise
        except Lost as error:
            raise Lost(
                f"{error}; the same command with  --out {out}  goes on with the answers that are there"
            ) from None
    if not speaks():
        return
    print("\n".join(told), evaluation_table(rows), sep="\n\n")
    figures = plot_groups({out.name: [out]}) if len(rows) > 1 else []
    print(f"answers{' and figures' if figures else ''}: {out}")


def _sample(arguments: argparse.Namespace) -> None:
    settled = settle(arguments)
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


def _bench(arguments: argparse.Namespace) -> None:
    for name in ("rounds", "threads"):
        if getattr(arguments, name) < (name == "rounds"):
            raise UserError(f"--{name} is {getattr(arguments, name)}: expected at least {int(name == 'rounds')}")
    from r1v0.jobs.bench.verb import bench  # imports torch

    bench(arguments.model, arguments.rounds, arguments.threads, arguments.quick)
