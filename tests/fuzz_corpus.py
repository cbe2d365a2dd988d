"""Where fuzzing starts: real examples of every input, and the words that they are made of."""

import json
from typing import Any

from r1v0.config import PRESET_DIR, Config, described, to_toml

SEPARATOR = "\x1e"


def words(text: str) -> list[str]:
    return text.split()


COUNTDOWN = [(17, (3, 7, 4)), (24, (4, 6, 8, 2)), (12, (12,)), (8, (2, 3, 9))]
COUNTDOWN_TEXTS = [
    "3*7=21,21-4=17 vs 17 yes \\boxed{(3*7)-4}",
    "\\boxed{3+7} no \\boxed{ 7*3 - 4 } \n",
    "\\boxed{(4*6)*(8-2)}",
    "\\boxed{8-((4+2)-6)}",
    "\\boxed{(2-3)+9}",
    "\\boxed{12}",
    "\\boxed{" + "(" * 9 + "3*7-4" + ")" * 9 + "}",
    "\\boxed{(3*7)-4=17}",
    "\\boxed{003*07-4",
]
COUNTDOWN_TOKENS = [
    *words(
        "3 7 4 3*7 -4 3*7-4 6 8 2 9 4*6 12 ( ) + - * ** / 03 1 17 24 = } \\boxed{ \\boxed{( )} _ . , e x ３ ٣ - - ²"
    ),
    *[" ", "\n", "\u00a0", "\udcff", "\0", "0" * 7, "("],
]

GOLD = ["42", r"\frac{14}{3}", "1,250", "-7.5", "x^2+13"]
ANSWER_TEXTS = [
    "so the answer is \\boxed{42}.",
    "\\boxed{\\frac{14}{3}} or \\boxed{\\dfrac{14}{3}}",
    "<think>6*7</think> <answer>42</answer>",
    "<answer>so \\boxed{1{,}250}</answer>",
    "48/2 = <<48/2=24>>24\n#### 1,250",
    "The answer is: $-7.50$",
    "\\fbox{x^{2}+13} and \\boxed 42",
    "\\boxed{\\left\\{x \\mid x^2+13 \\right\\}}",
    "\\boxed{\\text{even}} \\boxed{52_8} \\boxed{(C)} \\boxed{0.1\\overline{6}}",
    "\\boxed{12\\text{ cm}^2} \\boxed{\\$42} \\boxed{42^\\circ} 3 million",
]
ANSWER_TOKENS = [
    *words(
        "\\boxed{ \\fbox{ \\boxed } { <answer> </answer> <think> </think> #### The answer is: \\frac{14}{3} "
        "\\frac 14 3 42 1,250 1250 "
        "-7.5 7.50 x^2+13 x^{2} \\dfrac \\tfrac \\sqrt \\left \\right \\! \\, \\text{ \\mathrm{ $ % ^\\circ "
        "^ _ ( ) [ ] . , ; ~ "
        "\\overline{ \\circ √ − π ½ ٤٢ ４２ cm degrees million \\in \\pm e i \\\\ \\$ \\{ \\} - + 0 4 2 = the"
    ),
    *[" ", "\n", "\u200b", "\udc80", "\0"],
]

NUMBER_PAIRS = [
    f"42{SEPARATOR}42.0",
    f"1/2{SEPARATOR}0.5",
    f"\\frac{{1}}{{2}}{SEPARATOR}\\dfrac{{2}}{{4}}",
    f"-7.5{SEPARATOR}-15/2",
    f"1250{SEPARATOR}+1250",
    f"0.333{SEPARATOR}1/3",
    f"100000{SEPARATOR}99999",
]
NUMBER_TOKENS = [
    *words(
        "0 1 2 3 4 5 7 9 10 12 25 33 50 100 999 . .5 .0 .25 - + / \\frac{1}{ \\frac{3}{ \\dfrac{12}{ } 2} 4} $ \\left"
    ),
    *[SEPARATOR, SEPARATOR, SEPARATOR, " ", "0", "1", "/2", "/4", ".50"],
]

TOML = [path.read_text(encoding="utf-8") for path in sorted(PRESET_DIR.glob("*.toml"))] + [
    to_toml(Config()),
    '[reward]\nname = "math"\nextra = {format = 0.1, "a.b" = 2}\n',
    '[data]\nlevels = [1, 2]\navoid = ["math500=é.jsonl"]\n',
]
_VALUES = [
    "1", "0", "-1", "2", "0.5", "1e-4", "1e400", "inf", "nan", "-0.0", "true", "false", '""', '"x"', "''", "[]", "[1]", '["a"]',
    "{}", '{a=1}', "1_000", "0x10", "9223372036854775807", "9223372036854775808", "1979-05-27", '"\\u007f"', '"\\uD800"', '"dapo"',
    '"gspo"', '"é"', "1e308",
]  # fmt: skip
TOML_TOKENS = [
    *(f"{key.rpartition('.')[2]} = " for key in described()),
    *(f"[{name}]\n" for name in sorted({key.partition(".")[0] for key in described()})),
    *(f"{value}\n" for value in _VALUES),
    "\n", "#", ".", "top_p = ", "[[data]]\n", "\r", "\0", '"""', "é",
]  # fmt: skip
SETS = [
    f"optimizer.lr=1e-4{SEPARATOR}steps=10",
    f"grpo.variant=dapo{SEPARATOR}grpo.clip_high=0.5",
    'eval.on=["math500","gsm8k=a.jsonl"]',
    "reward.extra.format=0.1",
    'reward.extra={format=0.1}',
    "model=Qwen/Qwen2.5-1.5B",
]  # fmt: skip
SET_TOKENS = (
    [f"{SEPARATOR}{key}=" for key in described()] + _VALUES + ["=", ".", "grpo", SEPARATOR, " ", "\n", "a", "é"]
)


def _lines(*rows: Any) -> str:
    return "".join(json.dumps(row) + "\n" for row in rows)


_PROBLEM = {"problem": "What is 6 times 7?", "answer": "42", "level": 3, "unique_id": "a/1.json"}
DATA_ROWS = [
    _lines(_PROBLEM, {"problem": "x", "answer": 27.0}, {"problem": "y", "answer": ["1", 2]}),
    json.dumps([_PROBLEM, {"problem": "é", "answer": None}], indent=1),
    '\ufeff{"problem": "a", "answer": "b"}\r\n\n{"answer": "\\ud800", "problem": 1e999}\n',
    '{"problem": "' + "a" * 300 + '", "answer": ' + "[" * 700 + "1" + "]" * 700 + "}\n",
    "hello\n[1]\n",
]
JSON_TOKENS = [
    '{"problem":', '"answer":', '{"gold":', '"completion":', ",", "}", "]", "[", "{", ":", '"', '"x"', '"42"', "1", "-0.0", "1e999", "NaN",
    "null", "true",
    "1" * 400, "[[[[[[[[", "]]]]]]]]", "\n", "\r\n", "\\", '"\\ud800"', "\udcff", " ", "\0", "\ufeff", '{"problem":"a","answer":"b"}\n',
]  # fmt: skip

_METRICS = {"step": 1, "reward/mean": 0.5, "length/mean": 40.0, "length/correct": None, "policy/entropy": 0.8}
_EVAL = {"step": 0, "dataset": "countdown", "accuracy": 0.3, "ci_low": 0.2, "ci_high": 0.4, "pass_at_k": {"1": 0.3}}
RUN_ROWS = [
    _lines(_METRICS, {**_METRICS, "step": 2}) + SEPARATOR + _lines(_EVAL, {**_EVAL, "step": 5}),
    _lines(_METRICS)[:-10] + SEPARATOR + '{"step": 1, "dataset": null, "accuracy": NaN}\n',
    "\n\n" + _lines(_METRICS) + SEPARATOR,
]
RUN_TOKENS = [
    '{"step":', '"reward/mean":', '"dataset":', '"accuracy":', '"pass_at_k":', '"length/mean":', '"countdown"', "1", "2", "0.5",
    "NaN", "Infinity", "null", "true", "-3", "1e999", "1" * 400, "9" * 30,
    "[]", "{}", '"x"', ",", "}\n", "}", "\n", '{"step":1}\n', SEPARATOR, '"', "[", ":",
]  # fmt: skip

_ANSWER = {
    "dataset": "countdown", "template": "countdown", "problem": "p1", "sample": 0, "question": "3 7 4 target 17", "gold": "17 from 3 7 4",
    "completion": "\\boxed{3}", "tokens": 9, "cut_off": False, "correct": False, "strict": False, "reward": 0.0, "extracted": "3",
    "failure": "",
}  # fmt: skip
ANSWER_ROWS = [
    _lines(_ANSWER, {**_ANSWER, "problem": "p2", "correct": True, "extracted": None}),
    _lines(_ANSWER, {**_ANSWER, "sample": 1, "completion": "wait, \ud83d"}),
    _lines(_ANSWER)[:-9],
]
_PARTS = [f'"{key}":' for key in _ANSWER]
ANSWER_ROW_TOKENS = [
    *_PARTS, *(json.dumps(value) for value in _ANSWER.values()), "{", "}\n", ",", ",", "null", "true", "1e999", "[]", "{}", "-1",
    *(_lines({**_ANSWER, key: value}) for key in ("sample", "tokens", "extracted", "completion", "cut_off") for value in (None, "x", 1, True)),
    _lines(_ANSWER), "\n", '"',
]  # fmt: skip

VERIFY_ROWS = [
    _lines({"gold": "1/2", "completion": "0.5"}, {"gold": " ", "completion": 1}),
    '{"gold": "\\ud800", "completion": ""}\n[]\n',
]

_MODEL = {
    "model_type": "llama", "vocab_size": 67, "hidden_size": 48, "intermediate_size": 64, "num_hidden_layers": 2,
    "num_attention_heads": 4, "num_key_value_heads": 2, "rms_norm_eps": 1e-5, "rope_theta": 10000.0, "tie_word_embeddings": True,
    "max_position_embeddings": 128, "hidden_act": "silu",
}  # fmt: skip
_LLAMA3 = {
    "rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0, "original_max_position_embeddings": 64,
}  # fmt: skip
MODEL_CONFIGS = [
    json.dumps(_MODEL),
    json.dumps({**_MODEL, "rope_scaling": _LLAMA3}),
    json.dumps({**_MODEL, "model_type": "qwen3", "head_dim": 16, "rope_parameters": {"rope_theta": 5e5, "rope_type": "default"}}),
    json.dumps({**_MODEL, "model_type": "qwen2", "use_sliding_window": False, "attention_bias": None}),
]  # fmt: skip
MODEL_TOKENS = [
    json.dumps(_MODEL)[:-1] + ",", "{", "}", ",",
    *(f'"{key}":' for key in (*_MODEL, *_LLAMA3, "head_dim", "rope_scaling", "rope_parameters", "quantization_config", "mlp_bias")),
    "1", "0", "-1", "7", "1e40", "0.5", "null", "true", "NaN", "[]", "{}", '"x"', '"llama3"', '"default"', json.dumps(_LLAMA3), "1099511627776",
]  # fmt: skip
