"""What a run is made of: every setting with its default and its help, and the named variants of GRPO."""

from dataclasses import dataclass, field
from typing import Any, Literal


@dataclass(frozen=True)
class DataConfig:
    name: str = "countdown-train"
    """training problems: a dataset's name, several joined by "+" ("math+gsm8k=FILE"), or a name of yours with
    data.path"""
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
    """keep the first this many problems of a seeded shuffle; 0: all"""
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
    max_sequences: int = 128
    """completions decoded at the same time at most; 0: as many as memory allows, up to 128 on a CPU and 256 on a GPU"""
    dtype: Literal["auto", "bfloat16"] = "auto"
    """auto samples with the very weights that are trained; bfloat16 with a rounded copy: see policy/mismatch_kl"""


@dataclass(frozen=True)
class RewardConfig:
    name: str = "auto"
    """the reward that decides "correct", by name; or FILE.py:FUNCTION for your own; "auto" is the dataset's own"""
    extraction: Literal["boxed", "last"] = "boxed"
    """what `math` and `gsm8k` read: "boxed" a box, answer tags or ####; "last" also the last value where none is
    stated"""
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
    """at most this many further rounds of sampling a step"""
    groups: int = 16
    """problems per step"""
    group_size: int = 8
    """completions per problem (G)"""
    keep_per_group: int = 0
    """train on this many random rollouts of each group, after the advantages are known; 0: all"""
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
    """tokens trained on at a time (on a CPU by all threads), halved when memory runs out; 0: by free memory. Cannot
    change the gradient"""
    moments: Literal["float32", "8bit"] = "float32"
    """the type of AdamW's moments; 8bit keeps them in a quarter of the memory (needs bitsandbytes), bfloat16 weights
    then without masters"""
    shard: bool = False
    """divide AdamW's moments and the master weights over the processes of a run (ZeRO-1)"""
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
    """type of activations: auto is float32 on a CPU and bfloat16 on a GPU, fastest bfloat16 also on a CPU that has
    it"""
    checkpoint_activations: bool = False
    """recompute each layer in the backward pass instead of keeping it: less memory, a third more time"""


@dataclass(frozen=True)
class EvalConfig:
    on: list[str] = field(default_factory=lambda: ["countdown", "countdown-hard"])
    """datasets, by name; the first two are the figures' "accuracy" and "hard accuracy" """
    every: int = 10
    """steps between evaluations; there is always one before the first step and one after the last"""
    samples: int = 1
    """completions per problem (k of pass@k and maj@k)"""
    max_problems: int = 256
    """at most this many problems of a dataset, the same ones each time; 0: all"""
    max_new_tokens: int = 0
    """length limit in tokens; 0: that of training"""
    temperature: float = 1.0
    """temperature of evaluation; 0 is greedy"""


@dataclass(frozen=True)
class CheckpointsConfig:
    every: int = 20
    """steps between checkpoints; there is always one at the end"""
    keep_last: int = 0
    """delete all but this many of the newest checkpoints, once a new one is safe; 0: keep all"""
    keep_best: int = 0
    """keep this many more: those with the best accuracy on the first dataset of eval.on, of those that were
    evaluated"""


@dataclass(frozen=True)
class HealthConfig:
    action: Literal["warn", "stop", "rollback"] = "warn"
    """what a sign of collapse does: a warning, the end of the run, or back to the best checkpoint at a lower rate"""
    max_skipped: int = 3
    """this many steps in a row with a non-finite loss or gradient end the run; each skips its update"""
    max_rollbacks: int = 2
    """after this many rollbacks the next one ends the run"""
    rollback_lr: float = 0.5
    """each rollback multiplies the learning rate by this"""
    ignore: list[str] = field(default_factory=list)
    """alarms that are not to be raised, by their names (docs/metrics.md)"""


@dataclass(frozen=True)
class Config:
    model: str = "tiny"
    """a Hugging Face folder, a hub id, a run folder (its newest checkpoint), or "tiny", the embedded base model"""
    seed: int = 0
    """random numbers are keyed by it; the same seed gives the same run"""
    steps: int = 80
    """training steps"""
    threads: int = 0
    """CPU threads; 0: all cores. The same number gives the same run, another one rounds otherwise"""
    track: list[str] = field(default_factory=list)
    """where the rows of a run are shown as well: wandb, trackio, tensorboard (docs/trackers.md)"""
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

    def evaluates_after(self, step: int) -> bool:
        """Whether an evaluation follows this step (0: comes before the first)."""
        return bool(self.eval.on) and (step % self.eval.every == 0 or step == self.steps)


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

CHAT = "chat"
"""The prompt template that is the model's own."""

DEFAULT, SET = "default", "--set"
"""Where a value may come from."""


def is_own_reward(name: str) -> bool:
    """Whether a reward's name is FILE.py:FUNCTION."""
    return ".py:" in name
