"""`r1v0 new FOLDER`: the files of a first own run, to be changed line by line."""

from pathlib import Path

from r1v0.base.command import typed
from r1v0.base.errors import UserError
from r1v0.base.writing import write_atomic, writing

# One-digit sums: the small model of RUN solves about one in five, so most groups have right and wrong answers.
DATA = """\
{"problem": "What is the sum of 3 and 4?", "answer": "7"}
{"problem": "What do you get if you add 8 and 5?", "answer": "13"}
{"problem": "Mia has 6 apples and buys 2 more. How many apples has she now?", "answer": "8"}
{"problem": "What is 9 plus 7?", "answer": "16"}
{"problem": "Ben had 9 marbles and lost 5. How many are left?", "answer": "4"}
"""

REWARD = '''\
"""What an answer is worth. `r1v0 check run.toml` tries it on your own right answers before anything is trained."""

import re


def reward(problem, text, finished):
    """1 if the last number of a finished answer is the right one. problem has .question and .answer."""
    numbers = re.findall(r"-?[0-9]+", text)
    return 1.0 if finished and numbers and numbers[-1] == problem.answer else 0.0
'''

RUN = """\
model = "HuggingFaceTB/SmolLM2-135M-Instruct"  # a folder or a hub id; 135 M weights train on a laptop
steps = 30                                     # each one samples, grades and updates
data.name = "mine"                             # any name
data.path = "data.jsonl"                       # questions and answers; .csv and .parquet too
reward.name = "reward.py:reward"               # or "math", which reads a box
prompt.template = "chat"                       # the model's own; compare others by r1v0 eval --template
sampling.max_new_tokens = 256                  # longer answers are cut off, and are worth 0
grpo.groups = 5                                # problems per step
grpo.group_size = 8                            # answers per problem, which are compared with each other
optimizer.lr = 1e-5                            # too high: the policy collapses in the first steps
eval.on = []                                   # better: ["held=held.jsonl"], problems that are not trained on
checkpoints.every = 10                         # steps between checkpoints
"""

FILES = {"data.jsonl": DATA, "reward.py": REWARD, "run.toml": RUN}


def create(folder: Path) -> list[str]:
    """Write the files into a new folder; what to type then. Raises UserError if there is something in it already."""
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise UserError(f"{folder} is there already and not empty: name a new folder")
    with writing(folder):
        folder.mkdir(parents=True, exist_ok=True)
        for name, text in FILES.items():
            write_atomic(folder / name, text.encode("utf-8"))
    return [f"cd {folder}", typed("check", "run.toml"), typed("train", "--config", "run.toml")]
