"""The door: ``hgscale VERB --config FILE [--section.key value ...]``: parse, call, print."""

import os
import sys
from collections.abc import Sequence
from importlib import import_module
from typing import Any

from hgscale import verbs
from hgscale.errors import ConfigError, HgscaleError
from hgscale.verbs import Verb

WIDTH = max(len(row.name) for row in verbs.VERBS)
USAGE = f"""usage: hgscale VERB --config FILE [--section.key value ...]

{chr(10).join(f"  {row.name:{WIDTH}}  {row.help}" for row in verbs.VERBS)}

hgscale VERB --help           every field, explained
hgscale VERB --print_config   the config that would run, as YAML

exit status: 0 done, 1 the run failed, 2 the request was wrong
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Run one verb; errors a caller can repair are one line on standard error."""
    args = list(sys.argv[1:] if argv is None else argv)
    if not args or args[0] in ("-h", "--help"):
        print(USAGE, end="")
        return 0 if args else 2
    if args[0] == "--version":
        from hgscale import __version__

        print(__version__)
        return 0
    try:
        return _run(verbs.verb(args[0]), args[1:])
    except HgscaleError as error:
        print(f"hgscale: {error}", file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        print("hgscale: interrupted; the same command goes on where this one was", file=sys.stderr)
        return 130
    except BrokenPipeError:
        # The reader of our output has gone (as `hgscale inspect | head` does): nothing is left to say.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return 0


def _run(row: Verb, args: list[str]) -> int:
    """Parse, call, print."""
    if row.of_another:
        return _run_for_another(row, args)
    result = _function(row)(_parsed(row, args, row.name))
    print(result.text())
    return 0


def _run_for_another(row: Verb, args: Sequence[str]) -> int:
    """A verb that takes another: ``hgscale submit VERB ...``. Options that it knows are its own, the rest the other's.

    Raises:
        ConfigError: if there is no other verb, or none that it takes.
    """
    from hgscale import config
    from hgscale.cluster.job import Job

    own, rest = config.split_options(_schema(row), args)
    name = rest.pop(0) if rest and not rest[0].startswith("--") else row.default_other
    taken = [other.name for other in verbs.VERBS if getattr(other, row.of_another)]
    if name is None and {"--help", "-h"} & set(rest):
        config.parse(_schema(row), ["--help"], f"{row.name} VERB")
    if name not in taken:
        said = "no verb is given" if name is None else f"{name} is no verb that it takes"
        example = f"hgscale {row.name} {taken[0]} --config F"
        raise ConfigError(f"{row.name}: {said}; use one of {', '.join(taken)}, as {example}")
    what = _parsed(verbs.verb(name), rest, f"{row.name} {name}")
    result = _function(row)(config.parse(_schema(row), own, row.name), Job(name, what))
    if text := result.text():
        print(text)
    if result.note:
        print(f"hgscale: {result.note}", file=sys.stderr)
    return int(result.exit_code)


def _parsed(row: Verb, args: Sequence[str], shown: str) -> Any:
    """The config of a verb; a file written for ``pretrain`` may serve it, too, and only for a file is that loaded."""
    from hgscale import config

    has_file = any(arg.startswith("--config") for arg in args)
    also_known = _schema(verbs.verb("pretrain")) if row.reads_pretrain and has_file else None
    return config.parse(_schema(row), args, shown, also_known=also_known)


def _schema(row: Verb) -> type:
    schema: type = getattr(import_module(row.module), row.config)
    return schema


def _function(row: Verb) -> Any:
    return getattr(import_module(row.module), row.function)


if __name__ == "__main__":
    sys.exit(main())
