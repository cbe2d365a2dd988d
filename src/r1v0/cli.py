"""The command line: parse, call one function, turn errors into exit codes.

Decides: 0 is fine; 1 is a plan that does not fit; 2 is a mistake of the user's, one line on stderr and nothing overwritten; 130 is an interruption
after a clean checkpoint. A traceback is always a defect of ours. torch is imported only by verbs that compute.
"""

import argparse
import errno
import json
import os
import shutil
import sys
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any, NoReturn

from r1v0 import __version__, config
from r1v0.base.command import typed
from r1v0.base.errors import Interrupted, UserError
from r1v0.runs import runlog, settings

# What the system says of a path that a user should not have given; any other OSError is a defect of ours.
NO_PATH = {errno.ENAMETOOLONG, errno.ELOOP, errno.ENOTDIR, errno.EACCES, errno.EPERM, errno.EROFS}


class _Parser(argparse.ArgumentParser):
    """argparse, but a mistake is one line."""

    def error(self, message: str) -> NoReturn:
        raise UserError(f"{message}: see `{self.prog} --help`")


def _path(text: str) -> Path:
    """An option's path. An empty one, of a shell variable that is not set, would be the working folder."""
    if not text.strip() or "\0" in text:
        raise argparse.ArgumentTypeError(
            "the path is empty, give one" if not text.strip() else "a path has no zero byte"
        )
    return Path(text)


def main(argv: Sequence[str] | None = None) -> int:
    """Run one verb and return the exit code."""
    # libgomp's threads spin while they wait for each other. On a machine that does anything else, the one that spins
    # holds the core that the other needs: a decoding step of the tiny model took 28 ms instead of 7 (median, one busy
    # core of two). Waiting asleep costs nothing measurable on an idle machine. Must be set before torch is imported.
    os.environ.setdefault("GOMP_SPINCOUNT", "1000")
    try:
        arguments = _parser().parse_args(argv)
        result: int | None = arguments.run(arguments)
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


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(
        prog=typed(),
        description="Redraw DeepSeek R1-Zero's curves on small models.",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"r1v0 {__version__}")
    verbs = parser.add_subparsers(metavar="VERB", required=True, parser_class=_Parser)

    def verb(name: str, run: Callable[[argparse.Namespace], int | None], text: str) -> argparse.ArgumentParser:
        sub = verbs.add_parser(name, help=text, description=text[0].upper() + text[1:] + ".")
        sub.set_defaults(run=run)
        return sub

    train = verb("train", _train, "train a model by GRPO; without arguments, the embedded countdown run")
    _config_options(train)
    train.add_argument(
        "--out", type=_path, metavar="DIR", help="run folder to make (default: the next free one in runs/)"
    )
    train.add_argument(
        "--resume", type=_path, metavar="DIR", help="go on with the run in this folder from its newest checkpoint"
    )

    evaluate = verb(
        "eval", _eval, "measure a model on named datasets; goes on where it was stopped if --out is the same"
    )
    evaluate.add_argument("model", metavar="MODEL", help="folder, run folder, hub id or 'tiny'")
    evaluate.add_argument("--on", metavar="NAME[,NAME]", help="datasets (default: those of the preset)")
    evaluate.add_argument("--samples", type=int, metavar="K", help="answers a problem")
    evaluate.add_argument(
        "--template", metavar="NAME[,FILE]", help="prompt templates to compare: names, chat, or .toml files"
    )
    evaluate.add_argument(
        "--against", type=_path, metavar="DIR", help="an earlier evaluation's folder: print paired differences"
    )
    evaluate.add_argument(
        "--out", type=_path, metavar="DIR", help="folder for the answers (default: the next free one in runs/)"
    )
    _config_options(evaluate)

    sample = verb("sample", _sample, "answer one problem, as text")
    sample.add_argument("model", metavar="MODEL", help="folder, run folder, hub id or 'tiny'")
    sample.add_argument("problem", metavar="PROBLEM", help='for example "3 7 4 target 17"')
    sample.add_argument("--samples", type=int, default=1, metavar="K", help="answers to draw, printed in order")
    sample.add_argument("--greedy", action="store_true", help="take the likeliest token each time, instead of drawing")
    sample.add_argument("--gold", default="", metavar="ANSWER", help="the right answer: say which answers are right")
    _config_options(sample)

    plot = verb("plot", _plot, "draw the figures of a run or an evaluation, or several over one another")
    plot.add_argument(
        "runs", nargs="+", metavar="RUN", help="run folder, or LABEL=RUN[,RUN...] for the seeds of one setting"
    )
    plot.add_argument(
        "--out",
        type=_path,
        metavar="FILE",
        help="picture or folder to write (default: RUN/figures/; of several runs ./compare.png)",
    )

    verify = verb("verify", _verify, "grade an answer against a gold answer, and say why (exit code 1: not right)")
    verify.add_argument("gold", nargs="?", metavar="GOLD")
    verify.add_argument("answer", nargs="?", metavar="ANSWER")
    verify.add_argument("--batch", type=_path, metavar="FILE", help='JSON lines {"gold", "pred"} to grade')
    verify.add_argument("--reward", default="math", metavar="NAME", help="which reward decides (default: math)")

    doctor = verb(
        "doctor",
        _doctor,
        "tell what went well or wrong in a run, each with the figure that shows it (exit code 1: a problem)",
    )
    doctor.add_argument("runs", nargs="+", type=_path, metavar="RUN", help="run folder, finished or not")
    doctor.add_argument("--json", action="store_true", help="print the findings as JSON")

    pretrain = verb("pretrain", _pretrain, "rebuild the embedded base model")
    pretrain.add_argument("--out", type=_path, required=True, metavar="DIR", help="model folder to make")
    pretrain.add_argument("--seed", type=int, default=0)
    pretrain.add_argument("--steps", type=int, help="optimizer steps (default: the recipe's)")
    pretrain.add_argument("--threads", type=int, default=0, help="CPU threads (default: all cores)")

    plan = verb("plan", _plan, "tell before a run whether it fits, where the memory goes, and how long a step takes")
    plan.add_argument("--gpu-memory", type=float, metavar="GB", help="a GPU with so much memory")
    plan.add_argument(
        "--card", metavar="NAME", help="a GPU by name: a100, h100, 4090, l4, ... (without both: this CPU)"
    )
    plan.add_argument("--length", type=int, metavar="TOKENS", help="mean completion (default: a quarter of the limit)")
    _config_options(plan)

    bench = verb(
        "bench", _bench, "measure sampling and training on this machine, beside transformers and TRL if they are there"
    )
    bench.add_argument(
        "model", nargs="?", default="tiny", metavar="MODEL", help="folder, run folder, hub id or 'tiny' (default)"
    )
    bench.add_argument(
        "--rounds", type=int, default=3, help="rounds of each measurement; medians are shown (default: 3)"
    )
    bench.add_argument("--threads", type=int, default=0, help="CPU threads (default: all cores)")
    bench.add_argument("--alone", action="store_true", help="r1v0 only, even if others are installed")
    bench.add_argument("--quick", action="store_true", help="a few tokens only: does everything run?")

    shown = verb("config", _config, "print the resolved settings, as a file for --config, with where each comes from")
    shown.add_argument("model", nargs="?", metavar="MODEL", help="as for eval and sample; without it, as for train")
    shown.add_argument("--on", metavar="NAME[,NAME]", help="datasets, as for eval")
    _config_options(shown)

    presets = verb("presets", _presets, "list the presets, or show one, or list every setting")
    presets.add_argument("name", nargs="?", metavar="NAME", help="preset to show")
    presets.add_argument("--keys", action="store_true", help="list every setting with its default")
    return parser


def _config_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--preset",
        metavar="NAME",
        help="named settings (default: those of the model's run, of the dataset, or countdown)",
    )
    parser.add_argument("--config", type=_path, metavar="FILE", help="TOML file of settings, over the preset's")
    parser.add_argument(
        "--set", action="append", default=[], metavar="KEY=VALUE", help="one setting, over both; may be repeated"
    )


def _settle(arguments: argparse.Namespace) -> settings.Settled:
    """The settings of a verb, by the one rule for all of them."""
    model, on, flags = getattr(arguments, "model", None), getattr(arguments, "on", None), dict[str, dict[str, Any]]()
    if on is not None:
        flags["--on"] = {"eval": {"on": [name.strip() for name in on.split(",")]}}
    if arguments.run is _eval and arguments.samples is not None:
        flags["--samples"] = {"eval": {"samples": arguments.samples}}
    evaluates = on is not None or model is not None
    return settings.settle(model, arguments.preset, arguments.config, arguments.set, flags, evaluates)


def _train(arguments: argparse.Namespace) -> None:
    if arguments.resume is not None:
        if arguments.out or arguments.preset or arguments.config:
            raise UserError(
                "--resume goes on with a run as it was: leave out --out, --preset and --config (--set may change a few keys)"
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
        out = arguments.out or stack.enter_context(runlog.claimed("eval"))
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


def _presets(arguments: argparse.Namespace) -> None:
    if arguments.keys:
        for key, (value, text) in config.described().items():
            print(f"{key} = {value}\n    {text}")
    elif arguments.name:
        print(config.preset_text(arguments.name), end="")
    else:
        width = max(map(len, config.presets()))
        for name, text in config.presets().items():
            print(f"{name:{width}}  {text}")
