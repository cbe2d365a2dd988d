r"""Names of variables that do not matter, and answers that are several in one.

`alike` renames the argument of a defined function (f(m)=2m is f(n)=2n); `spread` writes the values of \pm inside a
fraction, and groups of assignments, as the parser's lists.
"""

import re

_DEFINED = re.compile(r"(?<![a-zA-Z\\])([a-zA-Z])\s?\(\s?([a-zA-Z])\s?\)\s?=")
_AS_Y = re.compile(r"^\s?y\s?=")
_ASSIGNED = re.compile(r"\s*([a-zA-Z](?:_\w)?)\s?=\s?([^=]+)")
_LABELLED = re.compile(r"(\\?[a-zA-Z]{1,3}(?:_(?:\w|\{\w{1,5}\}))?(?:\(\w{1,5}\))?)\s?=([^=]+)")
_WORD = re.compile(r"\\text\s?\{\s?(?:and|or)\s?\}|(?<![a-zA-Z\\])(?:and|or)(?![a-zA-Z])|;")
_COMMANDS = re.compile(r"(\\[a-zA-Z]+)")


def alike(gold: str, answer: str) -> str:
    """The answer with its functions' arguments, and the functions' case, named as the gold answer's; as it is where
    that cannot be done without a clash."""
    golds, answers = _DEFINED.findall(gold), _DEFINED.findall(answer)
    if len(golds) == 1 and not answers and "y" not in gold:
        return _AS_Y.sub(lambda _: f"{golds[0][0]}({golds[0][1]})=", answer) if answer.count("y") == 1 else answer
    if len(answers) == 1 and not golds and "y" not in answer and gold.count("y") == 1 and _AS_Y.match(gold):
        return re.sub(rf"^\s?{_DEFINED.pattern}", "y=", answer)
    if not golds or not answers:
        return answer
    (gold_f, gold_x), (answer_f, answer_x) = golds[0], answers[0]
    one = len({x for _, x in golds}) == len({x for _, x in answers}) == 1
    if not one or gold_f.lower() != answer_f.lower():
        return answer
    parts = _COMMANDS.split(answer)
    letters = "".join(part for part in parts if not part.startswith("\\"))
    if gold_x != answer_x and (gold_x in letters or answer_x == answer_f):
        return answer
    names = {answer_x: gold_x, answer_f: gold_f}
    return "".join(
        part if part.startswith("\\") else "".join(names.get(letter, letter) for letter in part) for part in parts
    )


def pairs(gold: str, answer: str) -> list[list[tuple[str, str]]] | None:
    """Which values must be equal, where the gold answer names several (x=2, y=3): by their names, or for a list or
    tuple in order, of the names as written or sorted. Each list is a way to be right. None if the gold answer names
    none."""
    named, given = _named(gold), _named(answer)
    if named is None:
        return None
    if given is not None:
        return [[(named[name], given[name]) for name in named]] if named.keys() == given.keys() else None
    bare = answer.strip()
    inner = bare[1:-1] if bare[:1] == "(" and bare[-1:] == ")" else bare
    values = items(inner)
    if len(values) != len(named) or any("=" in value for value in values):
        return None
    return [
        list(zip(order, values, strict=True)) for order in (named.values(), [named[name] for name in sorted(named)])
    ]


def items(text: str) -> list[str]:
    """The parts of a list, at commas outside of brackets, semicolons and "and"."""
    parts, depth, start = [], 0, 0
    text = _WORD.sub(",", text)
    for place, character in enumerate(text):
        depth += (character in "([{") - (character in ")]}")
        if character == "," and depth == 0:
            parts.append(text[start:place])
            start = place + 1
    return [part.strip() for part in (*parts, text[start:]) if part.strip()]


def _named(text: str) -> dict[str, str] | None:
    """x=2, y=3 as {"x": "2", "y": "3"}; None where names are missing or stand twice."""
    if text.count("=") < 2 or ("(" not in text and "," not in text and _WORD.search(text) is None):
        return None
    found = [_LABELLED.fullmatch(item) for item in items(text)]
    names = [re.sub(r"[\s{}]", "", match[1]) for match in found if match]
    if len(names) < 2 or len(names) < len(found) or len(set(names)) < len(names):
        return None
    return dict(zip(names, [match[2].strip() for match in found if match], strict=True))


def spread(text: str) -> str:
    r"""\frac{-1\pm\sqrt5}{2} as two values, and p=5, q=2 or p=7, q=2 as two tuples."""
    return _signs(_tuples(text))


def _signs(text: str) -> str:
    if r"\pm" not in text or text.count(r"\pm") + text.count(r"\mp") > 4 or re.search(r"\\\{|[(\[]", text):
        return text
    found = []
    for item in text.split(","):
        signs = len(re.findall(r"\\[pm]m(?![a-zA-Z])", item))
        if signs == 0:
            found.append(item)
        elif signs == 1 and r"\pm" in item:
            found += [item.replace(r"\pm", "+"), item.replace(r"\pm", "-")]
        else:
            return text
    return ",".join(item.replace("=+", "=").replace("= +", "=") for item in found)


def _tuples(text: str) -> str:
    groups = [group for group in _WORD.split(text) if group.strip(" ,")]
    if len(groups) < 2:
        return text
    found = []
    for group in groups:
        pairs = [_ASSIGNED.fullmatch(part) for part in group.strip(" ,").split(",")]
        if len(pairs) < 2 or not all(pairs):
            return text
        found.append([(pair[1], pair[2].strip()) for pair in pairs if pair])
    names = [[name for name, _ in group] for group in found]
    if any(other != names[0] for other in names) or len(set(names[0])) < len(names[0]):
        return text
    return ",".join("(" + ",".join(value for _, value in group) + ")" for group in found)
