"""Which numbers of workers can share a training: a global batch has to be cut into equal parts. Knows no torch."""

from hgscale.errors import ConfigError
from hgscale.train.deepspeed_json import deepspeed_settings
from hgscale.train.protocol import Task

SIZES_TRIED = 64  # numbers of workers that a refusal looks through for such as would do


def sizes(task: Task, fewest: int, most: int) -> list[int]:
    """The numbers of workers in a range that can share the global batch, ascending.

    Raises:
        ConfigError: if there is none, naming some that could.
    """
    found = [size for size in range(fewest, most + 1) if _is_shared_by(task, size)]
    if found:
        return found
    others = [str(size) for size in range(1, max(most, SIZES_TRIED) + 1) if _is_shared_by(task, size)]
    try:
        check_share(task, fewest)
    except ConfigError as error:
        advice = f"; it can be shared by {', '.join(others)} workers" if others else ""
        raise ConfigError(f"{error}{advice}") from None
    raise AssertionError("a size that was refused has a reason")


def _is_shared_by(task: Task, world_size: int) -> bool:
    try:
        check_share(task, world_size)
    except ConfigError:
        return False
    return True


def check_share(task: Task, world_size: int) -> None:
    """Refuse a number of workers that cannot share the batch, or a DeepSpeed JSON that contradicts our fields."""
    num_micro = task.train.num_micro(world_size)
    deepspeed_settings(
        task.engine,
        micro_batch=task.train.global_batch // (num_micro * world_size),
        num_micro=num_micro,
        world_size=world_size,
        num_parameters=1,
        on_cpu=True,
    )
