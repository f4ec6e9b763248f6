from typing import Any

import pytest
from pydantic import Field, ValidationError

from fewshot_nsl.config import Config
from fewshot_nsl.errors import ConfigurationError, FewShotNSLError


class _Inner(Config):
    rate: float = Field(gt=0)


class _Outer(Config):
    name: str
    steps: int = Field(default=3, gt=0)
    inner: _Inner = _Inner(rate=1)


def test_values_that_fit_make_a_configuration() -> None:
    config = _Outer.checked({"name": "a", "inner": {"rate": 0.5}})
    assert type(config) is _Outer
    assert config == _Outer(name="a", steps=3, inner=_Inner(rate=0.5))


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({}, "name of _Outer: Field required$"),
        ({"name": "a", "steps": 0}, "steps of _Outer: Input should be greater than 0, got 0$"),
        ({"name": "a", "steps": "many"}, "steps of _Outer: Input should be a valid integer.*, got 'many'$"),
        ({"name": "a", "stps": 1}, "stps of _Outer: Extra inputs are not permitted, got 1$"),
        ({"name": "a", "inner": {"rate": -1}}, r"inner\.rate of _Outer: Input should be greater than 0, got -1$"),
        ({"name": 1, "steps": 0}, "name of _Outer: .*string, got 1$"),
    ],
)
def test_the_first_field_that_does_not_fit_is_named(values: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigurationError, match=message) as caught:
        _Outer.checked(values)
    assert isinstance(caught.value, FewShotNSLError)
    assert isinstance(caught.value, ValueError)
    assert "\n" not in str(caught.value)


def test_a_configuration_does_not_change() -> None:
    config = _Outer(name="a")
    with pytest.raises(ValidationError, match="frozen"):
        config.steps = 4
