"""Watchers of collapse over made-up and real rows: each fires on what it is for, says so plainly, and is silent
else."""

import dataclasses
from pathlib import Path
from typing import Any

import pytest

from r1v0.base.errors import UserError
from r1v0.config import Config, parse, resolve
from r1v0.config.names import ALARMS
from r1v0.runs.health import Alarm, Watch, watch_rows
from r1v0.runs.history import START, WINDOW
from r1v0.runs.records import read_metrics
from r1v0.runs.watchers import WATCHERS
from tests.conftest import ROOT
from tests.run_folders import metrics_row

RUNS = sorted(path.parent for path in (ROOT / "results").rglob("metrics.jsonl"))


def rows(count: int, **keys: Any) -> list[dict[str, Any]]:
    """`count` steps of a steady run; a key's value may be a function of the step."""
    steady = {"reward__mean": 0.5, "reward__correct": 0.5, "policy__skipped": 0} | keys
    return [
        metrics_row(step, **{key: value(step) if callable(value) else value for key, value in steady.items()})
        for step in range(1, count + 1)
    ]


def alarms(some: list[dict[str, Any]], *sets: str) -> list[Alarm]:
    return watch_rows(resolve(sets=sets), some)[1]


def after(step: int, then: Any, before: Any) -> Any:
    return lambda at: then if at > step else before


# kind -> (metrics that fall ill after step 20, what the message must say). Figures are means over 8 steps, so the alarm
# comes when enough of them are ill: 0.8 + 3.2 x 7/8 = 3.6, 0.5 - 0.2 x 6/8 = 0.35, 0.1 + 0.65 x 5/8 = 0.51.
ILL: dict[str, tuple[dict[str, Any], list[str]]] = {
    "early_collapse": (
        {"policy__entropy": lambda step: 0.3 if step == 1 else 0.1 if step < 5 else 0.3},
        ["fell from 0.3 to 0.1 nats per token after 1 step:", "optimizer.warmup_steps"],
    ),
    "entropy_low": (
        {"policy__entropy": after(20, 0.05, 0.8)},
        ["fell to 0.05 nats", "under 10% of the run's first steps (0.8)", "optimizer.lr", "grpo.variant=dapo"],
    ),
    "entropy_high": (
        {"policy__entropy": after(20, 4.0, 0.8)},
        ["rose to 3.6 nats", "over 4 times", "(0.8)", "gibberish", "grpo.epochs=1"],
    ),
    "reward_fall": (
        {"reward__mean": after(20, 0.3, 0.5)},
        ["fell to 0.35", "its best, 0.5 at step", "30% lost", "the limit is 20%", "lower optimizer.lr"],
    ),
    "no_reward": (
        {"groups__all_wrong_frac": after(20, 1.0, 0.2), "reward__correct": after(20, 0.0, 0.5)},
        ["no answer of the last 8 steps was right", "at the start 50% were", "collapsed"],
    ),
    "truncated": (
        {"length__truncated_frac": after(20, 0.75, 0.1)},
        ["51% of completions", "cut off at 320 tokens", "the limit is 50%", "sampling.max_new_tokens"],
    ),
    "mismatch_kl": (
        {"policy__mismatch_kl": after(20, 0.2, 1e-4)},
        ["0.05 nats per token apart", "the limit is 0.05", "grpo.minibatches"],
    ),
    "grad_spike": (
        {"policy__grad_norm": lambda step: 30.0 if step > 20 and step % 2 else 0.5},
        ["over 10 times its median (0.5)", "3 of the last 8 steps", "30 at most", "optimizer.grad_clip"],
    ),
    "not_finite": (
        {"policy__skipped": lambda step: int(step == 25)},
        ["was not finite", "update was skipped", "3 such steps in a row end the run"],
    ),
}  # fmt: skip


@pytest.mark.parametrize("kind", ILL)
def test_each_watcher_fires_once_and_says_what_to_do(kind: str) -> None:
    keys, words = ILL[kind]
    (alarm,) = alarms(rows(60, **keys))
    assert alarm.kind == kind
    assert alarm.step == 2 if kind == "early_collapse" else 20 < alarm.step <= 20 + 2 * WINDOW
    assert not alarm.fatal
    assert [word for word in words if word not in alarm.message] == []
    assert "\n" not in alarm.message


# kind -> (step, value, limit) of its alarm, by hand: what the step before could not show yet
TOLD: dict[str, tuple[int, float, float]] = {
    "early_collapse": (2, 0.1, 0.15),
    "entropy_low": (28, 0.05, 0.1 * 0.8),
    "entropy_high": (27, 0.8 + 3.2 * 7 / 8, 4 * 0.8),
    "reward_fall": (26, 0.5 - 0.2 * 6 / 8, 0.5 * 0.8),
    "no_reward": (28, 0.0, 0.0),
    "truncated": (25, 0.1 + 0.65 * 5 / 8, 0.5),
    "mismatch_kl": (22, 0.05 + 1e-4 * 6 / 8, 0.05),
    "grad_spike": (25, 30.0, 10 * 0.5),
    "not_finite": (25, 1, 3),
}


@pytest.mark.parametrize("kind", ILL)
def test_each_alarm_by_hand(kind: str) -> None:
    (alarm,) = alarms(rows(60, **ILL[kind][0]))
    at, value, limit = TOLD[kind]
    assert alarm.step == at
    assert (alarm.value, alarm.limit) == pytest.approx((value, limit))
    assert not Alarm(1, "kind", 0.0, 0.0, "").fatal


@pytest.mark.parametrize(
    "keys",
    [
        {"policy__entropy": after(20, 0.0625, 0.625)},  # a tenth, in numbers that are exact
        {"policy__entropy": after(20, 3.2, 0.8)},
        {"reward__mean": after(20, 0.5, 0.625)},
        {"length__truncated_frac": 0.5},
        {"policy__mismatch_kl": 0.05},
        {"policy__grad_norm": lambda step: 5.0 if step > 20 else 0.5},
    ],
)
def test_a_figure_at_its_limit_is_no_alarm(keys: dict[str, Any]) -> None:
    assert alarms(rows(28, **keys)) == []


def test_the_start_of_a_run_is_its_first_five_steps() -> None:
    """Four of .8 and one of .3: .7. It is compared with from step 13 on, when no step is in both means."""
    some = rows(20, policy__entropy=lambda step: 0.8 if step < 5 else 0.3 if step == 5 else 0.0)
    alarm = next(alarm for alarm in alarms(some) if alarm.kind == "entropy_low")
    assert alarm.step == 13
    assert (alarm.value, alarm.limit) == pytest.approx((0.0, 0.1 * 0.7))


def test_the_best_reward_is_that_of_the_best_window() -> None:
    """Steps 21 to 28 are the first eight of .8. After step 40, six of .3 are more than four standard errors of the two
    means: .375 of .8, where five are .3125 and their error is .092."""
    some = rows(60, reward__mean=lambda step: 0.8 if 20 < step <= 40 else 0.3)
    (alarm,) = alarms(some)
    assert "its best, 0.8 at step 28" in alarm.message
    assert alarm.step == 46
    assert (alarm.value, alarm.limit) == pytest.approx((0.8 - 0.5 * 6 / 8, 0.8 * 0.8))


def test_a_reward_below_0_has_no_share_to_lose() -> None:
    assert alarms(rows(60, reward__mean=after(20, -0.9, -0.5))) == []


def test_usual_gradients_are_the_fifty_before_the_window() -> None:
    """25 of 3 and 25 of 1 have the median 2; one more or less would have 3 or 1. Those of 3 before them do not
    count."""

    def norms(spike: float) -> list[dict[str, Any]]:
        values = [3.0] * 55 + [1.0] * 30 + [spike] * 3
        return rows(len(values), policy__grad_norm=lambda step: values[step - 1])

    (alarm,) = alarms(norms(25.0))
    assert (alarm.step, alarm.value, alarm.limit) == (88, 25.0, 20.0)
    assert alarms(norms(15.0)) == []


def test_gradients_of_0_are_no_measure() -> None:
    assert alarms(rows(60, policy__grad_norm=after(40, 0.5, 0.0))) == []


@pytest.mark.parametrize(("there", "count"), [(3, 0), (4, 1)])
def test_a_mean_needs_half_of_its_window(there: int, count: int) -> None:
    some = rows(WINDOW, length__truncated_frac=lambda step: 0.9 if step <= there else None)
    assert len(alarms(some)) == count


def test_eight_quiet_steps_end_an_alarm() -> None:
    found = alarms(rows(40, policy__skipped=lambda step: int(step in (1, 9, 18))))
    assert [alarm.step for alarm in found] == [1, 18]


def test_after_a_rollback_skipped_steps_count_from_0() -> None:
    some = rows(30, policy__skipped=lambda step: int(11 <= step <= 14))
    assert [alarm.kind for alarm in watch_rows(Config(), some, {12})[1]] == ["not_finite", "not_finite"]


def test_a_start_without_figures_is_no_start() -> None:
    (alarm,) = alarms(rows(20, groups__all_wrong_frac=1.0, reward__correct=None))
    assert "nothing can be learned" in alarm.message


@pytest.mark.parametrize("kind", ILL)
def test_what_a_watcher_sees_ends_before_its_window_is_half_full(kind: str) -> None:
    """One step that is as bad as can be is no alarm (but a skipped update, which is always told)."""
    keys, _ = ILL[kind]
    bad = rows(60, **keys)[20 if kind != "not_finite" else 24]
    some = rows(60)
    some[30] = bad | {"step": 31}
    assert [alarm.kind for alarm in alarms(some)] == (["not_finite"] if kind == "not_finite" else [])


def test_every_watcher_is_tested() -> None:
    assert ILL.keys() | {"skipped"} == WATCHERS.keys()


def test_too_many_skipped_updates_in_a_row_are_fatal() -> None:
    found = alarms(rows(30, policy__skipped=lambda step: int(11 <= step <= 13)))
    assert [(alarm.kind, alarm.step, alarm.fatal) for alarm in found] == [
        ("not_finite", 11, False),
        ("skipped", 13, True),
    ]
    assert "in 3 steps in a row (health.max_skipped is 3)" in found[1].message
    apart = alarms(rows(30, policy__skipped=lambda step: int(step % 3 > 0)), "health.max_skipped=3")
    assert [alarm.kind for alarm in apart] == ["not_finite"]


@pytest.mark.parametrize("run", RUNS, ids=lambda path: path.name)
def test_real_healthy_runs_and_controls_raise_no_alarm(run: Path) -> None:
    config = parse((run / "config.toml").read_text(encoding="utf-8"), "config.toml")
    assert watch_rows(config, read_metrics(run))[1] == []


@pytest.mark.parametrize("kind", [kind for kind in ILL if kind not in ("not_finite", "skipped")])
def test_an_alarm_that_is_ignored_is_not_raised(kind: str) -> None:
    assert alarms(rows(60, **ILL[kind][0]), f'health.ignore=["{kind}"]') == []
    assert alarms(rows(60, **ILL[kind][0]), 'health.ignore=["entropy_low", "entropy_high"]') != [] or "entropy" in kind


def test_every_alarm_but_those_of_skipped_updates_can_be_ignored() -> None:
    assert WATCHERS.keys() - {"not_finite", "skipped"} == set(ALARMS)


def test_an_alarm_sounds_again_only_after_it_was_gone_for_a_window() -> None:
    def cut(step: int) -> float:
        return 0.9 if step <= 20 or 24 <= step <= 30 or step > 60 else 0.0

    found = alarms(rows(100, length__truncated_frac=cut))
    assert [alarm.step for alarm in found] == [WINDOW, 65]  # 5 of 8 steps at 0.9 are 0.56


def test_a_run_that_never_had_a_right_answer_is_told_that_it_cannot_learn() -> None:
    (alarm,) = alarms(rows(20, groups__all_wrong_frac=1.0, reward__correct=0.0, reward__mean=0.0))
    assert alarm.step == WINDOW
    assert "nothing can be learned" in alarm.message
    assert "prompt.template" in alarm.message


def test_a_noisy_reward_is_no_fall() -> None:
    """+-0.2 a step on 0.5: the best of many means is lucky, and the worst unlucky."""
    noisy = rows(
        400, reward__mean=lambda step: 0.5 + 0.2 * (-1 if (step * 7919) % 5 < 2 else 1) * ((step * 31) % 7) / 6
    )
    assert alarms(noisy) == []


def test_coins_have_no_reward_to_lose() -> None:
    falling = rows(60, **ILL["reward_fall"][0])
    assert alarms(falling, "reward.control=random") == []


def test_the_past_of_a_resumed_run_gives_the_same_alarms() -> None:
    some = rows(60, **ILL["reward_fall"][0], **ILL["truncated"][0])
    config = Config()
    whole = watch_rows(config, some)[1]
    for cut in (0, 5, 21, 28, 40):
        watch, before = watch_rows(config, some[:cut])
        assert before + [alarm for row in some[cut:] for alarm in watch.add(row)] == whole


def test_after_a_rollback_only_what_came_later_counts() -> None:
    some = rows(60, reward__mean=lambda step: 0.1 if step > 20 else 0.5)
    first, *_ = alarms(some)
    _, again = watch_rows(Config(), some, {first.step})
    assert [alarm.kind for alarm in again] == ["reward_fall", "reward_fall"]
    assert again[1].step == first.step + WINDOW  # a window of new rows is full, and it is still low
    recovered = [row | {"reward/mean": 0.5} if row["step"] > first.step else row for row in some]
    assert len(watch_rows(Config(), recovered, {first.step})[1]) == 1


def test_rows_of_older_releases_and_null_values_are_no_alarm() -> None:
    bare = [{"step": step} for step in range(1, 40)]
    assert alarms(bare) == []
    nulls = rows(40, policy__entropy=None, policy__grad_norm=None, policy__mismatch_kl=None, reward__mean=None)
    assert alarms(nulls) == []
    odd: list[Any] = [metrics_row(step, policy__entropy="x", reward__mean=10**400) for step in range(1, 40)]
    assert alarms(odd) == []


def test_a_run_shorter_than_a_window_and_a_start_is_left_alone() -> None:
    worst = {key: value for keys, _ in ILL.values() for key, value in keys.items()}
    short = [row | {"policy/skipped": 0} for row in rows(60, **worst)[20 : 20 + WINDOW - 1]]
    assert alarms(short) == []
    assert START <= WINDOW


@pytest.mark.parametrize(
    ("setting", "words"),
    [
        ("health.action=panic", "one of warn, stop, rollback"),
        ("health.max_skipped=0", "at least 1"),
        ("health.max_rollbacks=-1", "0 or more"),
        ("health.rollback_lr=1.0", "more than 0, below 1"),
        ("health.rollback_lr=0", "more than 0, below 1"),
        ("health.max_reward_fall=0.3", "is no setting any more"),
        ("health.grad_spike=20", "name the alarm in health.ignore"),
        ('health.ignore=["skipped"]', "unknown health.ignore 'skipped'"),
        ("health.ignore=truncated", 'a list, for example health.ignore=["..."]'),
        ("health.floor=1", "unknown key"),
    ],
)
def test_settings_that_make_no_sense_are_refused(setting: str, words: str) -> None:
    with pytest.raises(UserError) as error:
        resolve(sets=[setting])
    assert words in str(error.value)
    assert setting.partition("=")[0] in str(error.value)


def test_a_rollback_needs_a_checkpoint_to_go_back_to() -> None:
    with pytest.raises(UserError, match=r"eval\.on"):
        resolve(sets=["health.action=rollback", "eval.on=[]"])
    with pytest.raises(UserError, match=r"checkpoints\.keep_best"):
        resolve(sets=["health.action=rollback", "checkpoints.keep_last=2"])
    resolve(sets=["health.action=rollback", "checkpoints.keep_last=2", "checkpoints.keep_best=1"])


def test_alarms_are_plain_values() -> None:
    (alarm,) = alarms(rows(60, **ILL["truncated"][0]))
    assert dataclasses.asdict(alarm)["value"] == pytest.approx(0.1 + 0.65 * 5 / 8)
    assert isinstance(Watch(Config()).add(metrics_row(1)), list)


EARLY: dict[str, tuple[dict[str, Any], int, str]] = {
    "entropy": ({"policy__entropy": after(1, 0.05, 0.27)}, 2, "entropy fell from 0.27 to 0.05 nats"),
    "length": ({"length__mean": after(2, 4001.0, 400.0)}, 3, "answers grew from 400 to 4001 tokens after 2 steps"),
    "no answers": (
        {"groups__all_wrong_frac": after(2, 1.0, 0.5), "groups__sampled": 16},
        3,
        "no answer is right after 2 steps, in 8 of 16 groups one was to be expected",
    ),
}


@pytest.mark.parametrize("name", EARLY)
def test_a_collapse_in_the_first_steps_is_told_at_once_by_its_cause(name: str) -> None:
    keys, step, words = EARLY[name]
    alarm = next(alarm for alarm in alarms(rows(8, **keys), "optimizer.lr=4e-6") if alarm.kind == "early_collapse")
    assert alarm.step == step
    assert words in alarm.message
    assert "optimizer.lr (4e-06) is too high" in alarm.message


def test_what_is_no_early_collapse() -> None:
    keys = {"groups__sampled": 16}
    for mark in (
        {"policy__entropy": after(1, 0.15, 0.3)},
        {"length__mean": after(1, 300.0, 30.0)},
        {"groups__all_wrong_frac": after(1, 1.0, 0.51)},
        {"policy__entropy": after(WINDOW + START, 0.1, 0.3)},
    ):
        assert [alarm for alarm in alarms(rows(20, **keys | mark)) if alarm.kind == "early_collapse"] == []


def test_answers_that_were_not_cut_off_at_first_are_loops_now() -> None:
    keys = {"length__truncated_frac": after(20, 0.9, 0.1), "reward__mean": after(20, 0.3, 0.5)}
    told = {alarm.kind: alarm.message for alarm in alarms(rows(40, **keys))}
    assert "Raise sampling.max_new_tokens" in told["truncated"]  # reward has not fallen by half
    keys["reward__mean"] = after(15, 0.05, 0.5)
    told = {alarm.kind: alarm.message for alarm in alarms(rows(40, **keys))}
    assert "At the first step it was 10%" in told["truncated"]
    assert "Raise" not in told["truncated"]


def test_an_own_reward_that_never_pays_is_not_blamed_on_the_problems() -> None:
    never = rows(20, groups__all_wrong_frac=1.0, reward__correct=0, reward__mean=0)
    (alarm,) = alarms(never, "reward.name=mine.py:right")
    assert "verify GOLD ANSWER --reward mine.py:right" in alarm.message
    assert "too hard" not in alarm.message
