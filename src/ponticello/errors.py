"""Every error Ponticello raises on purpose.

    PonticelloError
    |-- ConfigError       a setting is unknown or out of range
    |-- LibraryError      the library folder is missing, incomplete or busy
    |-- DataError         a table, row or field is not what it must be
    |   `-- AudioError    one audio file cannot be turned into sound
    |-- ShapeError        an array has the wrong shape
    |-- CheckpointError   a model folder or index is missing, damaged or of another kind
    `-- Stopped           training was told to stop (SIGTERM), and did; a checkpoint is there

Each message says what was found, what was wanted and what to do.
"""


class PonticelloError(Exception):
    """Any error a user can act on; the command line prints its message as one line."""


class ConfigError(PonticelloError):
    """A setting is unknown or out of range."""


class LibraryError(PonticelloError):
    """The library folder is missing, incomplete or in use by another process."""


class DataError(PonticelloError):
    """A table, row or field is not what it must be."""


class AudioError(DataError):
    """One audio file cannot be turned into sound."""


class ShapeError(PonticelloError):
    """An array has the wrong shape."""


class CheckpointError(PonticelloError):
    """A model folder or an index is missing, damaged or of another kind."""


class Stopped(PonticelloError):
    """Training was told to stop (SIGTERM), and did; started again, it goes on from its checkpoint."""
