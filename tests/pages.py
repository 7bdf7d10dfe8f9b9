"""The pages that explain the repository: one in each folder that a reader opens."""

import re
from pathlib import Path

FOLDERS = (".", "hgscale", "configs", "configs/study", "configs/finetune", "launch", "tests")
"""Folders that explain themselves in their own README.md."""


def pages(root: Path) -> list[Path]:
    """Every page, whether it is there or not."""
    return [*(root / folder / "README.md" for folder in FOLDERS), root / ".github/CONTRIBUTING.md"]


def commands(root: Path) -> list[str]:
    """Every line of the pages' shell blocks, without its comment, once."""
    blocks = [block for page in pages(root) for block in re.findall(r"```bash\n(.*?)```", page.read_text(), re.DOTALL)]
    lines = [line.split("  #")[0].strip() for block in blocks for line in block.splitlines()]
    return list(dict.fromkeys(line for line in lines if line and not line.startswith("#")))
