"""Running a command in a test: what it printed, or the error it ended with."""

from typer.testing import CliRunner

from ponticello.cli.main import app
from ponticello.errors import PonticelloError


def out(*arguments: object) -> str:
    """What a command that succeeds prints on stdout."""
    result = CliRunner().invoke(app, [str(argument) for argument in arguments])
    assert result.exit_code == 0, result.output
    return result.stdout


def error(kind: type[PonticelloError], *arguments: object) -> str:
    """The message of a command that must fail with this kind of error; nothing is on stdout."""
    result = CliRunner().invoke(app, [str(argument) for argument in arguments])
    assert (result.exit_code, result.stdout) == (1, "")
    assert isinstance(result.exception, kind)
    return str(result.exception)
