"""What is evaluated: a strategy, from a checkpoint, as a recipe says where there is one."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from fewshot_nsl.strategies import META_STRATEGIES, STRATEGIES
from fewshot_nsl.training.checkpoint import Checkpoint
from fewshot_nsl.training.recipe import Recipe
from fewshot_nsl.workspace import file_checksum


@dataclass(frozen=True)
class Row:
    """One strategy of an evaluation."""

    strategy: str
    """In `STRATEGIES`."""
    checkpoint: Checkpoint
    recipe: Recipe | None = None
    """Says the settings of a strategy that is not trained on episodes; without it they are the strategy's own."""
    training_seconds: float | None = None
    """All training together, where it is known."""

    @property
    def settings(self) -> Mapping[str, Any]:
        """As in `restore_strategy`."""
        return self.recipe.settings if self.recipe else {}

    @property
    def checkpoint_sha256(self) -> str:
        """Of the checkpoint's file."""
        return file_checksum(self.checkpoint.path)

    @property
    def title(self) -> str:
        """What a table calls it."""
        if self.recipe:
            return self.recipe.title
        title, similarity = STRATEGIES[self.strategy].title, self.checkpoint.card.description.similarity
        # One that starts from a pretrained network has a title that names its similarity.
        chosen = self.strategy in META_STRATEGIES and META_STRATEGIES[self.strategy].from_scratch
        return f"{title}, {similarity} NSN" if chosen and similarity != "plain" else title
