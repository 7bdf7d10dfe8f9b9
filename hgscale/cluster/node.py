"""What one machine says about itself when it is asked whether a run would work there. Leaves nothing behind.

Called in this process for this machine, and in a Ray actor for each node of a cluster.
"""

import hashlib
import json
import os
import resource
import shutil
import subprocess
import sys
import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import psutil

import hgscale
from hgscale.errors import HgscaleError
from hgscale.tracking import TrackingConfig, try_store
from hgscale.train.checkpoint import versions

CREDENTIALS = ("MLFLOW_TRACKING_USERNAME", "MLFLOW_TRACKING_PASSWORD", "MLFLOW_TRACKING_TOKEN")
SEEN_WITHIN_S = 3.0
"""How long a file may take to be seen by another node: network file systems remember for a while what was not there."""

_ASK_GPUS = """
import json, torch
gpus = range(torch.cuda.device_count())
seen = [torch.cuda.get_device_properties(i) for i in gpus]
print(json.dumps({
    "names": [one.name for one in seen],
    "memory": [one.total_memory for one in seen],
    "capability": [[one.major, one.minor] for one in seen],
    "nccl": torch.distributed.is_nccl_available(),
    "works": [float((torch.ones(8, 8, device=i) @ torch.ones(8, 8, device=i)).sum()) == 512 for i in gpus],
}))
"""


@dataclass(frozen=True)
class Question:
    """What a node is asked.

    Attributes:
        files: files and folders that the training reads.
        tracking: the store to reach.
        use_gpu: look at GPUs as well, which loads torch.
    """

    files: tuple[str, ...]
    tracking: TrackingConfig
    use_gpu: bool


@dataclass(frozen=True)
class Gpus:
    """What torch sees, or why it sees nothing.

    Attributes:
        names, memory, capability, works: of each GPU; bytes; (major, minor); whether it multiplies.
        nccl: whether torch has it.
        complaint: None if torch could be asked.
    """

    names: tuple[str, ...] = ()
    memory: tuple[int, ...] = ()
    capability: tuple[tuple[int, int], ...] = ()
    works: tuple[bool, ...] = ()
    nccl: bool = False
    complaint: str | None = None


@dataclass(frozen=True)
class Facts:
    """A machine, as seen by one process on it.

    Attributes:
        versions: of python, of libraries, and of hgscale's own code.
        files: digest of each file or folder that is read, or an error's text.
        num_cpus: that this process may use.
        omp_threads: OMP_NUM_THREADS as it is set.
        memory_bytes: free for new processes.
        shm_bytes: free in /dev/shm, None where there is none.
        open_files: that a process may have open.
        compilers: C++ compiler and ninja, those that are there.
        locks: extension locks whose owner is gone.
        credentials: names of MLflow's variables that are set; never their values.
        token_auth: whether Ray asks for a token.
        tracking: why the store cannot be used, None if it can.
        gpus: None where not asked.
    """

    versions: dict[str, str]
    files: dict[str, str]
    num_cpus: int
    omp_threads: str | None
    memory_bytes: int
    shm_bytes: int | None
    open_files: int
    compilers: tuple[str, ...]
    locks: tuple[str, ...]
    credentials: tuple[str, ...]
    token_auth: bool
    tracking: str | None
    gpus: Gpus | None


class Node:
    """The questions, each a method, so that an actor of this class can be asked them."""

    def facts(self, question: Question) -> Facts:
        shm = Path("/dev/shm")
        return Facts(
            versions=versions() | {"hgscale": f"{hgscale.__version__} ({_code_digest()})"},
            files={path: _file_digest(Path(path)) for path in question.files},
            num_cpus=len(os.sched_getaffinity(0)),
            omp_threads=os.environ.get("OMP_NUM_THREADS"),
            memory_bytes=_free_memory(),
            shm_bytes=shutil.disk_usage(shm).free if shm.is_dir() else None,
            open_files=resource.getrlimit(resource.RLIMIT_NOFILE)[0],
            compilers=tuple(name for name in ("c++", "ninja") if shutil.which(name)),
            locks=tuple(str(path) for path in stale_locks(_extension_folders())),
            credentials=tuple(name for name in CREDENTIALS if os.environ.get(name)),
            token_auth=_asks_for_token(),
            tracking=_complaint_of_store(question.tracking),
            gpus=_gpus() if question.use_gpu else None,
        )

    def clock(self) -> float:
        """Seconds since 1970, by this machine."""
        return time.time()

    def write(self, folder: str, name: str, text: str) -> str | None:
        """Write a file into a folder that another node has made; the complaint if that fails."""
        place = Path(folder)
        try:
            if not _seen(place):
                return f"{place.parent} is not the same directory as on the driver"
            (place / name).write_text(text)
        except OSError as error:
            return f"cannot write in {place.parent} ({error.strerror})"
        return None

    def read(self, folder: str, wanted: dict[str, str]) -> str | None:
        """Read what all nodes have written, by name; the complaint if it is not that."""
        place = Path(folder)
        for name, text in wanted.items():
            try:
                if not _seen(place / name):
                    return f"does not see what {name} wrote in {place.parent}"
                if (place / name).read_text() != text:
                    return f"reads something else than what {name} wrote in {place.parent}"
            except OSError as error:
                return f"cannot read in {place.parent} ({error.strerror})"
        return None


def stale_locks(folders: Iterable[Path]) -> list[Path]:
    """Locks of torch's extension builds that no process holds open.

    torch's FileBaton keeps its ``lock`` open while it builds; one that a killed build left makes every later one wait
    for ever. Processes of other users, which cannot be looked into, are taken to hold nothing.
    """
    locks = [lock.resolve() for folder in folders if folder.is_dir() for lock in folder.glob("**/lock")]
    return [lock for lock in locks if not _is_held(lock)] if locks else []


def _is_held(path: Path) -> bool:
    for process in Path("/proc").glob("[0-9]*"):
        try:
            if any(Path(os.readlink(fd)) == path for fd in (process / "fd").iterdir()):
                return True
        except OSError:  # it has ended, or is another user's
            continue
    return False


def _extension_folders() -> list[Path]:
    """Where torch builds extensions; without loading torch, which would say the same."""
    named = os.environ.get("TORCH_EXTENSIONS_DIR")
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return [Path(named)] if named else [cache / "torch_extensions"]


def _seen(path: Path) -> bool:
    """Whether a path is there, or comes to be seen soon."""
    deadline = time.monotonic() + SEEN_WITHIN_S
    while not path.exists():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.1)
    return True


def _code_digest() -> str:
    """Of hgscale's own files: a version number says little while code changes."""
    root = Path(hgscale.__file__).parent
    digest = hashlib.sha256()
    for path in sorted(root.rglob("*.py")):
        digest.update(path.relative_to(root).as_posix().encode() + b"\0" + path.read_bytes())
    return digest.hexdigest()[:8]


def _file_digest(path: Path) -> str:
    """Of a file; of a directory, its manifest if it has one, else the names and sizes of its files."""
    try:
        if path.is_file():
            with path.open("rb") as file:
                return hashlib.file_digest(file, "sha256").hexdigest()[:16]
        if (path / "manifest.json").is_file():
            return hashlib.sha256((path / "manifest.json").read_bytes()).hexdigest()[:16]
        names = sorted((one.name, one.stat().st_size) for one in path.iterdir() if one.is_file())
        return hashlib.sha256(json.dumps(names).encode()).hexdigest()[:16]
    except OSError as error:
        return f"cannot be read ({error.strerror})"


def _free_memory() -> int:
    """Bytes, by the machine and by the limit of this process's container."""
    free = int(psutil.virtual_memory().available)
    try:
        limit = Path("/sys/fs/cgroup/memory.max").read_text().strip()
        used = int(Path("/sys/fs/cgroup/memory.current").read_text())
        cached = int(
            next(
                line.split()[1]
                for line in Path("/sys/fs/cgroup/memory.stat").read_text().splitlines()
                if line.startswith("inactive_file ")
            )
        )
    except (OSError, StopIteration):
        return free
    return free if limit == "max" else min(free, int(limit) - used + cached)


def _asks_for_token() -> bool:
    """Whether this process speaks to Ray with a token."""
    try:
        # A private name; where it is gone, the variable that sets it says the same.
        from ray._private.authentication.authentication_utils import is_token_auth_enabled
    except ImportError:
        return os.environ.get("RAY_AUTH_MODE", "").lower() == "token"
    return bool(is_token_auth_enabled())


def _complaint_of_store(config: TrackingConfig) -> str | None:
    try:
        try_store(config)
    except HgscaleError as error:
        return str(error)
    return None


def _gpus() -> Gpus:
    """Asked in a process of its own: Ray hides GPUs from who has reserved none, and CUDA is not left open here."""
    environment = dict(os.environ)
    if not environment.get("CUDA_VISIBLE_DEVICES"):
        environment.pop("CUDA_VISIBLE_DEVICES", None)
    try:
        answer = subprocess.run(
            [sys.executable, "-c", _ASK_GPUS], env=environment, capture_output=True, text=True, timeout=60
        )
        seen = json.loads(answer.stdout)
    except (OSError, ValueError, subprocess.TimeoutExpired) as error:
        last = answer.stderr.strip().splitlines()[-1:] if isinstance(error, ValueError) else [str(error)]
        return Gpus(complaint=(last or ["torch says nothing"])[0])
    return Gpus(
        tuple(seen["names"]),
        tuple(seen["memory"]),
        tuple((major, minor) for major, minor in seen["capability"]),
        tuple(seen["works"]),
        seen["nccl"],
    )
