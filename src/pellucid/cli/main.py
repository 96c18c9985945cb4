"""Where the verbs come together, and where errors become one clear line and an exit status."""

from __future__ import annotations

import errno
import logging
import sys
from typing import Annotated

import click
import typer

import pellucid
from pellucid.cli import demo, methods, predict, report, run, train
from pellucid.errors import InputError, PellucidError

app = typer.Typer(
    name="pellucid",
    help="Train medical-image classifiers, explain what they saw, and measure whether to trust it.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.command()(demo.demo)
app.command()(run.run)
app.command()(train.train)
app.command()(predict.predict)
app.command()(report.report)
app.command()(methods.methods)


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"pellucid {pellucid.__version__}")
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version and stop.")
    ] = False,
) -> None:
    pass


def main(arguments: list[str] | None = None) -> int:
    """Run the command; returns the exit status.

    0 success, 1 something failed on the way, 2 the user's input can't be used, 130 stopped by Ctrl-C.
    """
    log = logging.getLogger("pellucid")
    handler = logging.StreamHandler()
    handler.setFormatter(logging.Formatter("%(message)s"))
    log.addHandler(handler)
    log.setLevel(logging.INFO)
    try:
        return int(app(arguments, standalone_mode=False) or 0)
    except click.ClickException as error:
        error.show()
        return error.exit_code
    except InputError as error:
        return _failed(error, 2)
    except PellucidError as error:
        return _failed(error, 1)
    except (KeyboardInterrupt, click.Abort):
        _say("\nstopped. What was finished is kept; run the same command to go on.")
        return 130
    except OSError as error:
        if error.errno != errno.ENOSPC:
            raise
        return _failed(f"{error}. What was finished is kept; make room, then run the same command to go on.", 1)
    finally:
        log.removeHandler(handler)


def _failed(error: object, status: int) -> int:
    _say(f"error: {error}")
    return status


def _say(text: str) -> None:
    sys.stderr.write(text + "\n")


def entry_point() -> None:
    """What the installed command calls."""
    sys.exit(main())
