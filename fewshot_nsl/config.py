"""Configurations: frozen, complete, checked before any work."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError, model_serializer

from fewshot_nsl.errors import ConfigurationError

AnyConfig = TypeVar("AnyConfig", bound="Config")


def first_wrong_field(error: ValidationError) -> str:
    """`'the.field': what is wrong with it`, of the first field that pydantic refuses."""
    first = error.errors()[0]
    return f"'{'.'.join(map(str, first['loc']))}': {first['msg'].removeprefix('Value error, ')}"


@dataclass(frozen=True)
class LeftOut:
    """Marks a field, `Annotated[T, LeftOut()]`, that is not written while it has its default: a new field then renames no run."""


class Config(BaseModel):
    """Base of all configurations; unknown fields are refused."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    @model_serializer(mode="wrap")
    def _leave_out(self, write: Callable[[Any], dict[str, Any]]) -> dict[str, Any]:
        fields = type(self).model_fields
        unsaid = {name for name, field in fields.items() if LeftOut() in field.metadata and getattr(self, name) == field.default}
        return {name: value for name, value in write(self).items() if name not in unsaid}

    @classmethod
    def checked(cls: type[AnyConfig], values: Mapping[str, Any]) -> AnyConfig:
        """The configuration of these values.

        Raises:
            ConfigurationError: a field is unknown, missing or out of its range; the first such field is named.
        """
        try:
            return cls.model_validate(values)
        except ValidationError as error:
            first = error.errors()[0]
            field = ".".join(map(str, first["loc"]))
            given = f", got {first['input']!r}" if first["type"] != "missing" else ""
            said = first["msg"].removeprefix("Value error, ")
            raise ConfigurationError(f"{field} of {cls.__name__}: {said}{given}" if field else said) from error
