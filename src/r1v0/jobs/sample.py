"""`r1v0 sample`: one problem put to a model, its answers printed as they come, with verdicts where the right answer
is known.

Decides: answers are printed in order; the others are drawn beside the one that is on the screen, and follow when it
ends. On a terminal each token is shown at once, into a file or a pipe go whole lines. Half a character (its bytes
may be two tokens) waits for its other half. The right answer is known if it is given, if the problem is one of
countdown's, which says it itself, or if an evaluation set of the settings that is at hand without the network has
the problem.
"""

import sys
import time
from collections.abc import Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field, replace
from typing import TextIO

from r1v0.base.errors import UserError
from r1v0.base.keys import key
from r1v0.base.shown import shown
from r1v0.config import Config, RewardConfig
from r1v0.models.device import choose_sampling, set_threads
from r1v0.models.loading import Policy, load, resolve_model
from r1v0.rollouts.collect import reward_settings, sampling_settings
from r1v0.sampling.sampler import Request, SamplingSettings, generate
from r1v0.tasks.countdown.problems import answer_in
from r1v0.tasks.datasets import at_hand, eval_name
from r1v0.tasks.grading.pool import Verifier
from r1v0.tasks.problems import normal
from r1v0.tasks.prompts import make_prompts
from r1v0.types import Problem, Score

SAFE = "\n\t"
"""What a terminal may get of a model beside characters that print."""
REDRAW_S = 0.05
"""Seconds between two looks at the tokens: to decode them costs more the more there are."""


def ask(
    model: str,
    question: str,
    config: Config,
    out: TextIO,
    samples: int = 1,
    greedy: bool = False,
    gold: str = "",
    heading: str = "",
) -> list[Score]:
    """Print `samples` answers to `question`; their verdicts, if the right answer is known. `heading` goes to
    standard error before them. Raises UserError."""
    problem, reward = known(question, config, gold)
    policy, request, settings = prepared(model, problem, config, samples, greedy)
    limit = settings.max_new_tokens
    if heading:
        print(heading, file=sys.stderr, flush=True)
    page = Page(policy, out, whole_lines=not out.isatty())
    scores: list[Score] = []
    with ExitStack() as stack:
        verifier = stack.enter_context(Verifier(reward)) if reward else None
        for _, sample, completion in generate(policy.model, [request], settings, seen=page.seen):
            text, finished = policy.decode(completion.token_ids), completion.finish_reason == "stop"
            remarks = [] if finished else [f"cut off at {limit} tokens"]
            if verifier is not None:
                verifier.submit(sample, problem, text, finished)
                scores.append(verifier.collect()[sample])
                remarks.append(verdict(scores[-1]))
            page.end(sample, text, ("" if finished else " ...") + (f" ({', '.join(remarks)})" if remarks else ""))
    return scores


def texts(model: str, question: str, config: Config, samples: int = 1, greedy: bool = False) -> list[str]:
    """The answers alone, in order. Raises UserError."""
    bare = Problem("cli", question, "", config.data.name)
    policy, request, settings = prepared(model, bare, config, samples, greedy)
    found = {sample: completion for _, sample, completion in generate(policy.model, [request], settings)}
    return [policy.decode(found[sample].token_ids) for sample in range(samples)]


def prepared(
    model: str, problem: Problem, config: Config, samples: int, greedy: bool
) -> tuple[Policy, Request, SamplingSettings]:
    """The model, loaded, and what it is asked for. Raises UserError."""
    set_threads(config)
    policy = load(resolve_model(model), *choose_sampling(config))
    (prompt,) = make_prompts(config.prompt, [problem], policy)
    temperature = 0.0 if greedy else config.sampling.temperature
    keys = [key(config.seed, "sample", problem.question, sample) for sample in range(samples)]
    settings = sampling_settings(policy, config, temperature, config.sampling.max_new_tokens)
    return policy, Request(prompt.token_ids, keys), settings


def known(question: str, config: Config, gold: str = "") -> tuple[Problem, RewardConfig | None]:
    """The problem with its right answer and what grades it; without a reward where the answer is not known.

    Raises UserError for a `gold` beside a problem that says its own answer.
    """
    bare = Problem("cli", question, gold, config.data.name)
    reward = reward_settings(config, config.data.name)
    if reward.name == "countdown":
        said = answer_in(question)
        if said and gold:
            raise UserError("--gold is given, but a countdown problem is graded by its own target: leave --gold out")
        if said:
            return replace(bare, answer=said), reward
        reward = replace(reward, name="math")
    if gold:
        return bare, reward
    for spec in config.eval.on:
        with suppress(UserError):  # of a file that is gone: then nothing is known
            for problem in at_hand(spec):
                if normal(problem.question) == normal(question):
                    return replace(problem, question=question), reward_settings(config, eval_name(spec))
    return bare, None


def verdict(score: Score) -> str:
    """A score in a word or two."""
    if score.failure:
        return f"no verdict: {score.failure}"
    word = "right" if score.correct else "wrong"
    return word if score.reward == score.correct else f"{word}, reward {score.reward:g}"


@dataclass
class Page:
    """Answers on their way to `out`, in order: `at` is the one that is printed now, of which `shown` is there."""

    policy: Policy
    out: TextIO
    whole_lines: bool
    at: int = 0
    shown: str = ""
    looked: float = 0.0
    tokens: dict[int, Sequence[int]] = field(default_factory=dict)
    ended: dict[int, tuple[str, str]] = field(default_factory=dict)

    def seen(self, request: int, sample: int, token_ids: Sequence[int]) -> None:
        """An answer has got so far; the sampler calls it."""
        self.tokens[sample] = token_ids
        if sample == self.at and time.monotonic() - self.looked >= REDRAW_S:
            self._show()

    def end(self, sample: int, text: str, remark: str) -> None:
        """An answer is whole. `remark` follows on its line."""
        self.ended[sample] = text, remark
        while self.at in self.ended:
            text, remark = self.ended.pop(self.at)
            rest = text.removeprefix(self.shown) if text.startswith(self.shown) else f"\n{text}"
            self.out.write(shown(rest, keep=SAFE) + f"{remark}\n")
            self.out.flush()
            self.tokens.pop(self.at, None)
            self.at, self.shown = self.at + 1, ""
            self._show()

    def _show(self) -> None:
        """What is new of the answer at work and sure to stay."""
        self.looked = time.monotonic()
        text = self.policy.decode(list(self.tokens.get(self.at, ()))).rstrip("\ufffd")
        if self.whole_lines:
            text = text[: text.rfind("\n") + 1]
        if text.startswith(self.shown) and text != self.shown:
            self.out.write(shown(text[len(self.shown) :], keep=SAFE))
            self.out.flush()
            self.shown = text
