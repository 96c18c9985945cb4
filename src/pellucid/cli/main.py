"""Where the verbs come together, and where errors become one clear line and an exit status."""

from __future__ import annotations

import errno
import functools
import logging
import sys
from collections.abc import Callable
from typing import Annotated, ParamSpec

import typer

import pellucid
from pellucid.cli import (
    data,
    data_convert,
    data_deidentify,
    demo,
    doctor,
    evaluate,
    explain,
    methods,
    pacs,
    paper,
    predict,
    report,
    run,
    train,
)
from pellucid.errors import InputError, PellucidError

Arguments = ParamSpec("Arguments")


def told(verb: Callable[Arguments, None]) -> Callable[Arguments, None]:
    """The verb, with pellucid's own errors as one line and an exit status.

    1 something failed on the way, 2 the user's input can't be used, 130 stopped by Ctrl-C.
    """

    @functools.wraps(verb)
    def wrapped(*args: Arguments.args, **kwargs: Arguments.kwargs) -> None:
        try:
            verb(*args, **kwargs)
        except PellucidError as error:
            _say(f"error: {error}")
            raise typer.Exit(2 if isinstance(error, InputError) else 1) from error
        except KeyboardInterrupt as error:
            _say("\nstopped. What was finished is kept; run the same command to go on.")
            raise typer.Exit(130) from error
        except OSError as error:
            if error.errno != errno.ENOSPC:
                raise
            _say(f"error: {error}. What was finished is kept; make room, then run the same command to go on.")
            raise typer.Exit(1) from error

    return wrapped


def _say(text: str) -> None:
    sys.stderr.write(text + "\n")


app = typer.Typer(
    name="pellucid",
    help="Train medical-image classifiers, explain what they saw, and measure whether to trust it.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.command()(told(demo.demo))
app.command()(told(run.run))
app.command()(told(paper.paper))
app.command()(told(train.train))
app.command()(told(predict.predict))
app.command()(told(explain.explain))
app.command()(told(evaluate.evaluate))
app.command()(told(report.report))
app.command()(told(methods.methods))
app.command()(told(doctor.doctor))
data_app = typer.Typer(help="Look a data set over, make one of DICOM files, or de-identify them.", no_args_is_help=True)
data_app.command()(told(data.check))
data_app.command()(told(data_convert.convert))
data_app.command()(told(data_deidentify.deidentify))
data_app.command()(told(pacs.query))
data_app.command()(told(pacs.fetch))
data_app.command()(told(pacs.store))
app.add_typer(data_app, name="data")


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
    """Run the command; returns the exit status."""
    log = logging.getLogger("pellucid")
    handler = logging.StreamHandler()
    handler.setFormatter(logging.Formatter("%(message)s"))
    log.addHandler(handler)
    log.setLevel(logging.INFO)
    try:
        app(arguments, prog_name="pellucid")
    except SystemExit as leaving:
        return leaving.code if isinstance(leaving.code, int) else 0
    finally:
        log.removeHandler(handler)
    return 0


def entry_point() -> None:
    """What the installed command calls."""
    sys.exit(main())
