"""Settings: one place, one default, one help string; layered strictly, and written so that they read back equal."""

import dataclasses
import json
import math
import re
import tomllib
import typing
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from r1v0 import config as module
from r1v0.base.errors import UserError
from r1v0.config import (
    LARGEST,
    MAY_CHANGE,
    TRACKERS,
    VARIANTS,
    Config,
    GrpoConfig,
    PromptConfig,
    described,
    differences,
    keys,
    parse,
    preset_text,
    presets,
    resolve,
    resume,
    to_toml,
    validate,
    with_template,
)
from r1v0.config.names import ALARMS

SECTIONS: dict[str, Any] = {
    name: kind for name, kind in typing.get_type_hints(Config).items() if dataclasses.is_dataclass(kind)
}
BY_VARIANT = ("surrogate", "aggregation", "advantage_scale", "clip_low", "clip_high", "refill")


def types_of_keys() -> dict[str, Any]:
    """Every dotted key and its declared type, found without `config.keys`."""
    found = {name: kind for name, kind in typing.get_type_hints(Config).items() if name not in SECTIONS}
    for section, cls in SECTIONS.items():
        found.update({f"{section}.{name}": kind for name, kind in typing.get_type_hints(cls).items()})
    return found


TYPES = types_of_keys()


def value_of(config: Config, key: str) -> Any:
    value: Any = dataclasses.asdict(config)
    for part in key.split("."):
        value = value[part]
    return value


def written(folder: Path, text: str, name: str = "settings.toml") -> Path:
    path = folder / name
    path.write_text(text, encoding="utf-8")
    return path


def as_file(key: str, value: str) -> str:
    section, _, leaf = key.rpartition(".")
    return f"[{section}]\n{leaf} = {value}\n" if section else f"{leaf} = {value}\n"


def refusal(*, preset: str | None = None, file: Path | None = None, sets: typing.Iterable[str] = ()) -> str:
    with pytest.raises(UserError) as caught:
        resolve(preset, file, sets)
    message = str(caught.value)
    assert "\n" not in message
    return message


@pytest.fixture
def own_preset(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """The only preset: it sets the learning rate to 0.5 and the steps to 7."""
    folder = tmp_path / "presets"
    folder.mkdir()
    written(folder, "# a preset of the tests\nsteps = 7\n[optimizer]\nlr = 0.5\n", "own.toml")
    monkeypatch.setattr("r1v0.config.load.PRESET_DIR", folder)
    return "own"


# Layers


def test_nothing_given_is_the_defaults() -> None:
    assert resolve() == Config()
    assert resolve().grpo == GrpoConfig()


def test_each_layer_beats_the_one_below(own_preset: str, tmp_path: Path) -> None:
    file = written(tmp_path, "[optimizer]\nlr = 0.25\nwarmup_steps = 3\n")
    sets = ["optimizer.lr=0.125"]
    assert resolve().optimizer.lr == 3e-4
    assert resolve(own_preset).optimizer.lr == 0.5
    assert resolve(own_preset, file).optimizer.lr == 0.25
    assert resolve(own_preset, file, sets).optimizer.lr == 0.125
    assert resolve(own_preset, None, sets).optimizer.lr == 0.125
    whole = resolve(own_preset, file, sets)
    assert (whole.steps, whole.optimizer.warmup_steps, whole.optimizer.beta2) == (7, 3, 0.95)


def test_the_last_set_wins() -> None:
    assert resolve(sets=["steps=3", "steps=5"]).steps == 5


OTHER_VALUES = {int: ("6", 6), float: ("0.375", 0.375), str: ('"word"', "word"), list[str]: ('["wandb", "trackio"]', ["wandb", "trackio"]),
                list[int]: ("[1, 5]", [1, 5]), dict[str, float]: ("{format = 0.5}", {"format": 0.5})}  # fmt: skip


@pytest.mark.parametrize("key", TYPES)
def test_every_key_can_be_set_in_a_file_and_by_a_flag(key: str, tmp_path: Path) -> None:
    kind, default = TYPES[key], value_of(Config(), key)
    value: Any
    if kind is bool:
        text, value = str(not default).lower(), not default
    elif typing.get_origin(kind) is typing.Literal:
        value = next(choice for choice in typing.get_args(kind) if choice != default)
        text = json.dumps(value)
    elif key == "grpo.variant":
        text, value = '"dapo"', "dapo"
    elif key == "health.ignore":
        text, value = '["truncated"]', ["truncated"]
    else:
        text, value = OTHER_VALUES[kind]
    assert value != default
    for given_config in (resolve(file=written(tmp_path, as_file(key, text))), resolve(sets=[f"{key}={text}"])):
        assert value_of(given_config, key) == value
        changed = set(differences(Config(), given_config))
        assert changed == {key} | (
            {"grpo.aggregation", "grpo.clip_high", "grpo.refill"} if key == "grpo.variant" else set()
        )


# --set


@pytest.mark.parametrize(
    ("item", "key", "value"),
    [
        ("optimizer.lr=1e-4", "optimizer.lr", 1e-4),
        ("optimizer.lr=1", "optimizer.lr", 1.0),
        (" optimizer.lr = 1e-4 ", "optimizer.lr", 1e-4),
        ("model=Qwen/Qwen2.5-1.5B", "model", "Qwen/Qwen2.5-1.5B"),
        ("model=../my model", "model", "../my model"),
        ('model="quoted"', "model", "quoted"),
        ("model=a=b", "model", "a=b"),
        ("data.path=", "data.path", ""),
        (r"data.path=C:\data\train.jsonl", "data.path", r"C:\data\train.jsonl"),
        ("grpo.sparse=false", "grpo.sparse", False),
        ('eval.on=["math500"]', "eval.on", ["math500"]),
        ("data.levels=[3, 4, 5]", "data.levels", [3, 4, 5]),
        ("reward.extra.format=0.1", "reward.extra", {"format": 0.1}),
        ("seed=1_000", "seed", 1000),
    ],
)
def test_a_set_value_is_toml_or_a_bare_word(item: str, key: str, value: Any) -> None:
    assert value_of(resolve(sets=[item]), key) == value


def test_dotted_sets_of_one_table_add_up() -> None:
    extra = resolve(sets=["reward.extra={format = 0.1}", "reward.extra.cosine=0.2"]).reward.extra
    assert extra == {"format": 0.1, "cosine": 0.2}


def test_a_line_break_in_a_set_value_cannot_set_a_second_key() -> None:
    assert "steps" in refusal(sets=["steps=5\nseed=3"])
    assert resolve(sets=['model="a"\nseed=3']).model == '"a"\nseed=3'


@pytest.mark.parametrize("item", ["steps", "=5", " =5", ""])
def test_a_set_without_key_or_value_is_refused(item: str) -> None:
    assert "KEY=VALUE" in refusal(sets=[item])


def test_a_key_is_a_value_or_a_table_but_not_both() -> None:
    assert "'seed'" in refusal(sets=["seed=1", "seed.x=2"])


# Unknown and misspelt


@pytest.mark.parametrize(
    ("key", "suggestion"),
    [
        ("grpo.group_sise", "grpo.group_size"),
        ("sampling.temprature", "sampling.temperature"),
        ("sampling.lr", "optimizer.lr"),
        ("lr", "optimizer.lr"),
        ("group_size", "grpo.group_size"),
        ("stepz", "steps"),
        ("optimiser", "optimizer"),
    ],
)
def test_an_unknown_key_is_refused_in_every_layer(
    key: str, suggestion: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = written(tmp_path, as_file(key, "1"), "wrong.toml")
    monkeypatch.setattr("r1v0.config.load.PRESET_DIR", tmp_path)
    expected = "unknown key '{}' ({}): did you mean '{}'?"
    assert refusal(sets=[f"{key}=1"]) == expected.format(key, "--set", suggestion)
    assert refusal(file=file) == expected.format(key, file, suggestion)
    assert refusal(preset="wrong") == expected.format(key, "preset wrong", suggestion)


@pytest.mark.parametrize(
    ("item", "unknown", "suggestion"),
    [
        ("optimiser.lr=1", "optimiser", "optimizer"),
        ("sampler.slots=1", "sampler", "sampling"),
        ("a.b.c=1", "a", None),
        ("grpo.xyzzy=1", "grpo.xyzzy", None),
        (".=1", "", None),
    ],
)
def test_the_part_that_is_wrong_is_named(item: str, unknown: str, suggestion: str | None) -> None:
    hint = f"did you mean '{suggestion}'?" if suggestion else "`r1v0 presets --keys` lists all of them"
    assert refusal(sets=[item]) == f"unknown key '{unknown}' (--set): {hint}"


def test_an_unknown_preset_is_refused_with_a_suggestion(own_preset: str) -> None:
    assert refusal(preset="owm") == "unknown preset 'owm': did you mean 'own'?"
    assert refusal(preset="zzz") == "unknown preset 'zzz': known: own"


def test_an_unknown_variant_is_refused_with_a_suggestion() -> None:
    assert "did you mean 'dr_grpo'?" in refusal(sets=["grpo.variant=drgrpo"])
    assert "grpo.variant" in refusal(sets=["grpo.variant=5"])
    assert "grpo.variant" in refusal(sets=["grpo.variant=[]"])


@pytest.mark.parametrize("key", ["sampling.top_p", "sampling.top_k", "sampling.min_p"])
def test_truncated_sampling_is_refused_with_its_reason(key: str, tmp_path: Path) -> None:
    for message in (refusal(sets=[f"{key}=1"]), refusal(file=written(tmp_path, as_file(key, "1")))):
        assert key in message
        assert "logprobs" in message


# Wrong values

WRONG_TYPES = {
    int: ["1.5", "true", "two", "[1]", "{a = 1}", "2024-01-01", str(1 << 63), "9" * 5000],
    float: ["true", "half", "[0.5]", "inf", "-inf", "nan", str(10**400)],
    str: ["1", "true", "['a']", "2024-01-01"],
    bool: ["0", "1", "yes", "1.0"],
    list[str]: ["word", "[1]", "['a', 2]", "{a = 1}"],
    list[int]: ["3", "['3']", "[true]", "[1.0]", f"[{1 << 63}]"],
    dict[str, float]: ["0.5", "[0.5]", "{a = 'b'}", "{a = true}", "{a = inf}", "{a = {b = 1}}"],
}


@pytest.mark.parametrize("key", TYPES)
def test_a_value_of_the_wrong_type_is_refused(key: str, tmp_path: Path) -> None:
    kind = TYPES[key]
    for text in ["word", "3", "true"] if typing.get_origin(kind) is typing.Literal else WRONG_TYPES[kind]:
        assert key in refusal(sets=[f"{key}={text}"])
        if text not in ("two", "half", "word", "yes"):  # as a file, these bare words are not TOML at all
            message = refusal(file=written(tmp_path, as_file(key, text)))
            assert key in message or "is not TOML" in message


def test_a_section_given_as_a_value_is_refused_and_shown_how() -> None:
    message = refusal(sets=["optimizer=3"])
    assert "optimizer" in message
    assert "optimizer.lr=" in message


@pytest.mark.parametrize("key", [key for key, kind in TYPES.items() if kind in (int, float)])
def test_every_number_has_a_lower_bound(key: str) -> None:
    assert key in refusal(sets=[f"{key}=-1"])


@pytest.mark.parametrize(
    ("item", "fine"),
    [
        ("grpo.group_size=1", "grpo.group_size=2"),
        ("grpo.groups=0", "grpo.groups=1"),
        ("grpo.keep_per_group=9", "grpo.keep_per_group=8"),
        ("grpo.minibatches=129", "grpo.minibatches=128"),
        ("grpo.minibatches=0", "grpo.minibatches=1"),
        ("grpo.epochs=0", "grpo.epochs=1"),
        ("grpo.clip_low=1.1", "grpo.clip_low=1.0"),
        ("grpo.clip_low=0", "grpo.clip_low=1e-9"),
        ("grpo.clip_high=0", "grpo.clip_high=100"),
        ("optimizer.beta2=1", "optimizer.beta2=0"),
        ("optimizer.lr=0", "optimizer.lr=1e-9"),
        ("optimizer.grad_clip=0", "optimizer.grad_clip=0.1"),
        ("optimizer.micro_batch_tokens=-1", "optimizer.micro_batch_tokens=0"),
        ("sampling.temperature=0", "sampling.temperature=0.1"),
        ("sampling.max_sequences=-1", "sampling.max_sequences=0"),
        ("eval.samples=0", "eval.temperature=0"),
        ("eval.every=0", "eval.every=1"),
        ("checkpoints.every=0", "steps=0"),
        ("reward.workers=0", "reward.workers=1"),
        ("reward.timeout_s=0", "reward.timeout_s=0.5"),
        ("reward.timeout_s=100000", "reward.timeout_s=3600"),
        ("reward.workers=100000", "reward.workers=64"),
        ("steps=1000000000", "steps=999999999"),
        ("sampling.max_sequences=9223372036854775807", "sampling.max_sequences=4096"),
    ],
)
def test_what_cannot_run_is_refused_and_its_neighbour_runs(item: str, fine: str) -> None:
    key, _, value = item.partition("=")
    assert refusal(sets=[item]).startswith(f"{key} is {value.removesuffix('.0')}")
    resolve(sets=[fine])


def test_a_config_built_in_python_is_validated_the_same_way() -> None:
    with pytest.raises(UserError, match=r"grpo\.group_size is 1"):
        validate(Config(grpo=GrpoConfig(group_size=1)))
    with pytest.raises(UserError, match="did you mean 'gspo'"):
        validate(Config(grpo=GrpoConfig(variant="gsppo")))


def test_bytes_that_are_no_text_are_refused() -> None:
    argument = b"data/\xff.jsonl".decode("utf-8", "surrogateescape")  # what sys.argv holds for such a path
    assert "data.path" in refusal(sets=[f"data.path={argument}"])
    assert "reward.extra" in refusal(sets=[f"reward.extra.{argument[5]}=1"])


# Files


@pytest.mark.parametrize(
    ("content", "word"),
    [
        (b"steps = ", "not TOML"),
        (b"steps = 1\nsteps = 2\n", "not TOML"),
        (b"steps = " + b"9" * 5000, "not TOML"),
        (b"steps = " + b"[" * 100_000, "not TOML"),
        (b'model = "\xff"', "UTF-8"),
        (b"\x00\x01\x02", "not TOML"),
    ],
    ids=["cut", "twice", "digits", "deep", "latin", "binary"],
)
def test_a_file_that_is_not_toml_is_refused(content: bytes, word: str, tmp_path: Path) -> None:
    path = tmp_path / "broken.toml"
    path.write_bytes(content)
    message = refusal(file=path)
    assert str(path) in message
    assert word in message


def test_a_missing_file_and_a_folder_are_refused(tmp_path: Path) -> None:
    assert "does not exist" in refusal(file=tmp_path / "none.toml")
    assert "cannot be read" in refusal(file=tmp_path)


def test_a_byte_order_mark_is_no_error(tmp_path: Path) -> None:
    path = tmp_path / "bom.toml"
    path.write_bytes(b"\xef\xbb\xbfsteps = 3\n")
    assert resolve(file=path).steps == 3


# Variants

# Written from the papers, not from the table in config.py.
PAPERS = {
    "grpo": ("ppo", "sequence", "std", 0.2, 0.2, False),
    "dr_grpo": ("ppo", "constant", "none", 0.2, 0.2, False),
    "dapo": ("ppo", "token", "std", 0.2, 0.28, True),
    "cispo": ("cispo", "token", "std", 1.0, 4.0, False),
    "gspo": ("gspo", "sequence", "std", 3e-4, 4e-4, False),
}


@pytest.mark.parametrize("variant", PAPERS)
def test_a_variant_is_its_papers_row(variant: str) -> None:
    grpo = resolve(sets=[f"grpo.variant={variant}"]).grpo
    assert tuple(getattr(grpo, name) for name in BY_VARIANT) == PAPERS[variant]
    assert (
        dataclasses.replace(grpo, **{name: getattr(GrpoConfig(), name) for name in (*BY_VARIANT, "variant")})
        == GrpoConfig()
    )
    assert PAPERS.keys() == VARIANTS.keys()


def test_a_setting_beside_the_variant_wins_in_either_order(tmp_path: Path) -> None:
    expected = dataclasses.replace(resolve(sets=["grpo.variant=dapo"]).grpo, clip_high=0.5)
    assert resolve(sets=["grpo.variant=dapo", "grpo.clip_high=0.5"]).grpo == expected
    assert resolve(sets=["grpo.clip_high=0.5", "grpo.variant=dapo"]).grpo == expected
    file = written(tmp_path, '[grpo]\nclip_high = 0.5\nvariant = "dapo"\n')
    assert resolve(file=file).grpo == expected


def test_a_variant_named_above_replaces_the_row_below(tmp_path: Path) -> None:
    file = written(tmp_path, '[grpo]\nvariant = "dapo"\nclip_high = 0.5\ngroups = 3\n')
    grpo = resolve(file=file, sets=["grpo.variant=grpo"]).grpo
    assert tuple(getattr(grpo, name) for name in BY_VARIANT) == PAPERS["grpo"]
    assert grpo.groups == 3
    assert resolve(file=file, sets=["grpo.clip_high=0.4"]).grpo == dataclasses.replace(
        resolve(file=file).grpo, clip_high=0.4
    )


# Writing and reading back

TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
COUNT = st.integers(1, 1 << 40)
POSITIVE = st.floats(min_value=0, exclude_min=True, allow_infinity=False)
FRACTION = st.floats(0, 1, exclude_min=True, exclude_max=True)
OF_TYPE: dict[Any, st.SearchStrategy[Any]] = {
    int: COUNT,
    float: POSITIVE,
    str: TEXT,
    bool: st.booleans(),
    list[str]: st.lists(TEXT, max_size=3),
    list[int]: st.lists(st.integers(-(1 << 63) + 1, (1 << 63) - 1), max_size=3),
    dict[str, float]: st.dictionaries(TEXT, st.floats(allow_nan=False, allow_infinity=False), max_size=3),
}
OF_KEY = {
    "track": st.lists(st.sampled_from(TRACKERS), unique=True),
    "grpo.variant": st.sampled_from(sorted(VARIANTS)),
    "grpo.clip_low": FRACTION,
    "optimizer.beta1": FRACTION,
    "optimizer.beta2": FRACTION,
    "grpo.group_size": st.integers(2, 99),
    "grpo.keep_per_group": st.integers(0, 2),
    "health.action": st.sampled_from(["warn", "stop"]),  # a rollback needs an evaluation and a best checkpoint
    "health.rollback_lr": FRACTION,
    "health.ignore": st.lists(st.sampled_from(ALARMS)),
    "grpo.minibatches": st.integers(1, 2),
    "eval.on": st.lists(st.text("ab-=/", max_size=6), unique_by=lambda spec: spec.partition("=")[0].strip()),
}


def strategy_of(key: str) -> st.SearchStrategy[Any]:
    if key in LARGEST and key not in OF_KEY:
        most = LARGEST[key]
        return st.integers(1, most) if isinstance(most, int) else st.floats(0, most, exclude_min=True)
    choices = typing.get_args(TYPES[key]) if typing.get_origin(TYPES[key]) is typing.Literal else ()
    if key in OF_KEY:
        return OF_KEY[key]
    return st.sampled_from(choices) if choices else OF_TYPE.get(TYPES[key], st.nothing())


@st.composite
def configs(draw: st.DrawFn) -> Config:
    parts: dict[str, Any] = {key: draw(strategy_of(key)) for key in TYPES if "." not in key}
    for name, cls in SECTIONS.items():
        parts[name] = cls(
            **{field.name: draw(strategy_of(f"{name}.{field.name}")) for field in dataclasses.fields(cls)}
        )
    if parts["lora"].rank or parts["optimizer"].offload:  # which 8-bit states do not go with
        parts["optimizer"] = dataclasses.replace(parts["optimizer"], moments="float32", shard=False)
    return Config(**parts)


@settings(max_examples=60, deadline=None)
@given(configs())
def test_any_config_reads_back_equal(tmp_path_factory: pytest.TempPathFactory, config: Config) -> None:
    text = to_toml(config)
    assert tomllib.loads(text) == dataclasses.asdict(config)
    path = written(tmp_path_factory.getbasetemp(), text, "read_back.toml")
    assert resolve(file=path) == config
    assert to_toml(resolve(file=path)) == text


@pytest.mark.parametrize(
    "word", ["\x7f", "\x00", "\t\r\n", '"\\', "é 漢 \U0001f600", "\u2028", "#", "'''", '"""', "a.b"]
)
def test_awkward_text_reads_back_equal(word: str, tmp_path: Path) -> None:
    config = dataclasses.replace(
        Config(model=word),
        reward=dataclasses.replace(Config().reward, extra={word: 1.0}),
        eval=dataclasses.replace(Config().eval, on=[word]),
    )
    assert resolve(file=written(tmp_path, to_toml(config))) == config


# Resuming


def test_a_runs_own_text_reads_back_and_damage_is_refused() -> None:
    config = resolve("countdown", sets=["seed=3"])
    assert parse(to_toml(config), "run/config.toml") == config
    for text in ("steps = ", "steps = " + "9" * 5000, "steps = 0.5", "stepz = 3", "grpo.group_size = 1", "[" * 100_000):
        with pytest.raises(UserError) as caught:
            parse(text, "run/config.toml")
        assert "run/config.toml" in str(caught.value) or "grpo.group_size" in str(caught.value)


@pytest.mark.parametrize("key", TYPES)
def test_a_resumed_run_changes_what_cannot_change_its_numbers(key: str) -> None:
    config = resolve("countdown")
    kind, value = TYPES[key], value_of(config, key)
    choices = typing.get_args(kind) if typing.get_origin(kind) is typing.Literal else ()
    if key in MAY_CHANGE:
        text, new = (choices[1], choices[1]) if choices else {**OTHER_VALUES, bool: ("true", True)}[kind]
        if key == "health.ignore":
            text, new = '["truncated"]', ["truncated"]
        assert value_of(resume(config, [f"{key}={text}"]), key) == new
        return
    other = next((choice for choice in choices if choice != value), None) or {
        "grpo.variant": "gspo",
        "grpo.keep_per_group": "2",
        "grpo.clip_low": "0.5",
    }.get(key, str(not value).lower() if kind is bool else OTHER_VALUES.get(kind, ("",))[0])
    with pytest.raises(UserError, match="cannot become") as caught:
        resume(config, [f"{key}={other}"])
    assert "\n" not in str(caught.value)


def test_resuming_without_changes_is_the_same_config() -> None:
    config = resolve("countdown", sets=["reward.extra.format=0.1"])
    assert resume(config, []) == config
    assert resume(config, [f"seed={config.seed}"]) == config
    with pytest.raises(UserError, match="unknown key 'stepz'"):
        resume(config, ["stepz=9"])


def test_differences_names_what_changed_and_nothing_else() -> None:
    a, b = resolve(), resolve(sets=["seed=3", "optimizer.lr=0.5"])
    assert differences(a, b) == {"seed": (0, 3), "optimizer.lr": (3e-4, 0.5)}
    assert differences(a, resolve()) == {}


# Help and presets


def test_every_key_has_a_help_string() -> None:
    assert keys().keys() == TYPES.keys()
    for key, text in keys().items():
        assert len(text) > 10, key
        assert "\n" not in text, key
        assert text == text.strip(), key


def test_every_key_is_described_with_its_default() -> None:
    assert described().keys() == TYPES.keys()
    assert described()["optimizer.lr"] == ("0.0003", keys()["optimizer.lr"])
    for key, (value, _) in described().items():
        assert tomllib.loads(f"value = {value}")["value"] == value_of(Config(), key)


def test_a_presets_text_is_its_file(own_preset: str) -> None:
    assert tomllib.loads(preset_text(own_preset)) == {"steps": 7, "optimizer": {"lr": 0.5}}
    with pytest.raises(UserError, match="did you mean 'own'"):
        preset_text("onw")


def test_the_defaults_are_valid_and_of_their_types() -> None:
    validate(Config())
    for key, kind in TYPES.items():
        value = value_of(Config(), key)
        if kind is float:
            assert type(value) is float, key
            assert math.isfinite(value), key
        elif typing.get_origin(kind) is typing.Literal:
            assert value in typing.get_args(kind), key


def test_the_embedded_run_and_its_controls_are_presets() -> None:
    assert {"countdown", "countdown-random", "countdown-dense"} <= presets().keys()
    run = resolve("countdown")
    assert differences(run, resolve("countdown-random")) == {"reward.control": ("none", "random")}
    assert differences(run, resolve("countdown-dense")) == {"grpo.sparse": (True, False)}


@pytest.mark.parametrize("name", sorted(presets()))
def test_every_preset_resolves_and_says_what_it_is(name: str) -> None:
    assert isinstance(resolve(name), Config)
    first = (module.PRESET_DIR / f"{name}.toml").read_text(encoding="utf-8").splitlines()[0]
    assert first.startswith("# ")
    assert presets()[name] == first[2:].strip() != ""


# A user's own prompt template

WORDS = "text = '''\nQ: {question}\nput it in \\boxed{}.\nA:'''\nstop = ['Q:']\n"


def test_a_template_file_becomes_words_of_the_config(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The run's config.toml alone says what is asked: the file is not looked for again, wherever it is read."""
    (tmp_path / "mine.toml").write_text(WORDS, encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    found = resolve("countdown", sets=["prompt.template=mine.toml"])
    text = "Q: {question}\nput it in \\boxed{}.\nA:"
    assert dataclasses.astuple(found.prompt) == ("mine.toml", text, ["Q:"])
    monkeypatch.chdir("/")
    assert parse(to_toml(found), "config.toml") == found
    (tmp_path / "run.toml").write_text(to_toml(found), encoding="utf-8")
    assert resolve(file=tmp_path / "run.toml", sets=["steps=3"]).prompt == found.prompt
    for name in ("question", "chat"):
        assert resolve(file=tmp_path / "run.toml", sets=[f"prompt.template={name}"]).prompt == PromptConfig(name)
        assert with_template(found, name).prompt == PromptConfig(name)
    assert with_template(found, "mine.toml") is found
    beside = resolve(file=tmp_path / "run.toml", sets=["prompt.template=chat", "prompt.text=do {question}"])
    assert beside.prompt == PromptConfig("chat", "do {question}")


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (None, "does not exist: give a TOML file with text = '...{question}...', and if need be stop = ['...']"),
        (b"Q: {question}", "cannot be read (Expected '=' after a key"),
        (b"\xff", "cannot be read ('utf-8' codec can't decode byte 0xff"),
        (b"", "has no text: expected text = "),
        (b"stop = ['a']", "has no text: expected text = "),
        (b"text = 7", "text (mine.toml) is 7: expected a text"),
        (b"text = '{question}'\nstop = 'a'", 'stop (mine.toml) is "a": expected a list'),
        (b"text = '{question}'\nstops = ['a']", "has the key 'stops': expected text = "),
        (b"[prompt]\ntext = '{question}'", "has the key 'prompt': expected text = "),
    ],
)
def test_template_files_that_cannot_be_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, content: bytes | None, expected: str
) -> None:
    monkeypatch.chdir(tmp_path)
    if content is not None:
        Path("mine.toml").write_bytes(content)
    with pytest.raises(UserError) as caught:
        resolve(sets=["prompt.template=mine.toml"])
    assert expected in str(caught.value)
    assert "mine.toml" in str(caught.value)


def test_a_template_that_is_a_folder(tmp_path: Path) -> None:
    (tmp_path / "a.toml").mkdir()
    with pytest.raises(UserError, match="cannot be read \\(Is a directory\\): expected a TOML file with text"):
        resolve(sets=[f"prompt.template={tmp_path / 'a.toml'}"])


@pytest.mark.parametrize(("old", "new"), module.RENAMED.items())
def test_an_old_name_says_what_it_is_called_now(old: str, new: str) -> None:
    known = module.keys()
    assert new in known
    with pytest.raises(UserError, match=f"{re.escape(old)} .* was renamed to {re.escape(new)}: use that name"):
        resolve(sets=[f"{old}=1"])


def test_the_ten_that_one_needs_first_are_settings() -> None:
    assert len(module.FIRST) == 10
    known = module.keys()
    assert set(module.FIRST) <= set(known)
