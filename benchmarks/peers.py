"""The same work done by others: transformers' `generate` and continuous batching, and TRL's GRPOTrainer.

Decides: each peer runs as its own documentation would have it on this machine, at its better setting where there is
a choice, and without what it does not need here (no vLLM on a CPU, no checkpointing, no KL term, no logging). A peer
that cannot run leaves a row {case, setting, contender, skipped}. `generate` runs at 64 and at 128 rows, and the better
of the two is what r1v0 is compared with; continuous batching at 32 (8 to 64 made no difference that showed).
"""

import importlib.metadata
import logging
import tempfile
import warnings
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import torch

from r1v0.jobs.bench import cases
from r1v0.jobs.bench.own import reward
from r1v0.jobs.bench.timing import Clock, Run
from r1v0.jobs.bench.workload import Work

GENERATE_ROWS = (64, 128)
BATCHING_ROWS = (32,)


def installed(name: str) -> str | None:
    """The version of a peer, or None."""
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None


def sampling(work: Work, rounds: int, record: cases.Record) -> None:
    """r1v0's sampler, and transformers' two."""
    if installed("transformers") is None:
        about = cases.about_sampling(work)
        record({**about, "contender": "transformers", "skipped": "transformers is not installed"})
        cases.sampling(work, rounds, record)
    else:
        cases.sampling(work, rounds, record, transformers_samplers(work))


def transformers_samplers(work: Work) -> dict[str, Run]:
    """transformers' contenders, warmed up. Each continuous batching has a model of its own, which keeps its manager."""
    model = load_peer_model(work)
    run_generate(model, work.head(2), 64)
    found: dict[str, Run] = {}
    for rows in GENERATE_ROWS:
        found[f"generate, {rows} rows"] = partial(run_generate, model, work, rows)
    longest = max(len(prompt.token_ids) for prompt in work.prompts) + work.max_new_tokens
    for rows in BATCHING_ROWS:
        own_model = load_peer_model(work)
        run_continuous_batching(own_model, work.head(2), rows, longest)
        found[f"continuous batching, {rows} rows"] = partial(run_continuous_batching, own_model, work, rows, longest)
    return found


def whole_step(work: Work, rounds: int, record: cases.Record, dtype: torch.dtype = torch.float32) -> None:
    """A GRPO step of r1v0, which takes its turns between TRL's steps, of which the first is not counted. Both compute
    in `dtype` and update float32 weights."""
    about, turns = cases.about_step(work, dtype), cases.turns(rounds)
    missing = [name for name in ("transformers", "trl") if installed(name) is None]
    if missing:
        record({**about, "contender": "TRL", "skipped": f"{missing[0]} is not installed"})
        cases.whole_step(work, rounds, record, dtype)
        return
    take = cases.own_turn(work, record, dtype)

    def between(trl_step: int, reading: Mapping[str, float], tokens: int) -> None:
        if trl_step > 0:
            number, flat = turns[trl_step - 1]
            record({**about, "contender": "TRL", "flat": flat, "round": number, **reading, "tokens": tokens})
            take(number, flat)

    run_trl(work, [0.0, *(flat for _, flat in turns)], between, dtype)


def load_peer_model(work: Work) -> Any:
    """transformers' own model of the work's folder, float32, on the CPU."""
    from transformers import AutoModelForCausalLM
    from transformers.utils import logging as transformers_logging

    transformers_logging.set_verbosity_error()
    transformers_logging.disable_progress_bar()
    return AutoModelForCausalLM.from_pretrained(
        work.policy.folder, dtype=torch.float32, attn_implementation="sdpa"
    ).eval()


def run_generate(model: Any, work: Work, rows: int) -> int:
    """Sample with `generate`, `rows` completions at a time; the tokens sampled.

    Whole distribution as in r1v0 (its default keeps the 50 likeliest tokens). Lengths are kept by a
    StoppingCriteria, which costs one comparison a step; a finished row is padded to the end of its batch, that is
    how `generate` works.
    """
    from transformers import GenerationConfig, StoppingCriteria, StoppingCriteriaList

    class AtLength(StoppingCriteria):  # type: ignore[misc]
        def __init__(self, wanted: torch.Tensor) -> None:
            self.wanted = wanted

        def __call__(self, input_ids: torch.Tensor, scores: Any, **kwargs: Any) -> torch.Tensor:
            return input_ids.shape[1] >= self.wanted

    eos = None if work.forced else sorted(work.policy.eos_ids)
    settings = GenerationConfig(
        do_sample=True, temperature=1.0, top_k=0, top_p=1.0, max_new_tokens=work.max_new_tokens,
        num_return_sequences=work.group_size, pad_token_id=0, eos_token_id=eos,
    )  # fmt: skip
    tokens, step = 0, max(1, rows // work.group_size)
    for first in range(0, len(work.prompts), step):
        prompts = [prompt.token_ids for prompt in work.prompts[first : first + step]]
        width = max(map(len, prompts))
        ids = torch.tensor([[0] * (width - len(prompt)) + prompt for prompt in prompts])
        mask = torch.tensor([[0] * (width - len(prompt)) + [1] * len(prompt) for prompt in prompts])
        wanted = torch.tensor([n for row in work.lengths[first : first + step] for n in row])
        criteria = StoppingCriteriaList([AtLength(width + wanted)] if work.forced else [])
        with torch.inference_mode():
            out = model.generate(ids, attention_mask=mask, generation_config=settings, stopping_criteria=criteria)
        if work.forced:
            tokens += int(wanted.sum())
        else:
            ended = torch.isin(out[:, width:], torch.tensor(eos))
            first_end = torch.where(ended.any(1), ended.int().argmax(1) + 1, out.shape[1] - width)
            tokens += int(first_end.sum())
    return tokens


def run_continuous_batching(model: Any, work: Work, rows: int, longest: int) -> tuple[int, dict[str, float]]:
    """Sample with `generate_batch`'s machinery, at most `rows` completions at a time; the tokens sampled, and the
    clock from the first request to the last result: stopping its thread takes seconds, which a server does once.

    Its manager is used because only `add_request` takes a length for each request. The manager is kept from call to
    call (`persistent_manager`), as one would in training: making it takes seconds. The first call sizes it, for
    sequences of `longest` tokens: one dense mask spans the whole cache on a CPU, so that a larger cache would cost
    it more.
    """
    from transformers import ContinuousBatchingConfig, GenerationConfig
    from transformers.generation.continuous_batching.requests import logger

    logger.setLevel(logging.ERROR)
    eos = [-1] if work.forced else sorted(work.policy.eos_ids)
    settings = GenerationConfig(
        do_sample=True, temperature=1.0, top_k=0, top_p=1.0, max_new_tokens=work.max_new_tokens, pad_token_id=0,
        eos_token_id=eos,
    )  # fmt: skip
    page = 32
    config = ContinuousBatchingConfig(
        page_size=page, num_blocks=rows * (longest // page + 2), max_batch_tokens=512, max_requests_per_batch=rows
    )
    wanted = tokens = 0
    with (
        warnings.catch_warnings(),
        model.continuous_batching_context_manager(
            generation_config=settings, continuous_batching_config=config, timeout=5, persistent_manager=True
        ) as manager,
    ):
        clock = Clock()
        for prompt, lengths in zip(work.prompts, work.lengths, strict=True):
            for length in lengths:
                manager.add_request(
                    prompt.token_ids, max_new_tokens=length if work.forced else work.max_new_tokens, eos_token_id=eos
                )
                wanted += 1
        while wanted:
            result = manager.get_result(timeout=1)
            if result is not None and result.is_finished():
                tokens += len(result.generated_tokens)
                wanted -= 1
            elif not manager.is_running():
                raise RuntimeError("transformers' continuous batching ended before its requests did")
        reading = clock.read()
    return tokens, reading


def run_trl(
    work: Work,
    flats: Sequence[float],
    on_step: Callable[[int, dict[str, float], int], None],
    dtype: torch.dtype = torch.float32,
) -> None:
    """Train with TRL, one step for each of `flats`, the share of groups without a gradient. `on_step(number, clock's
    reading, tokens)` is called between the steps, so that others can take turns.

    Micro-batches of 16 completions, no checkpointing, no KL term, the whole distribution, AdamW at 1e-6. `dtype`
    bfloat16 is TRL's default, autocast on float32 weights; float32 turns that off. The rest is TRL's default.
    Lengths are kept by a LogitsProcessor that forbids the end token until it is due: two operations a step. The
    clock runs from `on_step_begin` to `on_step_end`: generation, rewards, backward, update, and no logging.
    """
    from datasets import Dataset
    from transformers import PreTrainedTokenizerFast, PrinterCallback, TrainerCallback
    from trl import GRPOConfig, GRPOTrainer

    text = work.policy.tokenizer
    eos = min(work.policy.eos_ids)
    words = {"pad_token": text.id_to_token(0), "eos_token": text.id_to_token(eos)}
    tokenizer = PreTrainedTokenizerFast(tokenizer_file=str(work.policy.folder / "tokenizer.json"), **words)
    for prompt in work.prompts:
        assert tokenizer(prompt.text)["input_ids"] == prompt.token_ids, "TRL would see another prompt"
    model = load_peer_model(work)
    wanted = torch.tensor([length for row in work.lengths for length in row])
    sampled = 0

    def rewards(prompts: list[str], completions: list[str], completion_ids: list[list[int]], **_: Any) -> list[float]:
        nonlocal sampled
        sampled = sum(map(len, completion_ids))
        flat = flats[trainer.state.global_step]
        return [reward(*divmod(row, work.group_size), work.group_size, flat) for row in range(len(completions))]

    class Timer(TrainerCallback):  # type: ignore[misc]
        def on_step_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            self.clock = Clock()

        def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            on_step(state.global_step - 1, self.clock.read(), sampled)

    rows = len(wanted)
    micro = min(16, rows)
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of names that their next version drops
        config = GRPOConfig(
            output_dir=folder, max_steps=len(flats), per_device_train_batch_size=micro,
            gradient_accumulation_steps=rows // micro, num_generations=work.group_size,
            max_completion_length=work.max_new_tokens, temperature=1.0, top_k=0, top_p=1.0, beta=0.0,
            learning_rate=1e-6,
            lr_scheduler_type="constant", bf16=dtype == torch.bfloat16, gradient_checkpointing=False, use_cpu=True,
            report_to="none", logging_strategy="no", save_strategy="no", disable_tqdm=True, dataloader_pin_memory=False,
        )  # fmt: skip
        trainer = GRPOTrainer(
            model=model, reward_funcs=rewards, args=config, processing_class=tokenizer, callbacks=[Timer()],
            train_dataset=Dataset.from_list([{"prompt": prompt.text} for prompt in work.prompts]),
        )  # fmt: skip
        trainer.remove_callback(PrinterCallback)
        if work.forced:
            _force_lengths(trainer.model, wanted, eos)
        trainer.train()


def _force_lengths(model: Any, wanted: torch.Tensor, eos: int) -> None:
    """Make `model.generate` end row i with the end token as its `wanted[i]`-th token, and not before."""
    from transformers import LogitsProcessor, LogitsProcessorList

    class EndWhenDue(LogitsProcessor):  # type: ignore[misc]
        def __init__(self, width: int) -> None:
            self.width = width

        def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
            due = wanted == input_ids.shape[1] - self.width + 1
            scores[:, eos] = torch.where(due, 1e9, -1e9)
            return scores

    original = model.generate

    def generate(**arguments: Any) -> Any:
        processors = LogitsProcessorList([EndWhenDue(arguments["input_ids"].shape[1])])
        return original(**arguments, logits_processor=processors)

    model.generate = generate
