"""`--recipe`: a row of a table in place of single options."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Any

import typer

from fewshot_nsl.errors import ConfigurationError

if TYPE_CHECKING:  # slow to import, and a command's help does not need them
    from fewshot_nsl.config import Config

Name = Annotated[str | None, typer.Option("--recipe", metavar="NAME|FILE", help="Take everything from a recipe. See: fewshot-nsl recipes.")]


def check_agree(recipe: str, says: "Config", asked: Mapping[str, Any]) -> None:
    """Whether options that were given beside a recipe say what it says; None is not given.

    Raises:
        ConfigurationError: one does not, or is of something else.
    """
    for name, value in asked.items():
        if value is None:
            continue
        if name not in type(says).model_fields:
            raise ConfigurationError(f"recipe {recipe} has no '{name}', and {value!r} is asked for; leave one of them out")
        if value != (held := getattr(says, name)):
            raise ConfigurationError(f"recipe {recipe} says {name} {held!r}, and {value!r} is asked for; leave one of them out")
