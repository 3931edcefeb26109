"""The few kinds of failure that a user meets, each with one line that says what, where and the remedy.

The command line turns `InputError` into exit code 2 and `RunError` into exit code 1; anything else is a bug.
Every class takes a single message, so that instances survive pickling to another process.
"""


class PtychoError(Exception):
    """Base of every error this package raises on purpose."""


class InputError(PtychoError, ValueError):
    """Bad usage or bad input: a flag, a file, an array. Nothing long has started yet."""


class ConfigError(InputError):
    """A configuration field, key or combination that cannot be used."""


class DataError(InputError):
    """A scan, image or product whose contents cannot be used."""


class BundleError(InputError):
    """A model bundle that is missing, truncated, foreign, tampered with or too new."""


class MissingFileError(InputError, FileNotFoundError):
    """A file or folder that is not there."""

    def __str__(self) -> str:
        return str(self.args[0]) if self.args else ""


class MissingBundleError(BundleError, MissingFileError):
    """No model bundle where one was looked for."""


class MissingDependencyError(PtychoError, RuntimeError, ImportError):
    """An optional package that the request needs; the message is the command that installs it."""

    def __str__(self) -> str:
        return str(self.args[0]) if self.args else ""


class RunError(PtychoError, RuntimeError):
    """A run that started well and failed: divergence, a collapsed network, a full disk."""
