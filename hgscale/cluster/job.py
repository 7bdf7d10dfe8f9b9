"""A verb with its config, as it is sent to a cluster or checked against one."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

from hgscale import config as configs

WHERE = ("cluster", "feed", "cell", "tracking", "address", "num_workers", "memory_gib", "retry_failed")
"""What may differ between two attempts at one job."""


@runtime_checkable
class Checked(Protocol):
    """A config that can be refused before anything starts."""

    def check_run(self) -> None:
        """Refuse what the verb would refuse. Raises ConfigError, DataError."""


@dataclass(frozen=True)
class Job:
    """A verb to be run.

    Attributes:
        verb: as in ``hgscale VERB``.
        config: its resolved config.
    """

    verb: str
    config: Any

    def check(self) -> None:
        """Refuse a config that the verb would refuse; where the files that it reads can be seen.

        Raises:
            ConfigError, DataError: as the verb.
        """
        if isinstance(self.config, Checked):
            self.config.check_run()

    @property
    def name(self) -> str:
        """The same for each attempt at the same results: a submission's id without its last part, the attempt.

        A world from a file counts by its path: whoever submits may not see the file.
        """
        tree = configs.to_dict(self.config)
        fingerprint = configs.fingerprint({key: value for key, value in tree.items() if key not in WHERE})
        return f"hgscale-{self.verb}-{fingerprint}"

    def fields(self) -> dict[str, Any]:
        """All fields by dotted name."""
        return configs.flatten(configs.to_dict(self.config))

    def places(self, *kinds: str) -> Iterator[tuple[str, str]]:
        """(field, text) of what names a place, of some kinds (see ``config.READS``); the variants and axes of a study
        name fields of its cells, several perhaps."""
        marks = dict(configs.path_fields(type(self.config)))
        if (task := getattr(self.config, "task_class", None)) is not None:
            marks |= configs.path_fields(task)
        marked = [field for field, kind in marks.items() if kind in kinds]
        for name, value in self.fields().items():
            parts = re.split(r"[,\s]+", name)
            if any(part == field or part.endswith(f".{field}") for part in parts for field in marked):
                yield from ((name, text) for text in texts(value))


def texts(value: Any) -> Iterator[str]:
    """The texts in a field's value."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, list):
        for item in value:
            yield from texts(item)
