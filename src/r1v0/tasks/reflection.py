"""Self-reflection: whether a text looks back on itself, told by words.

Decides: one table for every model and task. A phrase counts where it stands as whole words, in any case, with any white
space between its words; "-" also matches a space or nothing (re-check, recheck, re check), and a final "*" any ending
(re-check*, rechecking). The scan is linear in the text.

Deviates from its sources by what it leaves out. Yeo et al. and the original r1-v0 also count "however", "alternatively"
and "mistake", which good first attempts use too; and "wait" counts only as an interjection, because people in word
problems wait. Words cannot tell a true second look from a phrase: read the rate as a trend, not as a quantity.
"""

import re

REFLECTION_WORDS: dict[str, tuple[str, ...]] = {
    # Liu et al., Understanding R1-Zero-Like Training (arXiv 2503.20783): their pool of keywords
    "look again": (
        "re-check*",
        "re-think*",
        "re-assess*",
        "re-evaluat*",
        "re-examin*",
        "re-consider*",
        "re-analy*",
        "double-check*",
        "check again",
        "think again",
        "verify again",
        "go over the steps",
    ),
    # Yeo et al., Demystifying Long Chain-of-Thought (2502.03373), whose list SimpleRL-Zoo (2503.18892) extends
    "turn back": ("wait,", "wait!", "wait...", "wait…", "wait no", "retry*", "try again"),
    # spoken forms of the same, as in R1-Zero's "aha moment" (2501.12948, table 3)
    "aloud": (
        "let me check",
        "let me verify",
        "hmm*",
        "hold on",
        "on second thought*",
        "aha moment",
        "i made a mistake",
        "i made an error",
        "that's not right",
        "that is not right",
        "that can't be right",
    ),
    # the embedded countdown model, which says "yes wait check 3*7=21"
    "countdown": ("wait check",),
}


def _expression(phrase: str) -> str:
    """The phrase as a regular expression. Gaps are bounded, so a run of white space cannot be scanned again and
    again."""
    body, star = (phrase[:-1], r"\w*") if phrase.endswith("*") else (phrase, r"(?!\w)" if phrase[-1].isalnum() else "")
    escaped = re.escape(body).replace(r"\ ", r"\s{1,4}").replace(r"\-", "[- ]?").replace("'", "['’]")
    return escaped + star


_PHRASES = [phrase for phrases in REFLECTION_WORDS.values() for phrase in phrases]
_PATTERN = re.compile(rf"(?<!\w)(?:{'|'.join(map(_expression, _PHRASES))})", re.IGNORECASE)


def reflects(text: str) -> bool:
    """Whether any phrase of REFLECTION_WORDS is in the text."""
    return _PATTERN.search(text) is not None
