"""The verbs around a run's settings, and the judge: new, check, plan, config, presets, verify."""

import argparse
import json
import shutil
import sys

from r1v0 import config
from r1v0.base.command import typed
from r1v0.base.errors import UserError
from r1v0.jobs.arguments import Verb, config_options, path, settle
from r1v0.runs import settings


def add(verb: Verb) -> None:
    """The arguments of these verbs."""
    new = verb("new", "write the files of a first own run: data, a reward, settings; and say what to type", "first")
    new.add_argument("folder", type=path, metavar="FOLDER", help="folder to make")
    new.set_defaults(run=_new)

    check = verb(
        "check",
        "try on a few problems all that a run needs: can this be trained? (exit code 1: not yet)",
        "--preset countdown",
        "first/run.toml",
    )
    check.add_argument("file", nargs="?", type=path, metavar="FILE", help="TOML file of settings, as for --config")
    config_options(check)
    check.set_defaults(run=_check)

    plan = verb(
        "plan",
        "tell before a run whether it fits, where the memory goes, and how long a step takes",
        "--preset qwen2.5-1.5b-math --card a100",
        "--preset smollm2-135m-sums",
    )
    plan.add_argument("--gpu-memory", type=float, metavar="GB", help="a GPU with so much memory")
    plan.add_argument(
        "--card", metavar="NAME", help="a GPU by name: a100, h100, 4090, l4, ... (without both: this CPU)"
    )
    plan.add_argument("--length", type=int, metavar="TOKENS", help="mean completion (default: a quarter of the limit)")
    plan.add_argument("--gpus", type=int, default=1, metavar="N", help="cards of a node, one process each (default: 1)")
    plan.add_argument("--nodes", type=int, default=1, metavar="M", help="nodes with so many cards each (default: 1)")
    plan.add_argument(
        "--network", type=float, default=100, metavar="GBIT", help="Gbit/s of a node to others (default: 100)"
    )
    config_options(plan)
    plan.set_defaults(run=_plan)

    shown = verb(
        "config",
        "print the resolved settings, as a file for --config, with where each comes from",
        "--set seed=1",
        "--preset countdown > mine.toml",
    )
    shown.add_argument("model", nargs="?", metavar="MODEL", help="as for eval and sample; without it, as for train")
    shown.add_argument("--on", metavar="NAME[,NAME]", help="datasets, as for eval")
    config_options(shown)
    shown.set_defaults(run=_config)

    presets = verb("presets", "list the presets, or show one, or list every setting", "countdown", "--keys")
    presets.add_argument("name", nargs="?", metavar="NAME", help="preset to show")
    presets.add_argument("--keys", action="store_true", help="list every setting with its default")
    presets.set_defaults(run=_presets)

    verify = verb(
        "verify",
        "grade an answer against a gold answer, and say why (exit code 1: not right)",
        r"'\frac{1}{2}' 0.5",
        "--batch pairs.jsonl",
    )
    verify.add_argument("gold", nargs="?", metavar="GOLD")
    verify.add_argument("answer", nargs="?", metavar="ANSWER")
    verify.add_argument("--batch", type=path, metavar="FILE", help='JSON lines {"gold", "completion"} to grade')
    verify.add_argument("--reward", default="math", metavar="NAME", help="which reward decides (default: math)")
    verify.set_defaults(run=_verify)


def _new(arguments: argparse.Namespace) -> None:
    from r1v0.jobs.new import create

    print("\n".join([f"made {arguments.folder}; now type", *(f"    {line}" for line in create(arguments.folder))]))


def _check(arguments: argparse.Namespace) -> int:
    from r1v0.jobs import doctor
    from r1v0.report.progress import open_progress

    if arguments.file is not None and arguments.config is not None:
        raise UserError(f"{arguments.file} and --config {arguments.config} are both given: leave one of them out")
    arguments.config = arguments.config or arguments.file
    settled = settle(arguments)
    from r1v0.jobs.check import preflight, verdict  # imports torch

    with open_progress(figures=False) as progress:
        findings = preflight(settled.config, progress)
    width = min(140, shutil.get_terminal_size().columns)
    print(settled.line, *(line for finding in findings for line in doctor.lines_of(finding, 12, width)), sep="\n")
    print(verdict(findings))
    return int(any(finding.mark == "problem" for finding in findings))


def _plan(arguments: argparse.Namespace) -> int:
    from r1v0.jobs.plan import make_plan
    from r1v0.jobs.plan.cost import Cluster
    from r1v0.jobs.plan.report import report

    settled = settle(arguments)
    asked, bfloat16 = settled.config, 1.0
    on_cpu = arguments.card is None and arguments.gpu_memory is None
    if on_cpu and {asked.compute.dtype, asked.sampling.dtype} & {"fastest", "bfloat16"}:
        from r1v0.models import device  # imports torch

        asked, bfloat16 = device.settled(asked), device.bfloat16_cost()
    cluster = Cluster(arguments.gpus, arguments.nodes, arguments.network * 1e9 / 8)
    plan = make_plan(asked, arguments.card, arguments.gpu_memory, arguments.length, bfloat16, cluster=cluster)
    given = ["--preset", arguments.preset] if arguments.preset else []
    given += ["--config", str(arguments.config)] if arguments.config else []
    given += [word for setting in arguments.set for word in ("--set", setting)]
    print(f"{settled.line}\n\n{report(plan, given)}")
    return 0 if plan.fits else 1


def _config(arguments: argparse.Namespace) -> None:
    settled = settle(arguments)
    print(settled.toml(), end="")
    if arguments.model is not None or arguments.on is not None:
        print("\n".join(["", *(f"# {line}" for line in settings.evaluations(settled))]))


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
