"""What a caller can repair. Every message says where, what was got, what was wanted, and the repair."""


class HgscaleError(Exception):
    """Base of the errors that are shown as one line, without a traceback."""

    exit_code = 1


class ConfigError(HgscaleError):
    """The request is wrong: a field, a combination of fields, or a place that cannot be used."""

    exit_code = 2


class DataError(HgscaleError):
    """A file or a world is wrong: unreadable, inconsistent, or not what its format promises."""

    exit_code = 2


class RunError(HgscaleError):
    """The request was right and the run failed."""

    exit_code = 1
