"""What every test relies on: one thread, no hub, no run left behind, the same examples every time."""

import os

# Before anything imports torch or numpy, which read it once.
os.environ["OMP_NUM_THREADS"] = "1"
os.environ["HF_HUB_OFFLINE"] = "1"

import atexit
import signal
import sys
from collections.abc import Iterator
from pathlib import Path

import hypothesis
import pytest

# A shell starts what is in its background with Ctrl-C ignored, which the processes that tests interrupt would inherit.
signal.signal(signal.SIGINT, signal.default_int_handler)

# A shared machine makes single examples slow: time is watched by the suite as a whole, not by hypothesis.
hypothesis.settings.register_profile("hgscale", derandomize=True, deadline=None)
hypothesis.settings.load_profile("hgscale")


EXIT_STATUS = pytest.StashKey[int]()


@pytest.fixture(scope="session", autouse=True)
def runs_go_to_a_temporary_folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HGSCALE_HOME", str(tmp_path_factory.mktemp("runs")))
        patch.delenv("MLFLOW_TRACKING_URI", raising=False)
        yield


@pytest.fixture(scope="session")
def repo_root() -> Path:
    return Path(__file__).resolve().parents[1]


@pytest.fixture(scope="session")
def shared_data(repo_root: Path) -> Path:
    """The folder of real worlds: ``$HGSCALE_DATA``, or ``shared/data`` beside the repository."""
    folder = Path(os.environ.get("HGSCALE_DATA", repo_root.parent / "shared" / "data"))
    if not folder.is_dir():
        pytest.skip(f"no data at {folder}; set HGSCALE_DATA")
    return folder


def pytest_runtest_setup(item: pytest.Item) -> None:
    if item.get_closest_marker("gpu"):
        import torch

        if not torch.cuda.is_available():
            pytest.skip("no CUDA device")


@pytest.hookimpl(trylast=True)
def pytest_sessionfinish(session: pytest.Session, exitstatus: int) -> None:
    """Remember what the command is to say: see below."""
    session.config.stash[EXIT_STATUS] = int(exitstatus)


@pytest.hookimpl(trylast=True)
def pytest_unconfigure(config: pytest.Config) -> None:
    """End the process without taking the interpreter down beneath threads that are left in it: Ray leaves some.

    Seen once in many runs, with Ray 2.60: all tests had passed, the summary was out, and a thread in the background
    (which one, the kernel does not tell) ended the process with a segmentation fault. What is registered for the exit
    is done.
    """
    if EXIT_STATUS not in config.stash or "ray" not in sys.modules:
        return
    atexit._run_exitfuncs()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(config.stash[EXIT_STATUS])
