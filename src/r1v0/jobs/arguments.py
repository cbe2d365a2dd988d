"""The command line's arguments: a table of verbs and options, and nothing else."""

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import NoReturn

from r1v0 import __version__
from r1v0.base.command import typed
from r1v0.base.errors import UserError

Verb = Callable[[str, str], argparse.ArgumentParser]


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


def parser() -> argparse.ArgumentParser:
    """The whole command line; what is parsed names its verb in `verb`."""
    whole = _Parser(
        prog=typed(),
        description="Redraw DeepSeek R1-Zero's curves on small models.",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    whole.add_argument("--version", action="version", version=f"r1v0 {__version__}")
    verbs = whole.add_subparsers(metavar="VERB", required=True, parser_class=_Parser)

    def verb(name: str, text: str) -> argparse.ArgumentParser:
        sub = verbs.add_parser(name, help=text, description=text[0].upper() + text[1:] + ".")
        sub.set_defaults(verb=name)
        return sub

    _for_models(verb)
    _for_runs(verb)
    _for_settings(verb)
    return whole


def _for_models(verb: Verb) -> None:
    """Those that load a model and compute."""
    train = verb("train", "train a model by GRPO; without arguments, the embedded countdown run")
    _config_options(train)
    train.add_argument(
        "--out", type=_path, metavar="DIR", help="run folder to make (default: the next free one in runs/)"
    )
    train.add_argument(
        "--resume", type=_path, metavar="DIR", help="go on with the run in this folder from its newest checkpoint"
    )

    evaluate = verb("eval", "measure a model on named datasets; goes on where it was stopped if --out is the same")
    evaluate.add_argument("model", metavar="MODEL", help="folder, run folder, hub id or 'tiny'")
    evaluate.add_argument("--on", metavar="NAME[,NAME]", help="datasets (default: those of the preset)")
    evaluate.add_argument("--samples", type=int, metavar="K", help="answers per problem")
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

    sample = verb("sample", "answer one problem, as text")
    sample.add_argument("model", metavar="MODEL", help="folder, run folder, hub id or 'tiny'")
    sample.add_argument("problem", metavar="PROBLEM", help='for example "3 7 4 target 17"')
    sample.add_argument("--samples", type=int, default=1, metavar="K", help="answers to draw, printed in order")
    sample.add_argument("--greedy", action="store_true", help="take the likeliest token each time, instead of drawing")
    sample.add_argument("--gold", default="", metavar="ANSWER", help="the right answer: say which answers are right")
    _config_options(sample)


def _for_runs(verb: Verb) -> None:
    """Those that look at what is there, and the recipe of the embedded base."""
    plot = verb("plot", "draw the figures of a run or an evaluation, or several over one another")
    plot.add_argument(
        "runs", nargs="+", metavar="RUN", help="run folder, or LABEL=RUN[,RUN...] for the seeds of one setting"
    )
    plot.add_argument(
        "--out",
        type=_path,
        metavar="FILE",
        help="picture or folder to write (default: RUN/figures/; of several runs ./compare.png)",
    )

    verify = verb("verify", "grade an answer against a gold answer, and say why (exit code 1: not right)")
    verify.add_argument("gold", nargs="?", metavar="GOLD")
    verify.add_argument("answer", nargs="?", metavar="ANSWER")
    verify.add_argument("--batch", type=_path, metavar="FILE", help='JSON lines {"gold", "pred"} to grade')
    verify.add_argument("--reward", default="math", metavar="NAME", help="which reward decides (default: math)")

    doctor = verb(
        "doctor",
        "tell what went well or wrong in a run, each with the figure that shows it (exit code 1: a problem)",
    )
    doctor.add_argument("runs", nargs="+", type=_path, metavar="RUN", help="run folder, finished or not")
    doctor.add_argument("--json", action="store_true", help="print the findings as JSON")

    pretrain = verb("pretrain", "rebuild the embedded base model")
    pretrain.add_argument("--out", type=_path, required=True, metavar="DIR", help="model folder to make")
    pretrain.add_argument("--seed", type=int, default=0)
    pretrain.add_argument("--steps", type=int, help="optimizer steps (default: the recipe's)")
    pretrain.add_argument("--threads", type=int, default=0, help="CPU threads (default: all cores)")


def _for_settings(verb: Verb) -> None:
    """Those about what a run would be."""
    new = verb("new", "write the files of a first own run: data, a reward, settings; and say what to type")
    new.add_argument("folder", type=_path, metavar="FOLDER", help="folder to make")

    check = verb("check", "try on a few problems all that a run needs: can this be trained? (exit code 1: not yet)")
    check.add_argument("file", nargs="?", type=_path, metavar="FILE", help="TOML file of settings, as for --config")
    _config_options(check)

    plan = verb("plan", "tell before a run whether it fits, where the memory goes, and how long a step takes")
    plan.add_argument("--gpu-memory", type=float, metavar="GB", help="a GPU with so much memory")
    plan.add_argument(
        "--card", metavar="NAME", help="a GPU by name: a100, h100, 4090, l4, ... (without both: this CPU)"
    )
    plan.add_argument("--length", type=int, metavar="TOKENS", help="mean completion (default: a quarter of the limit)")
    _config_options(plan)

    bench = verb(
        "bench", "measure sampling and training on this machine, beside transformers and TRL if they are there"
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

    shown = verb("config", "print the resolved settings, as a file for --config, with where each comes from")
    shown.add_argument("model", nargs="?", metavar="MODEL", help="as for eval and sample; without it, as for train")
    shown.add_argument("--on", metavar="NAME[,NAME]", help="datasets, as for eval")
    _config_options(shown)

    presets = verb("presets", "list the presets, or show one, or list every setting")
    presets.add_argument("name", nargs="?", metavar="NAME", help="preset to show")
    presets.add_argument("--keys", action="store_true", help="list every setting with its default")


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
