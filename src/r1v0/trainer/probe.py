"""Does the longest sequence fit into memory? Asked before the first step, so that no run dies of it when lengths
grow."""

from r1v0.grpo.memory_probe import probe
from r1v0.grpo.step import Learner, add_gradient
from r1v0.models.loading import Policy
from r1v0.rollouts.collect import past_positions
from r1v0.tasks.datasets import Problems
from r1v0.tasks.prompts import make_prompts

PROBED_PROMPTS = 64  # of which the longest stands for all: a longer one may still halve the budget


def probe_memory(learner: Learner, policy: Policy, problems: Problems) -> None:
    """Find out before the first step whether the longest sequence can be trained on. Raises UserError if not."""
    config = learner.config
    prompts = make_prompts(config.prompt, [problems.at(i) for i in range(PROBED_PROMPTS)], policy)
    longest = max(len(prompt.token_ids) for prompt in prompts)
    if beyond := past_positions(policy, longest, config.sampling.max_new_tokens):
        learner.budget.note(f"warning: {beyond}; lower sampling.max_new_tokens")
    probe(
        learner.budget,
        learner.model,
        longest,
        config.sampling.max_new_tokens,
        learner.optimizer.zero_grad,
        lambda model, micro: add_gradient(learner, model, micro),
    )
