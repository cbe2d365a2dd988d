"""The command line: parse, call one function, turn errors into exit codes.

Decides: 0 is fine; 2 is a mistake of the user's, one line on stderr and nothing overwritten; 130 is an interruption
after a clean checkpoint. A traceback is always a defect of ours. torch is imported only by verbs that compute.
"""

import argparse
import json
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NoReturn

from r1v0 import __version__, config, runlog
from r1v0.errors import Interrupted, UserError, unknown


class _Parser(argparse.ArgumentParser):
    """argparse, but a mistake is one line."""

    def error(self, message: str) -> NoReturn:
        raise UserError(f"{message}: see `{self.prog} --help`")


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


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(
        prog="r1v0",
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
        "--out", type=Path, metavar="DIR", help="run folder to make (default: the next free one in runs/)"
    )
    train.add_argument(
        "--resume", type=Path, metavar="DIR", help="go on with the run in this folder from its newest checkpoint"
    )

    evaluate = verb(
        "eval", _eval, "measure a model on named datasets; goes on where it was stopped if --out is the same"
    )
    evaluate.add_argument("model", metavar="MODEL", help="folder, run folder, hub id or 'tiny'")
    evaluate.add_argument("--on", metavar="NAME[,NAME]", help="datasets (default: those of the preset)")
    evaluate.add_argument("--samples", type=int, metavar="K", help="answers a problem")
    evaluate.add_argument("--template", metavar="NAME[,NAME]", help="prompt templates to compare")
    evaluate.add_argument(
        "--against", type=Path, metavar="DIR", help="an earlier evaluation's folder: print paired differences"
    )
    evaluate.add_argument(
        "--out", type=Path, metavar="DIR", help="folder for the answers (default: the next free one in runs/)"
    )
    _config_options(evaluate)

    sample = verb("sample", _sample, "answer one problem, as text")
    sample.add_argument("model", metavar="MODEL", help="folder, run folder, hub id or 'tiny'")
    sample.add_argument("problem", metavar="PROBLEM", help='for example "3 7 4 target 17"')
    sample.add_argument("--samples", type=int, default=1, metavar="K", help="answers to draw")
    _config_options(sample)

    plot = verb("plot", _plot, "draw a run's figures, or several runs over one another")
    plot.add_argument(
        "runs", nargs="+", metavar="RUN", help="run folder, or LABEL=RUN[,RUN...] for the seeds of one setting"
    )
    plot.add_argument("--out", type=Path, metavar="FILE", help="picture to write (default: RUN/figures/)")

    verify = verb("verify", _verify, "grade an answer against a gold answer, and say why")
    verify.add_argument("gold", nargs="?", metavar="GOLD")
    verify.add_argument("answer", nargs="?", metavar="ANSWER")
    verify.add_argument("--batch", type=Path, metavar="FILE", help='JSON lines {"gold", "pred"} to grade')
    verify.add_argument("--reward", default="math", metavar="NAME", help="which reward decides (default: math)")

    pretrain = verb("pretrain", _pretrain, "rebuild the embedded base model")
    pretrain.add_argument("--out", type=Path, required=True, metavar="DIR", help="model folder to make")
    pretrain.add_argument("--seed", type=int, default=0)
    pretrain.add_argument("--steps", type=int, help="optimizer steps (default: the recipe's)")
    pretrain.add_argument("--threads", type=int, default=0, help="CPU threads (default: all cores)")

    presets = verb("presets", _presets, "list the presets, or show one, or list every setting")
    presets.add_argument("name", nargs="?", metavar="NAME", help="preset to show")
    presets.add_argument("--keys", action="store_true", help="list every setting with its default")
    return parser


def _config_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--preset", metavar="NAME", help="named settings (default: countdown)")
    parser.add_argument("--config", type=Path, metavar="FILE", help="TOML file of settings, over the preset's")
    parser.add_argument(
        "--set", action="append", default=[], metavar="KEY=VALUE", help="one setting, over both; may be repeated"
    )


def _resolve(arguments: argparse.Namespace, extra: Sequence[str] = ()) -> config.Config:
    """The settings asked for. Without any, a run folder that is the MODEL brings its own; "tiny" and training, countdown."""
    model = getattr(arguments, "model", "tiny")
    if arguments.preset is None and arguments.config is None:
        if runlog.is_run(Path(model)):
            return config.resolve(file=Path(model) / runlog.CONFIG, sets=[*extra, *arguments.set])
        if model == "tiny":
            return config.resolve("countdown", sets=[*extra, *arguments.set])
    return config.resolve(arguments.preset, arguments.config, [*extra, *arguments.set])


def _next_free(prefix: str) -> Path:
    """runs/PREFIX-001, or the first number after it that is free."""
    number = 1
    while (path := Path("runs") / f"{prefix}-{number:03d}").exists():
        number += 1
    return path


def _train(arguments: argparse.Namespace) -> None:
    if arguments.resume is not None:
        if arguments.out or arguments.preset or arguments.config:
            raise UserError(
                "--resume goes on with a run as it was: leave out --out, --preset and --config (--set may change a few keys)"
            )
        folder = arguments.resume
        runlog.need_run(folder)
        settings = config.resume(config.parse(runlog.config_text(folder), str(folder / runlog.CONFIG)), arguments.set)
    else:
        settings = _resolve(arguments)
        folder = arguments.out or _next_free(
            arguments.preset or (arguments.config.stem if arguments.config else "countdown")
        )
        runlog.need_free(folder)
    from r1v0 import checkpoint, trainer  # imports torch
    from r1v0.device import device_name
    from r1v0.environment import environment
    from r1v0.report.progress import open_progress

    start = checkpoint.newest_checkpoint(folder) if arguments.resume else None
    run = trainer.prepare(settings, start)
    used = {"problems": run.problems.size or None, "malformed": run.problems.malformed, "dropped": run.problems.dropped}
    about = environment(device_name(run.policy.device), settings.threads) | {"data": used}
    if start is None:
        log = runlog.create(folder, config.to_toml(settings), about)
    else:
        log = runlog.resume(folder, config.to_toml(settings), run.state.step, about)
    with open_progress() as progress:
        try:
            progress.finish({"checkpoint": trainer.train(run, log, progress)})
        except Interrupted:
            progress.note(f"stopped after step {run.state.step}; go on with: r1v0 train --resume {folder}")
            raise


def _eval(arguments: argparse.Namespace) -> None:
    from r1v0.prompts import TEMPLATES
    from r1v0.report.progress import open_progress
    from r1v0.report.table import evaluation_table

    extra = [f"eval.on={_list(arguments.on)}"] if arguments.on is not None else []
    extra += [f"eval.samples={arguments.samples}"] if arguments.samples is not None else []
    settings = _resolve(arguments, extra)
    templates = arguments.template.split(",") if arguments.template else [settings.prompt.template]
    for template in templates:
        if template not in TEMPLATES:
            raise unknown("template", template, TEMPLATES)
    out = arguments.out or _next_free("eval")
    from r1v0.measure import measure  # imports torch

    with open_progress(figures=False) as progress:
        try:
            rows = measure(arguments.model, settings, templates, out, progress, arguments.against)
        except Interrupted:
            progress.note(f"stopped: the same command with  --out {out}  goes on with the answers that are there")
            raise
    print(evaluation_table(rows))
    print(f"answers and figures: {out}")


def _list(names: str) -> str:
    """ "a,b" as a TOML list."""
    return json.dumps([name.strip() for name in names.split(",")])


def _sample(arguments: argparse.Namespace) -> None:
    settings = _resolve(arguments)
    if arguments.samples < 1:
        raise UserError(f"--samples is {arguments.samples}: expected at least 1")
    from r1v0.measure import answers_to  # imports torch

    for text, finished in answers_to(arguments.model, arguments.problem, settings, arguments.samples):
        print(text if finished else f"{text} ... (cut off at {settings.sampling.max_new_tokens} tokens)")


def _plot(arguments: argparse.Namespace) -> None:
    from r1v0.report import parse_groups, plot_groups

    pictures = plot_groups(parse_groups(arguments.runs), arguments.out)
    if not pictures:
        print("nothing is logged yet, so nothing is drawn")
    for picture in pictures:
        print(picture)


def _verify(arguments: argparse.Namespace) -> None:
    from r1v0.rewards import verify

    settings = config.resolve(sets=[f"reward.name={json.dumps(arguments.reward)}"])
    if arguments.batch is not None:
        if arguments.gold is not None:
            raise UserError("verify takes GOLD ANSWER or --batch FILE, not both")
        print(verify.verify_batch(arguments.batch, sys.stdout, settings.reward), file=sys.stderr)
        return
    if arguments.answer is None:
        raise UserError('verify needs a gold answer and an answer, for example: r1v0 verify "\\frac{1}{2}" "0.5"')
    print("\n".join(verify.explain(arguments.gold, arguments.answer, settings.reward)))


def _pretrain(arguments: argparse.Namespace) -> None:
    from r1v0.report.progress import open_progress

    with open_progress(figures=False) as progress:
        from r1v0 import pretrain  # imports torch

        steps = arguments.steps if arguments.steps is not None else pretrain.STEPS
        if steps < 1:
            raise UserError(f"--steps is {steps}: expected at least 1")

        def show(step: int, total: int, tokens: int, loss: float) -> None:
            progress.phase("pretraining", step, total, tokens=tokens, loss=loss)

        pretrain.pretrain(arguments.out, arguments.seed, steps, arguments.threads, show)
    print(f"base model: {arguments.out}")


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
