"""The root of the command: subcommands, and what happens when something goes wrong."""

from __future__ import annotations

import errno
import importlib.metadata
import lzma
import os
import sys
import zlib
from typing import Any, NoReturn

import click

from pyvirt.cli.cluster import cluster
from pyvirt.cli.entitlement import entitlement
from pyvirt.cli.image import image
from pyvirt.cli.mmu import mmu
from pyvirt.cli.run import run
from pyvirt.cli.sched import sched
from pyvirt.cli.trace import trace
from pyvirt.cli.validate import validate
from pyvirt.cli.x86 import x86
from pyvirt.errors import PyvirtError

__all__ = ["main"]

BAD_INPUT = 2
INTERRUPTED = 130  # 128 + SIGINT, as a shell reports it
BROKEN_PIPE = 141  # 128 + SIGPIPE


class Command(click.Group):
    """A group that answers bad input with one line on standard error and exit code 2."""

    def main(self, *args: Any, **kwargs: Any) -> NoReturn:
        """Run a command line and exit."""
        kwargs["standalone_mode"] = False
        try:
            result = super().main(*args, **kwargs)
        except click.exceptions.NoArgsIsHelpError as error:
            click.echo(error.format_message())
            sys.exit(BAD_INPUT)
        except click.ClickException as error:
            _refuse(error.format_message())
        except (click.Abort, KeyboardInterrupt):
            sys.exit(INTERRUPTED)
        except (PyvirtError, OSError, lzma.LZMAError, zlib.error, EOFError, MemoryError) as error:
            _refuse(str(error) or type(error).__name__)
        sys.exit(result if isinstance(result, int) else 0)

    def invoke(self, ctx: click.Context) -> Any:
        """Run the subcommand; a reader of the output that leaves ends it without a word."""
        try:
            result = super().invoke(ctx)
            sys.stdout.flush()
        except OSError as error:
            if error.errno != errno.EPIPE:
                raise
            # Python flushes standard output at exit, and would complain unless it leads somewhere.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            sys.exit(BROKEN_PIPE)
        return result


def _refuse(message: str) -> NoReturn:
    """Say in one line what is wrong, and exit."""
    click.echo(f"pyvirt: error: {' '.join(message.split())}", err=True)
    sys.exit(BAD_INPUT)


def _version(context: click.Context, _: click.Parameter, value: bool) -> None:
    if value and not context.resilient_parsing:
        # From the metadata: the command is to the right of pyvirt/__init__, which has it, too.
        try:
            version = importlib.metadata.version("pyvirt")
        except importlib.metadata.PackageNotFoundError:
            version = "(a checkout that is not installed)"
        click.echo(f"pyvirt {version}")
        context.exit()


@click.command(cls=Command, context_settings={"help_option_names": ["-h", "--help"]})
@click.option(
    "--version",
    is_flag=True,
    is_eager=True,
    expose_value=False,
    callback=_version,
    help="Show the version and exit.",
)
def main() -> None:
    """Simulate virtualised machines, and translate through the page tables of real ones."""


main.add_command(cluster)
main.add_command(entitlement)
main.add_command(image)
main.add_command(mmu)
main.add_command(run)
main.add_command(sched)
main.add_command(trace)
main.add_command(validate)
main.add_command(x86)
