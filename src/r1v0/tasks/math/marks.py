"""Markdown's marks, which stand around answers and are no part of them."""

import re

_BOLD = re.compile(r"(?<![\w)}\]*])\*\*(?=[^\s*])([^*]+?)(?<=[^\s*])\*\*(?![\w({\\\[*])")
_AROUND = ("**", "__", "`", "*", "_")


def unmarked(text: str) -> str:
    """Without bold, italics and code: "**73**" -> "73", "`x`" -> "x". Powers (2**3, x**2**y) stay."""
    if not set("*_`") & set(text):
        return text
    for _ in range(3):
        text = _BOLD.sub(r"\1", text).strip()
        for mark in _AROUND:
            inner = text[len(mark) : -len(mark)]
            if inner.strip() and text == f"{mark}{inner}{mark}" and mark[0] not in inner.strip(mark[0]):
                text = inner.strip()
    return text
