"""The models of a run: the policy that is trained, the one that samples, and the reference of a KL term.

Decides: all are one model as far as they can be. Sampling takes the trained weights themselves, unless
`sampling.dtype` asks for a rounded copy: what it samples is then off-policy by the rounding, which policy/mismatch_kl
shows, its own logprobs are pi_old as ever, and training and evaluation sample alike. With adapters (models/lora.py) the
reference is the same memory without them; a whole model that is trained needs a second copy.
"""

import copy
from dataclasses import replace
from pathlib import Path

import torch

from r1v0.config import Config
from r1v0.grpo.batch import split
from r1v0.grpo.logprobs import token_logprobs
from r1v0.grpo.memory_probe import longest_case
from r1v0.grpo.optimizer import Optimizer, make_optimizer
from r1v0.models.loading import Policy, load
from r1v0.models.lora import Lora, add_adapters, without_adapters
from r1v0.sampling.sampler import Request, SamplingSettings, generate


def trained_policy(
    config: Config, base: Path, checkpoint: Path | None, device: torch.device, dtype: torch.dtype
) -> tuple[Policy, Optimizer]:
    """The policy in `dtype` with its optimizer, whose state is yet to be loaded. Raises UserError for a damaged folder.

    Adapters belong on the base model, so with `lora.rank` the weights are `base`'s also where there is a checkpoint.
    """
    lora = config.lora.rank > 0
    policy = load(base if lora or checkpoint is None else checkpoint, device)
    policy = replace(policy, folder=base)  # its texts are copied from there: the checkpoint may be deleted one day
    policy.model.checkpoint_activations = config.compute.checkpoint_activations
    if lora:
        add_adapters(policy.model, Lora(config.lora.rank, config.lora.alpha, config.model), config.seed)
    return policy, make_optimizer(policy.model, config.optimizer, dtype, config.seed)


def reference_policy(config: Config, policy: Policy, base: Path, dtype: torch.dtype) -> Policy | None:
    """The model that the run began with; None where no KL term asks for it."""
    if config.grpo.kl_coef == 0:
        return None
    if config.lora.rank:
        return replace(policy, model=without_adapters(policy.model))
    return load(base, policy.device, dtype)


def sampling_policy(config: Config, policy: Policy) -> Policy:
    """The policy itself, or its copy in bfloat16, to be brought up to date by `fresh`."""
    if config.sampling.dtype == "auto" or policy.model.norm.dtype == torch.bfloat16:
        return policy
    model = copy.deepcopy(policy.model).requires_grad_(False)
    for parameter in model.parameters():
        parameter.data = parameter.data.bfloat16()
    return replace(policy, model=model)


@torch.no_grad()
def fresh(sampling: Policy, policy: Policy) -> Policy:
    """`sampling` with the weights that `policy` has now."""
    if sampling.model is not policy.model:
        for old, new in zip(sampling.model.parameters(), policy.model.parameters(), strict=True):
            old.copy_(new)
    return sampling


def try_operators(policy: Policy, sampling: Policy) -> None:
    """Sample and score a few tokens, so that whatever fast operator a run would use is tried before it begins
    (models/tried.py), and none of them while several threads train."""
    for _ in generate(sampling.model, [Request([0, 0], [0])], SamplingSettings(1.0, 2, 1, frozenset())):
        pass
    (batch,) = split(longest_case(2, 2, 4, policy.model.config.vocab), 4, policy.device)
    with torch.no_grad():
        token_logprobs(policy.model, batch, 1.0)
