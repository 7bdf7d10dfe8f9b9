"""MNRE as published, where it is at hand."""

from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def mnre(shared_data: Path) -> str:
    """The folder of the real text files."""
    folder = shared_data / "mnre-text"
    if not (folder / "mnre_train.txt").is_file():
        pytest.skip(f"no MNRE at {folder}; set HGSCALE_DATA")
    return str(folder)
