"""Going on with another number of workers: what ZeRO shared out is converted once, before any of them starts."""

from functools import partial
from pathlib import Path

from hgscale.train import checkpoint, engine


def prepare(root: Path, fingerprint: str, world_size: int, device: str = "cpu") -> bool:
    """See that so many workers can load the newest valid checkpoint of a run. For one process, before any rank starts.

    Nothing is done where there is none, where as many workers wrote it, where each saved everything (torch, ZeRO 0),
    or where it has its universal form already. A conversion that is interrupted leaves nothing that counts.

    Args:
        root: folder of the run's checkpoints.
        fingerprint: of the run that wants to go on.
        world_size: number of workers that will load it.
        device: what this process trains on, if it does: DeepSpeed asks once in a process.

    Returns:
        whether the checkpoint was converted now.

    Raises:
        ConfigError: the checkpoint belongs to a run of another fingerprint, or others can write to it.
        DataError: it cannot be converted.
        RunError: the disk refused.
    """
    found, _ = checkpoint.newest(root, fingerprint)
    if found is None or found.world_size == world_size or not engine.is_shared_out(found.path):
        return False
    if checkpoint.universal_form(found) is not None:
        return False
    checkpoint.write_universal_form(found, partial(engine.convert, device=device))
    return True
