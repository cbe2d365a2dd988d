"""`r1v0 check`: can this be trained? Everything that a run needs is tried once, on a few problems, before it begins.

Decides: what GRPO learns from is groups that are mixed, right and wrong answers to one problem. So the model answers
PROBLEMS problems ANSWERS times each, and the share of mixed groups is what the verdict rests on.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

from r1v0.base.command import typed
from r1v0.base.means import mean
from r1v0.config import Config, changed
from r1v0.jobs.doctor.checks import Finding, ok, problem, warning
from r1v0.jobs.plan import make_plan
from r1v0.jobs.plan.report import in_a_line
from r1v0.jobs.plan.shapes import Shape
from r1v0.models.device import bfloat16_cost, choose_sampling, set_threads, settled
from r1v0.models.loading import Policy, load, resolve_model
from r1v0.report.status import share
from r1v0.rollouts.collect import collect, past_positions, reward_settings, verifiers
from r1v0.rollouts.gradable import FIRST, faults_of, right_answer, unreadable
from r1v0.runs.progress import Progress, polling
from r1v0.tasks.datasets import Problems, eval_name, load_eval, load_problems
from r1v0.tasks.datasets import check as check_data
from r1v0.tasks.prompts import make_prompts, words_of
from r1v0.tasks.rewards import check as check_reward
from r1v0.types import Group

PROBLEMS, ANSWERS = 5, 8
PROMPTS = 64
"""prompts whose words are looked up in the vocabulary"""
MIXED = 0.4
"""the share of mixed groups below which a run is slow"""
CUT_OFF = 0.5
"""the share of answers cut off from which most samples are wasted"""


@dataclass(frozen=True)
class Tried:
    """What was loaded and sampled."""

    config: Config
    policy: Policy
    problems: Problems
    groups: list[Group]


def preflight(config: Config, progress: Progress) -> list[Finding]:
    """What was found, in the order in which it was looked at. Raises UserError for what a run would not start with, but
    for a reward that cannot read its dataset, which is a finding."""
    check_reward(reward_settings(config, config.data.name))
    words_of(config.prompt)
    set_threads(config)
    config = settled(config)
    check_data(config.eval.on, config.data)
    base = resolve_model(config.model)
    problems = load_problems(config.data, config.seed, config.eval.on, progress.note)
    found = [*data(config, problems), *reward(config, problems)]
    policy = load(base, *choose_sampling(config))
    groups = sampled(config, policy, problems, progress)
    tried = Tried(config, policy, problems, groups)
    return [*found, *(finding for check in CHECKS for finding in check(tried))]


def data(config: Config, problems: Problems) -> Iterator[Finding]:
    """How many problems there are, and what is measured."""
    first = problems.at(0)
    size = f"{problems.size:,} problems" if problems.size else "endlessly many problems"
    yield ok("data", f"{config.data.name}: {size}, for example {first.question!r:.80}, answer {first.answer!r:.40}")
    for spec in config.eval.on:
        count = len(load_eval(spec, config.eval.max_problems))
        yield ok("held out", f"{eval_name(spec)}: {count:,} problems")
    if not config.eval.on:
        yield warning("held out", "eval.on is []: nothing will show whether the model learned more than these problems")


def reward(config: Config, problems: Problems) -> Iterator[Finding]:
    """Whether the first right answers get 1, and nothing gets 0."""
    name, settings = config.data.name, reward_settings(config, config.data.name)
    first = [problems.at(i) for i in range(FIRST)]
    with verifiers({name: settings}, lambda text: None) as graders:
        faults = faults_of(settings.name, first, graders[name])
    if faults:
        yield problem("reward", f"{faults[0]}; {len(faults)} of {len(first)} problems: fix reward.name, or those rows")
    else:
        example = right_answer(settings.name, first[0])
        yield ok("reward", f"{settings.name} gives 1 to the right answers ({example!r:.40}, ...) and 0 to an empty one")


def sampled(config: Config, policy: Policy, problems: Problems, progress: Progress) -> list[Group]:
    """Graded answers to the first problems."""
    few = changed(config, {"grpo.groups": PROBLEMS, "grpo.group_size": ANSWERS, "grpo.refill": False})
    few = replace(few, reward=replace(few.reward, control="none"))
    poll = polling(progress, lambda: None, f"{PROBLEMS} problems x {ANSWERS} answers")
    name = config.data.name
    with verifiers({name: reward_settings(config, name)}, progress.note) as graders:
        return list(collect(policy, problems, few, 1, 0, graders[name], poll).sampled)


def words(tried: Tried) -> Iterator[Finding]:
    """Whether the model can read the prompts."""
    prompts = make_prompts(tried.config.prompt, [tried.problems.at(i) for i in range(PROMPTS)], tried.policy)
    longest = max(len(prompt.token_ids) for prompt in prompts)
    text = f"template {tried.config.prompt.template}: prompts of up to {longest} tokens"
    if strange := unreadable(tried.policy, prompts):
        yield problem("words", strange)
    elif beyond := past_positions(tried.policy, longest, tried.config.sampling.max_new_tokens):
        yield warning("words", f"{text}; {beyond}: lower sampling.max_new_tokens")
    else:
        yield ok("words", text)


def answers(tried: Tried) -> Iterator[Finding]:
    """How good the model is as it stands, and how many answers are cut off."""
    rollouts = [rollout for group in tried.groups for rollout in group.rollouts]
    right = sum(rollout.score.correct for rollout in rollouts)
    cut = mean(rollout.completion.finish_reason == "length" for rollout in rollouts)
    tokens = mean(len(rollout.completion.token_ids) for rollout in rollouts)
    yield ok("the model", f"{right} of {len(rollouts)} answers are right; {tokens:.0f} tokens on average")
    limit = tried.config.sampling.max_new_tokens
    text = f"{share(cut)} of the answers are cut off at {limit} tokens"
    if cut > CUT_OFF:
        yield problem("cut off", f"{text} and are worth 0: raise sampling.max_new_tokens, or ask for shorter answers")
    else:
        yield ok("cut off", text)


def mixed(tried: Tried) -> Iterator[Finding]:
    """Whether GRPO has anything to learn from."""
    flat = [group for group in tried.groups if group.flat]
    count, all_groups = len(tried.groups) - len(flat), len(tried.groups)
    text = f"{count} of {all_groups} groups have better and worse answers"
    if count:
        few = count < MIXED * all_groups
        advice = ", and GRPO learns from nothing else: easier problems, or more of grpo.group_size, make it faster"
        yield (warning if few else ok)("mixed groups", text + (advice if few else ": that is what GRPO learns from"))
        return
    wrong = sum(not any(rollout.score.correct for rollout in group.rollouts) for group in flat)
    advice = (
        "the problems are too hard for the model as it stands, or it is not asked in its own words: take "
        "easier problems, "
        f"a larger model, or another prompt.template ({typed('eval', '--template', 'chat,plain,r1-zero')} compares)"
        if wrong > all_groups / 2
        else "the model solves them all: take harder problems"
    )
    yield problem("mixed groups", f"{text}, so nothing can be learned from them; {advice}")


def cost(tried: Tried) -> Iterator[Finding]:
    """Memory and time, by `r1v0 plan`."""
    model = tried.policy.model
    if tried.policy.device.type == "cuda":
        yield ok("cost", f"on a GPU: see {typed('plan', '--card', 'NAME')}")
        return
    half = str(model.norm.dtype) == "torch.bfloat16"
    shape = Shape(model.config, "the model")
    plan = make_plan(tried.config, bfloat16=bfloat16_cost() if half else 1.0, shape=shape)
    yield (ok if plan.fits else problem)("cost", in_a_line(plan).removeprefix("plan: "))


CHECKS: tuple[Callable[[Tried], Iterator[Finding]], ...] = (words, answers, mixed, cost)


def verdict(findings: list[Finding]) -> str:
    """The last line."""
    wrong = [finding.topic for finding in findings if finding.mark == "problem"]
    return f"not trainable yet: {', '.join(wrong)}" if wrong else "trainable"
