"""What a run is made of: dataclasses, TOML presets, and strict resolution.

Decides: every setting has one place, one default and one help string (the string under the field). Precedence:
defaults < preset < file < --set. An unknown key is an error with a suggestion, never ignored; a value that would make
the numbers wrong is refused (`validate`). `grpo.variant` is a name for a row of settings (`VARIANTS`): it is applied
where it is named, and any setting named beside it wins. The resolved config, written to a run's config.toml, alone
reproduces the run.
"""

import ast
import dataclasses
import difflib
import inspect
import json
import math
import tomllib
import typing
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any, Literal, get_args, get_origin

from r1v0.base import reading
from r1v0.base.command import typed
from r1v0.base.errors import UserError, unknown

PRESET_DIR = Path(__file__).parent / "presets"
MAX_TOML = 1 << 20


@dataclass(frozen=True)
class DataConfig:
    name: str = "countdown-train"
    """training problems: a dataset's name, several joined by "+" ("math+gsm8k=FILE"), or a name of yours with data.path"""
    path: str = ""
    """a local file or folder (JSONL or parquet, the hub's own format), or a hub id; empty: the dataset's own place"""
    split: str = ""
    """split of a hub dataset; empty: the dataset's own"""
    question_column: str = ""
    """column that holds the question; empty: the dataset's own"""
    answer_column: str = ""
    """column that holds the gold answer; empty: the dataset's own"""
    levels: list[int] = field(default_factory=list)
    """keep only problems of these levels, where the dataset has levels; empty: all"""
    max_problems: int = 0
    """keep the first so many problems of a seeded shuffle; 0: all"""
    avoid: list[str] = field(default_factory=list)
    """drop training problems that occur in these datasets (those of eval.on are always dropped)"""


@dataclass(frozen=True)
class PromptConfig:
    template: str = "question"
    """prompt template: a name, "chat" (the model's own chat template), or a .toml file with your text and stop"""
    text: str = ""
    """your own words, with {question} where it belongs; empty: the template's, and with "chat" the question alone"""
    stop: list[str] = field(default_factory=list)
    """texts that end an answer, beside the end token and those of the template"""


@dataclass(frozen=True)
class SamplingConfig:
    temperature: float = 1.0
    """divides the logits, in sampling and in training alike"""
    max_new_tokens: int = 320
    """length limit of a completion, in tokens; a completion cut there is "truncated" and scores 0"""
    slots: int = 128
    """sequences decoded at the same time; 0: as many as memory allows, up to 128 on a CPU and 256 on a GPU"""
    dtype: Literal["auto", "bfloat16"] = "auto"
    """auto samples with the very weights that are trained; bfloat16 with a rounded copy: see policy/mismatch_kl"""


@dataclass(frozen=True)
class RewardConfig:
    name: str = "auto"
    """the reward that decides "correct", by name; or FILE.py:FUNCTION for your own; "auto" is the dataset's own"""
    extraction: Literal["boxed", "last"] = "boxed"
    """what `math` and `gsm8k` read: "boxed" a box, answer tags or ####; "last" also the last value where none is stated"""
    extra: dict[str, float] = field(default_factory=dict)
    """further named rewards with their weights, added to the main one (weight 1)"""
    control: Literal["none", "random"] = "none"
    """"random" replaces each reward by a coin of the batch's mean reward: a control that must not learn"""
    timeout_s: float = 5.0
    """a grading that takes longer is killed, counts as wrong and is reported"""
    memory_mb: int = 2048
    """memory limit of a grading process"""
    workers: int = 2
    """grading processes (cheap rewards run in the main process and need none)"""


@dataclass(frozen=True)
class GrpoConfig:
    variant: str = "grpo"
    """a name for the next six settings: grpo, dr_grpo, dapo, cispo, gspo"""
    surrogate: Literal["ppo", "cispo", "gspo"] = "ppo"
    """which ratio is clipped, and how (losses.py)"""
    aggregation: Literal["sequence", "token", "constant"] = "sequence"
    """how tokens are averaged: each completion alike, each token alike, or over groups x group_size x max_new_tokens"""
    advantage_scale: Literal["std", "none"] = "std"
    """divide a group's centred rewards by their standard deviation, or not"""
    clip_low: float = 0.2
    """a ratio below 1 - clip_low is clipped"""
    clip_high: float = 0.2
    """a ratio above 1 + clip_high is clipped (cispo: TRL's epsilon_high less 1)"""
    refill: bool = False
    """replace flat groups by sampling further problems until `groups` of them have a gradient (DAPO)"""
    max_refills: int = 4
    """at most so many further rounds of sampling a step"""
    groups: int = 16
    """problems a step"""
    group_size: int = 8
    """completions a problem (G)"""
    keep_per_group: int = 0
    """train on so many random rollouts of each group, after the advantages are known; 0: all"""
    sparse: bool = True
    """drop rollouts whose gradient is exactly 0 before the forward pass; false computes them for comparison"""
    minibatches: int = 1
    """optimizer updates a pass over the rollouts; 1 is on-policy"""
    epochs: int = 1
    """passes over the rollouts of a step"""
    kl_coef: float = 0.0
    """weight of the KL term to the starting model; 0 loads no reference model"""


@dataclass(frozen=True)
class OptimizerConfig:
    lr: float = 3e-4
    """peak learning rate of AdamW; docs/algorithm.md has a table by size and method"""
    warmup_steps: int = 5
    """steps of linear warm-up"""
    schedule: Literal["constant", "cosine"] = "constant"
    """learning rate after the warm-up; cosine falls to a tenth at the last step"""
    beta1: float = 0.9
    """AdamW's decay of the mean gradient"""
    beta2: float = 0.95
    """AdamW's decay of the mean squared gradient"""
    weight_decay: float = 0.0
    """AdamW's decoupled weight decay, on matrices only"""
    grad_clip: float = 1.0
    """largest norm of the gradient"""
    micro_batch_tokens: int = 0
    """tokens trained on at a time (on a CPU by all threads), halved when memory runs out; 0: by free memory. Cannot change the gradient"""
    states: Literal["float32", "8bit"] = "float32"
    """AdamW's moments; 8bit keeps them in a quarter of the memory (needs bitsandbytes), bfloat16 weights then without masters"""
    offload: bool = False
    """keep AdamW's moments and the master weights in CPU memory, and update them there: for a GPU that is too small"""


@dataclass(frozen=True)
class LoraConfig:
    rank: int = 0
    """train adapters of this rank on all linear layers and freeze the model (LoRA); 0 trains the whole model"""
    alpha: float = 16.0
    """the adapters' output is scaled by alpha / rank"""


@dataclass(frozen=True)
class ComputeConfig:
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """where the model lives; auto takes the GPU if there is one"""
    dtype: Literal["auto", "float32", "bfloat16", "fastest"] = "auto"
    """type of activations: auto is float32 on a CPU and bfloat16 on a GPU, fastest bfloat16 also on a CPU that has it"""
    checkpoint_activations: bool = False
    """recompute each layer in the backward pass instead of keeping it: less memory, a third more time"""


@dataclass(frozen=True)
class EvalConfig:
    on: list[str] = field(default_factory=lambda: ["countdown", "countdown-hard"])
    """datasets, by name; the first two are the figures' "accuracy" and "hard accuracy" """
    every: int = 10
    """steps between evaluations; there is always one before the first step and one after the last"""
    samples: int = 1
    """completions a problem (k of pass@k and maj@k)"""
    max_problems: int = 256
    """at most so many problems of a dataset, the same ones each time; 0: all"""
    max_new_tokens: int = 0
    """length limit in tokens; 0: that of training"""
    temperature: float = 1.0
    """temperature of evaluation; 0 is greedy"""


@dataclass(frozen=True)
class CheckpointsConfig:
    keep_last: int = 0
    """delete all but so many of the newest checkpoints, once a new one is safe; 0: keep all"""
    keep_best: int = 0
    """keep so many more: those with the best accuracy on the first dataset of eval.on, of those that were evaluated"""


@dataclass(frozen=True)
class HealthConfig:
    action: Literal["warn", "stop", "rollback"] = "warn"
    """what a sign of collapse does: a warning, the end of the run, or back to the best checkpoint at a lower rate"""
    max_skipped: int = 3
    """so many steps in a row with a non-finite loss or gradient end the run; each skips its update"""
    max_rollbacks: int = 2
    """after so many rollbacks the next one ends the run"""
    rollback_lr: float = 0.5
    """each rollback multiplies the learning rate by this"""
    entropy_low: float = 0.1
    """alarm where the entropy falls below this share of the run's first steps; 0: never"""
    entropy_high: float = 4.0
    """alarm where the entropy rises above so many times that of the run's first steps; 0: never"""
    reward_fall: float = 0.2
    """alarm where the mean reward has lost this share of its best, by more than its noise; 0: never"""
    truncated: float = 0.5
    """alarm where more than this share of completions is cut off; 0: never"""
    mismatch_kl: float = 0.05
    """alarm where the sampler's and the trainer's distributions are further apart, in nats a token; 0: never"""
    grad_spike: float = 10.0
    """alarm where gradient norms are again and again so many times their median; 0: never"""


@dataclass(frozen=True)
class Config:
    model: str = "tiny"
    """a Hugging Face folder, a hub id, a run folder (its newest checkpoint), or "tiny", the embedded base model"""
    seed: int = 0
    """random numbers are keyed by it; the same seed gives the same run"""
    steps: int = 80
    """training steps"""
    checkpoint_every: int = 20
    """steps between checkpoints; there is always one at the end"""
    threads: int = 0
    """CPU threads; 0: all cores. The same number gives the same run, another one rounds otherwise"""
    data: DataConfig = field(default_factory=DataConfig)
    prompt: PromptConfig = field(default_factory=PromptConfig)
    sampling: SamplingConfig = field(default_factory=SamplingConfig)
    reward: RewardConfig = field(default_factory=RewardConfig)
    grpo: GrpoConfig = field(default_factory=GrpoConfig)
    optimizer: OptimizerConfig = field(default_factory=OptimizerConfig)
    lora: LoraConfig = field(default_factory=LoraConfig)
    eval: EvalConfig = field(default_factory=EvalConfig)
    compute: ComputeConfig = field(default_factory=ComputeConfig)
    checkpoints: CheckpointsConfig = field(default_factory=CheckpointsConfig)
    health: HealthConfig = field(default_factory=HealthConfig)


# Papers' names for rows of settings. Sources: grpo DeepSeekMath (arXiv 2402.03300, eq. 3); dr_grpo Understanding
# R1-Zero-Like Training (2503.20783, sec. 3.2); dapo DAPO (2503.14476, eq. 8, 11, 12); cispo MiniMax-M1 (2506.13585,
# eq. 4: no lower bound; the cap of 5 is that of ScaleRL, 2510.13786, and TRL);
# gspo Group Sequence Policy Optimization (2507.18071, eq. 5, and sec. 5.1 for its clip range).
VARIANTS: dict[str, dict[str, Any]] = {
    "grpo": dict(surrogate="ppo", aggregation="sequence", advantage_scale="std", clip_low=0.2, clip_high=0.2, refill=False),
    "dr_grpo": dict(surrogate="ppo", aggregation="constant", advantage_scale="none", clip_low=0.2, clip_high=0.2, refill=False),
    "dapo": dict(surrogate="ppo", aggregation="token", advantage_scale="std", clip_low=0.2, clip_high=0.28, refill=True),
    "cispo": dict(surrogate="cispo", aggregation="token", advantage_scale="std", clip_low=1.0, clip_high=4.0, refill=False),
    "gspo": dict(surrogate="gspo", aggregation="sequence", advantage_scale="std", clip_low=3e-4, clip_high=4e-4, refill=False),
}  # fmt: skip

# What a resumed run may change: how long, how often and where, but nothing that the steps so far depended on.
MAY_CHANGE = (
    "steps",
    "checkpoint_every",
    "checkpoints.keep_last",
    "checkpoints.keep_best",
    "threads",
    "eval.every",
    "optimizer.micro_batch_tokens",
    "reward.workers",
    "sampling.slots",
    "health.action",
    "health.max_skipped",
    "health.max_rollbacks",
)

# Where a thing is may change, under the same name: a run and its data are moved to another folder or machine.
MAY_MOVE = ("model", "data.name", "data.path", "data.avoid", "eval.on", "reward.name", "reward.extra")

# What a slip of the keyboard must not ask of a machine: each stands for memory, processes or time before the first step.
LARGEST = {
    "steps": 999_999_999,  # a step's name has nine digits at most (runlog.py)
    "threads": 1024,
    "sampling.max_new_tokens": 1 << 20,
    "eval.max_new_tokens": 1 << 20,
    "sampling.slots": 1 << 16,
    "grpo.groups": 1 << 16,
    "grpo.group_size": 1 << 16,
    "grpo.max_refills": 1 << 16,
    "grpo.epochs": 1 << 16,
    "eval.samples": 1 << 16,
    "lora.rank": 1 << 14,
    "data.max_problems": 1 << 24,
    "reward.workers": 1024,
    "reward.memory_mb": 1 << 30,
    "reward.timeout_s": 86_400.0,
}

# Settings that other trainers have and that would make the logprobs of training wrong.
_TRUNCATED = (
    "the trainer's logprobs are those of the whole distribution, so truncated sampling makes them wrong; leave it out"
)
REFUSED = {f"sampling.{key}": _TRUNCATED for key in ("top_p", "top_k", "min_p")}


CHAT = "chat"
"""The prompt template that is the model's own."""

DEFAULT, SET = "default", "--set"
"""Where a value may come from."""


def is_own_reward(name: str) -> bool:
    """Whether a reward's name is FILE.py:FUNCTION."""
    return ".py:" in name


def presets() -> dict[str, str]:
    """Preset names and the first comment line of each file."""
    found = {}
    for path in sorted(PRESET_DIR.glob("*.toml"), key=lambda path: path.stem):
        first = path.read_text(encoding="utf-8").splitlines()[0]
        found[path.stem] = first.removeprefix("#").strip()
    return found


def preset_text(name: str) -> str:
    """The TOML of a preset, comments and all. Raises UserError for an unknown name."""
    if name not in presets():
        raise unknown("preset", name, presets())
    return (PRESET_DIR / f"{name}.toml").read_text(encoding="utf-8")


def described() -> dict[str, tuple[str, str]]:
    """Every dotted key with its default, as TOML, and its help."""
    return {key: (toml_value(value_of(Config(), key)), text) for key, text in keys().items()}


def resolve(preset: str | None = None, file: Path | None = None, sets: Iterable[str] = ()) -> Config:
    """Layer defaults < preset < file < `a.b=value` strings into one validated config; settings.py chooses the preset.

    Raises UserError for an unknown preset, key or suggestion, a wrong type, or a combination that `validate` refuses.
    """
    layers = [] if preset is None else [(f"preset {preset}", preset_layer(preset))]
    layers += [] if file is None else [(str(file), read_file(file))]
    return layered([*layers, (SET, set_layer(sets))])[0]


def layered(layers: Iterable[tuple[str, Mapping[str, Any]]]) -> tuple[Config, dict[str, str]]:
    """Layers over the built-in defaults, each with a word for where it comes from: the validated config, and that word of
    every dotted key (DEFAULT where no layer has it). Raises UserError as `resolve` does."""
    config: Config = Config()
    origins = dict.fromkeys(keys(), DEFAULT)
    for where, layer in layers:
        before, config = config, _apply(config, layer, where)
        named = _named(layer, typing.get_type_hints(Config))
        origins |= {key: where for key in keys() if key in named or value_of(before, key) != value_of(config, key)}
    validate(config)
    return config, origins


def _named(layer: Mapping[str, Any], hints: Mapping[str, Any]) -> set[str]:
    """The dotted keys of a layer that has been applied."""
    found = set()
    for name, value in layer.items():
        found |= {f"{name}.{key}" for key in value} if dataclasses.is_dataclass(hints[name]) else {name}
    return found


def preset_layer(name: str) -> dict[str, Any]:
    """The settings that a preset names. Raises UserError for an unknown name."""
    return tomllib.loads(preset_text(name))


def parse(text: str, where: str) -> Config:
    """The config of a run folder's config.toml. Raises UserError."""
    config: Config = _apply(Config(), read_text(text, where), where)
    validate(config)
    return config


def resume(config: Config, sets: Iterable[str]) -> Config:
    """A run's own config with the few changes that a resumed run may make. Raises UserError for any other."""
    changed: Config = _apply(config, set_layer(sets), "--set")
    validate(changed)
    need_resumable(config, changed)
    return changed


def need_resumable(was: Config, now: Config, where: str = "") -> None:
    """Raise UserError unless a run that had the config `was` may go on with `now`, which `where` says."""
    wrong = [
        f"{key} was {json.dumps(before)} in this run and cannot become {json.dumps(after)}"
        for key, (before, after) in differences(was, now).items()
        if key not in MAY_CHANGE and not (key in MAY_MOVE and _names(before) == _names(after))
    ]
    if wrong:
        raise UserError(
            f"{'; '.join(wrong)}{where}: only {', '.join(MAY_CHANGE)} may change on --resume; start a new run for others"
        )


def _names(value: Any) -> Any:
    """The last part of each path in a setting's value."""
    if isinstance(value, dict):
        return {_names(key): entry for key, entry in value.items()}
    if isinstance(value, list):
        return list(map(_names, value))
    name, is_path, path = str(value).rpartition("=")
    return name + is_path + path.rpartition("/")[2]


def validate(config: Config) -> None:
    """Refuse what cannot run, or what would run and give wrong numbers. Raises UserError."""

    def need(ok: bool, key: str, expected: str) -> None:
        if not ok:
            raise UserError(f"{key} is {json.dumps(value_of(config, key))}: expected {expected}")

    for key in ("grpo.groups", "sampling.max_new_tokens", "eval.every", "eval.samples", "grpo.minibatches",
                "grpo.epochs", "reward.workers", "checkpoint_every"):  # fmt: skip
        need(value_of(config, key) >= 1, key, "a whole number of at least 1")
    for key, most in LARGEST.items():
        need(value_of(config, key) <= most, key, f"at most {most}")
    for key in ("seed", "steps", "threads", "sampling.slots", "grpo.max_refills", "grpo.kl_coef", "eval.max_problems",
                "eval.max_new_tokens", "data.max_problems", "optimizer.warmup_steps", "optimizer.weight_decay",
                "optimizer.micro_batch_tokens", "eval.temperature", "checkpoints.keep_last", "checkpoints.keep_best",
                "health.max_rollbacks", "health.entropy_high", "health.mismatch_kl", "health.grad_spike"):  # fmt: skip
        need(value_of(config, key) >= 0, key, "0 or more")
    for key in ("sampling.temperature", "optimizer.lr", "optimizer.grad_clip", "reward.timeout_s", "reward.memory_mb"):
        need(value_of(config, key) > 0, key, "more than 0")
    for key in ("health.entropy_low", "health.reward_fall", "health.truncated"):
        need(0 <= value_of(config, key) < 1, key, "at least 0 (off) and below 1")
    if config.health.action == "rollback":
        need(
            len(config.eval.on) > 0,
            "eval.on",
            "a dataset: health.action=rollback goes back to the best evaluated checkpoint",
        )
        kept = config.checkpoints.keep_last == 0 or config.checkpoints.keep_best > 0
        need(kept, "checkpoints.keep_best", "at least 1: health.action=rollback goes back to the best checkpoint")
    need(config.health.max_skipped >= 1, "health.max_skipped", "a whole number of at least 1")
    need(0 < config.health.rollback_lr < 1, "health.rollback_lr", "more than 0, below 1")
    for key in ("optimizer.beta1", "optimizer.beta2"):
        need(0 <= value_of(config, key) < 1, key, "at least 0 and below 1")
    need(config.lora.rank >= 0, "lora.rank", "0 (train the whole model) or more")
    need(config.lora.alpha > 0, "lora.alpha", "more than 0")
    eight_bit, lora = config.optimizer.states == "8bit", config.lora.rank > 0
    need(not (eight_bit and lora), "optimizer.states", "float32 where lora.rank is set: adapters are small")
    need(
        not (eight_bit and config.optimizer.offload),
        "optimizer.states",
        "float32 where optimizer.offload is set: offloaded, they take no GPU memory at all",
    )
    names = [spec.partition("=")[0].strip() for spec in config.eval.on]
    need(len(set(names)) == len(names), "eval.on", "each dataset once")
    need(config.grpo.group_size >= 2, "grpo.group_size", "at least 2: a group of one has no advantage")
    need(
        0 <= config.grpo.keep_per_group <= config.grpo.group_size,
        "grpo.keep_per_group",
        "0 (all) up to grpo.group_size",
    )
    need(0 < config.grpo.clip_low <= 1, "grpo.clip_low", "more than 0, at most 1")
    need(config.grpo.clip_high > 0, "grpo.clip_high", "more than 0")
    if config.grpo.variant not in VARIANTS:
        raise unknown("grpo.variant", config.grpo.variant, VARIANTS)
    need(
        config.grpo.minibatches <= config.grpo.groups * config.grpo.group_size,
        "grpo.minibatches",
        "at most groups x group_size",
    )


def changed(config: Config, values: Mapping[str, Any]) -> Config:
    """The same config with other values of some dotted keys."""
    layer: dict[str, Any] = {}
    for key, value in values.items():
        section, _, name = key.rpartition(".")
        (layer.setdefault(section, {}) if section else layer)[name] = value
    found: Config = _apply(config, layer, "settings")
    return found


def with_template(config: Config, template: str) -> Config:
    """The same config with another prompt template, of the same kinds as prompt.template. Raises UserError."""
    if template == config.prompt.template:
        return config
    changed: Config = _apply(config, {"prompt": {"template": template}}, "--template")
    return changed


def to_toml(config: Config, origins: Mapping[str, str] | None = None) -> str:
    """The config as TOML text that `resolve(file=...)` reads back to an equal config; behind each value, as a comment,
    where it comes from, if `origins` tells."""
    comments = {key: f"  # {printable(where)}" for key, where in (origins or {}).items()}
    scalars, sections = [], []
    for spec in dataclasses.fields(config):
        value = getattr(config, spec.name)
        if dataclasses.is_dataclass(value):
            lines = [
                f"{s.name} = {toml_value(getattr(value, s.name))}{comments.get(f'{spec.name}.{s.name}', '')}"
                for s in dataclasses.fields(value)
            ]
            sections.append("\n".join([f"[{spec.name}]", *lines]))
        else:
            scalars.append(f"{spec.name} = {toml_value(value)}{comments.get(spec.name, '')}")
    return "\n\n".join(["\n".join(scalars), *sections]) + "\n"


def origins_in(text: str, config: Config) -> dict[str, str]:
    """Where the values of a config come from, as `to_toml` wrote it beside them; a key whose line was changed is left out."""
    found, section = {}, ""
    for line in text.splitlines():
        if line.startswith("[") and line.endswith("]"):
            section = line[1:-1] + "."
        name = line.partition(" = ")[0]
        if section + name in keys():
            written = f"{name} = {toml_value(value_of(config, section + name))}  # "
            if line.startswith(written):
                found[section + name] = line.removeprefix(written)
    return found


def printable(text: str) -> str:
    """A text that may stand in a comment of TOML, and on one line."""
    return "".join(char if char.isprintable() else "?" for char in text)


def differences(a: Config, b: Config) -> dict[str, tuple[Any, Any]]:
    """Dotted keys whose values differ, with both values."""
    return {key: (value_of(a, key), value_of(b, key)) for key in keys() if value_of(a, key) != value_of(b, key)}


@cache
def keys() -> dict[str, str]:
    """Every dotted key and its help string."""
    found = {}
    for name, kind in typing.get_type_hints(Config).items():
        if dataclasses.is_dataclass(kind):
            found.update({f"{name}.{key}": text for key, text in _field_help(kind).items()})
    return {**_field_help(Config), **found}


def _field_help(cls: Any) -> dict[str, str]:
    body = ast.parse(inspect.getsource(cls)).body[0]
    assert isinstance(body, ast.ClassDef)
    found = {}
    for line, after in zip(body.body, body.body[1:], strict=False):
        if isinstance(line, ast.AnnAssign) and isinstance(line.target, ast.Name) and isinstance(after, ast.Expr):
            found[line.target.id] = str(ast.literal_eval(after.value)).strip()
    return found


def value_of(config: Config, key: str) -> Any:
    """The value of a dotted key."""
    value: Any = config
    for part in key.split("."):
        value = getattr(value, part)
    return value


def read_file(path: Path) -> dict[str, Any]:
    """The settings that a TOML file names. Raises UserError if it cannot be read."""
    try:
        text = reading.read(path, MAX_TOML).decode("utf-8-sig")  # some editors begin a file with a BOM
    except FileNotFoundError:
        raise UserError(f"config file {path} does not exist: give the path of a TOML file") from None
    except (OSError, ValueError) as error:
        reason = error.__class__.__name__
        raise UserError(f"config file {path} cannot be read ({reason}): give a UTF-8 TOML file") from None
    return read_text(text, str(path))


def _read_template(path: Path) -> dict[str, Any]:
    """`text` and `stop` of a user's prompt template. Raises UserError, with the file's name."""
    what = f"prompt template {path}"
    form = "text = '...{question}...', and if need be stop = ['...']"
    try:
        found = tomllib.loads(reading.read(path, MAX_TOML).decode("utf-8-sig"))
    except FileNotFoundError:
        raise UserError(f"{what} does not exist: give a TOML file with {form}") from None
    except (OSError, ValueError, RecursionError) as error:
        reason = getattr(error, "strerror", None) or error
        raise UserError(f"{what} cannot be read ({reason!s:.200}): expected a TOML file with {form}") from None
    if strange := [name for name in found if name not in ("text", "stop")]:
        raise UserError(f"{what} has the key '{strange[0]}': expected {form}")
    text = _convert(found.get("text", ""), str, "text", str(path))
    stop = _convert(found.get("stop", []), list[str], "stop", str(path))
    if not text:
        raise UserError(f"{what} has no text: expected {form}")
    return {"text": text, "stop": stop}


def read_text(text: str, where: str) -> dict[str, Any]:
    """The settings that a TOML text names. Raises UserError, which says `where`, for what is not TOML."""
    try:
        return tomllib.loads(text)
    except (ValueError, RecursionError) as error:  # ValueError: not TOML, or a number of thousands of digits
        raise UserError(f"config file {where} is not TOML: {error}") from None


def set_layer(sets: Iterable[str]) -> dict[str, Any]:
    """The `a.b=value` strings of --set as one nested dict. Raises UserError for what is not of that form."""
    layer: dict[str, Any] = {}
    for item in sets:
        _insert(layer, item)
    return layer


def _insert(layer: dict[str, Any], item: str) -> None:
    """Put `a.b=value` into a nested dict. The value is TOML; a bare word is taken as a string."""
    key, equals, text = item.partition("=")
    if not equals or not key.strip():
        raise UserError(f"--set {item!r}: expected KEY=VALUE, for example --set optimizer.lr=1e-4")
    value: Any = text.strip()
    try:
        parsed = tomllib.loads(f"value = {text.strip()}")
    except (ValueError, RecursionError):
        parsed = {}
    if parsed.keys() == {"value"}:  # a line break could smuggle in a second key
        value = parsed["value"]
    node = layer
    *parents, last = key.strip().split(".")
    for parent in parents:
        node = node.setdefault(parent, {})
        if not isinstance(node, dict):
            raise UserError(f"--set {item!r}: '{parent}' was set to a value before, so it has no keys of its own")
    node[last] = value


def _apply(config: Config, layer: Mapping[str, Any], where: str, prefix: str = "") -> Any:
    """A copy of a config (or section) with `layer` on top of it."""
    hints = typing.get_type_hints(type(config))
    changes: dict[str, Any] = {}
    if prefix == "grpo." and (name := layer.get("variant")) is not None:
        if not isinstance(name, str) or name not in VARIANTS:
            raise unknown("grpo.variant", str(name), VARIANTS)
        changes.update(VARIANTS[name])
    if prefix == "prompt." and isinstance(name := layer.get("template"), str):
        own = (
            name.endswith(".toml") and "text" not in layer
        )  # a run's config.toml holds the text of the file it began with
        changes.update(_read_template(Path(name)) if own else {"text": "", "stop": []})
    for name, value in layer.items():
        key = prefix + name
        if key in REFUSED:
            raise UserError(f"{key} ({where}) is not a setting: {REFUSED[key]}")
        if name not in hints:
            raise _unknown_key(key, where)
        if dataclasses.is_dataclass(hints[name]):
            if not isinstance(value, Mapping):
                raise UserError(
                    f"{key} ({where}) is a section: give its keys, for example {key}.{_first_field(hints[name])}=..."
                )
            changes[name] = _apply(getattr(config, name), value, where, key + ".")
        else:
            changes[name] = _convert(value, hints[name], key, where)
    return dataclasses.replace(config, **changes)


def _first_field(cls: Any) -> str:
    return dataclasses.fields(cls)[0].name


def _unknown_key(key: str, where: str) -> UserError:
    leaf = key.rpartition(".")[2]
    names = sorted(keys()) if "." in key else sorted({*keys(), *(known.partition(".")[0] for known in keys())})
    same_leaf = [known for known in keys() if known.rpartition(".")[2] == leaf]
    close = difflib.get_close_matches(key, same_leaf, n=1, cutoff=0) or difflib.get_close_matches(key, names, n=1)
    hint = f"did you mean '{close[0]}'?" if close else f"`{typed('presets', '--keys')}` lists all of them"
    return UserError(f"unknown key '{key}' ({where}): {hint}")


def _convert(value: Any, kind: Any, key: str, where: str) -> Any:
    """Check a TOML value against a field's type; an int is taken for a float, nothing else is bent."""

    def wrong(expected: str) -> UserError:
        return UserError(f"{key} ({where}) is {json.dumps(value, default=str)}: expected {expected}")

    if get_origin(kind) is Literal:
        if value not in get_args(kind):
            raise wrong("one of " + ", ".join(map(str, get_args(kind))))
        return value
    if get_origin(kind) is list:
        (item,) = get_args(kind)
        if not isinstance(value, list):
            raise wrong(f'a list, for example {key}=["..."]' if item is str else f"a list of {item.__name__}")
        return [_convert(entry, item, key, where) for entry in value]
    if get_origin(kind) is dict:
        if not isinstance(value, Mapping):
            raise wrong("a table of names and weights, for example {format = 0.1}")
        return {
            _convert(name, str, key, where): _convert(entry, get_args(kind)[1], f"{key}.{name}", where)
            for name, entry in value.items()
        }
    accepted = (int, float) if kind is float else (kind,)
    if isinstance(value, bool) is not (kind is bool) or not isinstance(value, accepted):
        raise wrong({int: "a whole number", float: "a number", str: "a text", bool: "true or false"}[kind])
    if isinstance(value, int) and abs(value) >= 1 << 63:
        raise wrong("a number of at most 64 bits")
    if isinstance(value, float) and not math.isfinite(value):
        raise wrong("a finite number")
    if isinstance(value, str) and any("\ud800" <= char <= "\udfff" for char in value):
        raise wrong("a text in UTF-8")
    return float(value) if kind is float else value


def toml_value(value: Any) -> str:
    """A setting's value as TOML."""
    if isinstance(value, dict):
        return "{" + ", ".join(f"{toml_value(name)} = {toml_value(entry)}" for name, entry in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(map(toml_value, value)) + "]"
    if isinstance(value, float):
        return repr(value)
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")  # JSON lets DEL pass, TOML does not
