"""The verb that gives a run to others: push."""

import argparse

from r1v0.jobs.arguments import Verb, path


def add(verb: Verb) -> None:
    """The arguments of this verb."""
    push = verb(
        "push",
        "send a checkpoint with its model card to a repository on the hub, without trainer/",
        "runs/countdown-001 me/countdown --dry-run",
        "runs/countdown-001 me/countdown --private",
    )
    push.add_argument("run_folder", type=path, metavar="RUN", help="run folder, or one of its checkpoints")
    push.add_argument("name", nargs="?", metavar="OWNER/NAME", help="the repository; it is made if there is none")
    push.add_argument("--step", type=int, metavar="N", help="the checkpoint of this step (default: the newest)")
    push.add_argument("--private", action="store_true", help="make the repository a private one")
    push.add_argument("--card-only", action="store_true", help="print the model card, send nothing; needs no network")
    push.add_argument("--dry-run", action="store_true", help="list what would go, send nothing; needs no network")
    push.set_defaults(run=_push)


def _push(arguments: argparse.Namespace) -> None:
    from r1v0.jobs import push

    name = push.need_name(arguments.name) if arguments.name or not arguments.card_only else ""
    upload = push.prepared(arguments.run_folder, name, arguments.step)
    if arguments.card_only:
        print(upload.card, end="")
    elif arguments.dry_run:
        print(f"{upload.listed()}\n{upload.checkpoint.name} would go to {name}; nothing was sent")
    else:
        print(push.push(upload, name, arguments.private))
