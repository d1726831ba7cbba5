"""The errors that Ponticello raises on purpose, each with a code.

    PonticelloError       error
    |-- ConfigError       invalid_setting     a setting is unknown or out of range
    |-- LibraryError      library_unusable    the library lacks something, or is locked
    |     no_library, library_exists, library_locked, no_tracks, no_log, no_pairs, no_splits,
    |     no_index, no_preference, not_prepared
    |-- DataError         invalid_data        a table, row, field or argument is invalid
    |   | unknown_track, unknown_user, no_likes, log_changed
    |   `-- AudioError    unsupported_audio   an audio file cannot be decoded
    |-- ShapeError        wrong_shape         an array has the wrong shape
    |-- CheckpointError   model_unusable      a model is missing, damaged or of another kind
    |     no_model, model_changed, index_damaged
    `-- Stopped           stopped             training ended on SIGTERM, after a checkpoint

The code beside a class is its default; the codes below it are special cases that programs may
tell apart. The command line exits with 1 (`Stopped`: 143), the HTTP service maps codes to statuses.
"""

import shlex
from pathlib import Path

EMPTY_TEXT = "the search text is empty; say what the music should be like"


class PonticelloError(Exception):
    """An error that a user can act on; `str` gives it as one line, with the command that mends it.

    code: identifies the kind of error for programs; a class has a default.
    remedy: a shell command that mends it, with `-L` where `library` is given; "" if there is none.
    message: as `str`, but the command lacks the library's path. For clients of another machine.
    """

    code = "error"

    def __init__(
        self, message: str = "", *, code: str = "", remedy: str = "", library: Path | None = None
    ) -> None:
        self.message = f"{message}; run: {remedy}" if remedy else message
        if code:
            self.code = code
        if remedy and library is not None:
            remedy = f"{remedy} -L {shlex.quote(str(library))}"
        self.remedy = remedy
        super().__init__(f"{message}; run: {remedy}" if remedy else message)


class ConfigError(PonticelloError):
    """A setting is unknown or out of range."""

    code = "invalid_setting"


class LibraryError(PonticelloError):
    """The library folder is missing, incomplete or in use by another process."""

    code = "library_unusable"


class DataError(PonticelloError):
    """A table, row, field or argument is not what it must be."""

    code = "invalid_data"


class AudioError(DataError):
    """An audio file cannot be decoded."""

    code = "unsupported_audio"


class ShapeError(PonticelloError):
    """An array has the wrong shape."""

    code = "wrong_shape"


class CheckpointError(PonticelloError):
    """A model folder or an index is missing, damaged or of another kind."""

    code = "model_unusable"


class Stopped(PonticelloError):
    """Training ended on SIGTERM after writing a checkpoint; run again, it resumes from there."""

    code = "stopped"
