"""The command line: one file a subcommand. Each parses, calls the library and prints; torch is imported only where work begins."""

import errno
import sys
from typing import Annotated

import typer

from fewshot_nsl import __version__
from fewshot_nsl.cli import bench, data, episodes, evaluate, ledger, meta_train, pretrain, quickstart, reproduce
from fewshot_nsl.errors import FewShotNSLError

app = typer.Typer(name="fewshot-nsl", add_completion=False, pretty_exceptions_enable=False, rich_markup_mode=None)
app.add_typer(data.app, name="data")
app.add_typer(episodes.app, name="episodes")
app.command("quickstart")(quickstart.quickstart)
app.command("pretrain")(pretrain.pretrain)
app.command("meta-train")(meta_train.meta_train)
app.command("evaluate")(evaluate.evaluate)
app.command("recipes")(reproduce.recipes)
app.command("reproduce")(reproduce.reproduce)
app.command("ledger")(ledger.ledger)
app.command("bench")(bench.bench)

INTERRUPTED = 130
"""What typer returns for Ctrl-C."""


@app.callback(invoke_without_command=True)
def root(context: typer.Context, version: Annotated[bool, typer.Option("--version", help="Show the version.")] = False) -> None:
    """Few-shot meta-learning with neural similarity. Begin with: fewshot-nsl quickstart."""
    if version:
        typer.echo(f"fewshot-nsl {__version__}")
    elif context.invoked_subcommand is None:
        typer.echo(context.get_help())


def main() -> None:
    """Run the command line: exit code 0 when done; 1, with one line on standard error, when refused or failed."""
    try:
        if app(standalone_mode=False) == INTERRUPTED:
            _fail("interrupted; run the same command again")
    except typer.TyperException as error:
        context = getattr(error, "ctx", None)
        _fail(f"{error.format_message()} See: {context.command_path if context else 'fewshot-nsl'} --help")
    except FewShotNSLError as error:
        _fail(str(error))
    except OSError as error:
        _fail(_describe(error))


def _describe(error: OSError) -> str:
    place = f" {error.filename}" if error.filename else ""
    if error.errno == errno.ENOSPC:
        return f"the disk is full, writing{place}; what was written before is whole. Free some space, then run the same command again"
    if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
        return f"no access to{place} ({error.strerror}); change its permissions, or work in another folder with --workspace"
    return f"{error.strerror}:{place}" if error.strerror else str(error)


def _fail(message: str) -> None:
    typer.echo(f"error: {' '.join(message.split())}", err=True)
    sys.exit(1)
