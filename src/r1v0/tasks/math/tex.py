r"""The arguments of TeX commands: \frac\pi4, \sqrt2 and ^(...) with braces, as TeX reads them and the parser does
not."""

import re

_ARGUMENT = re.compile(r"[{(]|\\[a-zA-Z]+|\\?.", re.DOTALL)
_COMMAND = re.compile(r"\\(frac|binom|sqrt)(?![a-zA-Z])\s*(?:\[[^\[\]]*\]\s*)?|(\^)\s*(?=\()")


def braced(text: str) -> str:
    """Put braces round the arguments of \\frac and \\binom (two), \\sqrt (one) and ^(...), from the right, so that
    inner ones are done."""
    for match in reversed(list(_COMMAND.finditer(text))):
        position = match.end()
        two = match[1] in ("frac", "binom")
        for _ in range(2 if two else 1):
            end = _argument_end(text, position)
            argument = text[position:end].strip()
            if not argument:
                break
            if not two and argument[0] == "(" and argument[-1] == ")":
                argument = "{" + argument[1:-1] + "}"
            if argument[0] != "{":
                argument = "{" + argument + "}"
            text = text[:position] + argument + text[end:]
            position += len(argument)
    return text


def _argument_end(text: str, position: int) -> int:
    """Where the TeX argument that starts at `position` (after spaces) ends: a group, a command with its own braced
    arguments, or one character. A round bracket counts as a group, for \\sqrt(3)."""
    while position < len(text) and text[position] == " ":
        position += 1
    match = _ARGUMENT.match(text, position)
    if match is None or match[0] in ("}", ")", "^", "_"):
        return position
    if match[0] in ("{", "("):
        return _group_end(text, position, match[0], "}" if match[0] == "{" else ")")
    position = match.end()
    if match[0] in (r"\frac", r"\binom", r"\sqrt"):
        while text[position : position + 1] == "{":
            position = _group_end(text, position, "{", "}")
    return position


def _group_end(text: str, position: int, opening: str, closing: str) -> int:
    depth = 0
    for index in range(position, len(text)):
        depth += (text[index] == opening) - (text[index] == closing)
        if depth == 0:
            return index + 1
    return len(text)
