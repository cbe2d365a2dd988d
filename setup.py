"""The README as a package index shows it: there a relative link leads nowhere. All else stands in pyproject.toml."""

import re
import tomllib
from pathlib import Path

from setuptools import setup

HERE = Path(__file__).parent
RAW = "https://raw.githubusercontent.com"
"""where GitHub has a file itself, and not a page about it: for pictures"""


def absolute(readme: str, address: str, version: str) -> str:
    """Markdown whose relative links and pictures lead to the repository at `address`, as it is at the tag of `version`;
    what stands between fences is left alone."""

    def whole(found: re.Match[str]) -> str:
        if found["fence"]:
            return found[0]
        home = address.replace("https://github.com", RAW) if found["picture"] else f"{address}/blob"
        return f"{found['picture']}[{found['text']}]({home}/v{version}/{found['target']})"

    fence = r"(?P<fence>^```.*?^```)"
    link = r"(?P<picture>!?)\[(?P<text>[^\[\]]*)\]\((?!https?:|#)(?P<target>[^)\s]+)\)"
    return re.sub(f"{fence}|{link}", whole, readme, flags=re.DOTALL | re.MULTILINE)


def main() -> None:
    """Build, with the README of this version."""
    project = tomllib.loads((HERE / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    package = (HERE / "src" / "r1v0" / "__init__.py").read_text(encoding="utf-8")
    version = re.findall(r'^__version__ = "(.+)"$', package, re.MULTILINE)[0]
    readme = (HERE / "README.md").read_text(encoding="utf-8")
    setup(
        long_description=absolute(readme, project["urls"]["Source"], version),
        long_description_content_type="text/markdown",
    )


if __name__ == "__main__":
    main()
