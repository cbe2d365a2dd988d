"""What the verbs of the command line share: one-line mistakes, paths, and the settings of a run."""

import argparse
from pathlib import Path
from typing import Any, NoReturn, Protocol

from r1v0.base.errors import UserError
from r1v0.runs import settings


class Verb(Protocol):
    """Adds a verb of this name and description. Its help ends with the examples, each what follows `r1v0 NAME`; the
    first one runs as it stands after those of the verbs before it, in an empty folder and without a network."""

    def __call__(self, name: str, text: str, *examples: str) -> argparse.ArgumentParser: ...


class Parser(argparse.ArgumentParser):
    """argparse, but a mistake is one line."""

    def error(self, message: str) -> NoReturn:
        raise UserError(f"{message}: see `{self.prog} --help`")


def path(text: str) -> Path:
    """An option's path. An empty one, of a shell variable that is not set, would be the working folder."""
    if not text.strip() or "\0" in text:
        raise argparse.ArgumentTypeError(
            "the path is empty, give one" if not text.strip() else "a path has no zero byte"
        )
    return Path(text)


def config_options(parser: argparse.ArgumentParser) -> None:
    """The options that say how a run is set; `settle` reads them."""
    parser.add_argument(
        "--preset",
        metavar="NAME",
        help="named settings (default: those of the model's run, of the dataset, or countdown)",
    )
    parser.add_argument("--config", type=path, metavar="FILE", help="TOML file of settings, over the preset's")
    parser.add_argument(
        "--set", action="append", default=[], metavar="KEY=VALUE", help="one setting, over both; may be repeated"
    )


def settle(arguments: argparse.Namespace) -> settings.Settled:
    """The settings of a verb, by the one rule for all of them."""
    model, on, flags = getattr(arguments, "model", None), getattr(arguments, "on", None), dict[str, dict[str, Any]]()
    if on is not None:
        flags["--on"] = {"eval": {"on": [name.strip() for name in on.split(",")]}}
    if arguments.verb == "eval" and arguments.samples is not None:
        flags["--samples"] = {"eval": {"samples": arguments.samples}}
    evaluates = on is not None or model is not None
    return settings.settle(model, arguments.preset, arguments.config, arguments.set, flags, evaluates)
