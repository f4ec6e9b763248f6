"""How each strategy is trained on episodes: everything that decides the result, images and pretrained weights apart."""

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from fewshot_nsl.backbones import SimilarityChoice
from fewshot_nsl.config import LeftOut
from fewshot_nsl.precision import PrecisionChoice


class MetaTrainConfig(PrecisionChoice):
    """What all have in common; the defaults of each strategy are its own."""

    strategy: str = Field(description="a name in META_STRATEGIES")
    n_way: int = Field(default=5, gt=1)
    n_shot: int = Field(default=5, gt=0)
    n_query: int = Field(default=15, gt=0, description="per class")
    iterations: int = Field(gt=0, description="outer steps")
    meta_batch: int = Field(gt=0, description="tasks of an outer step")
    lr: float = Field(default=1e-3, gt=0, description="of Adam, outside; falls to 0 along a cosine")
    validate_every: int = Field(gt=0, description="outer steps")
    validation_episodes: int = Field(default=100, gt=0)
    validation_n_way: Annotated[int | None, LeftOut()] = Field(default=None, gt=1, description="by default n_way")
    augment: Annotated[bool, LeftOut()] = Field(default=False, description="crop and flip base images, as far as the dataset's card allows")
    seed: int = Field(default=0, ge=0, lt=2**63)

    @model_validator(mode="before")
    @classmethod
    def _is_known(cls, values: Mapping[str, Any]) -> Mapping[str, Any]:
        if unknown := [name for name in values if name not in cls.model_fields]:
            strategy = cls.model_fields["strategy"].default
            raise ValueError(f"{strategy} has no setting '{unknown[0]}': expected some of {', '.join(cls.model_fields)}; leave it out")
        return values

    def arguments(self) -> dict[str, Any]:
        """The settings that the strategy is built with, by the names of its constructor."""
        return {}


class ProtoNetConfig(MetaTrainConfig, SimilarityChoice):
    """Of `ProtoNet`; by Snell et al. (2017) it is trained with 20 ways, and an episode is a meta-batch."""

    strategy: Literal["protonet"] = "protonet"
    n_way: int = Field(default=20, gt=1)
    validation_n_way: int | None = Field(default=5, gt=1)
    iterations: int = Field(default=20_000, gt=0)
    meta_batch: int = Field(default=1, gt=0)
    validate_every: int = Field(default=500, gt=0)


class RelationNetConfig(MetaTrainConfig, SimilarityChoice):
    """Of `RelationNet`; by Sung et al. (2018) trained as it is tested, one episode a step, with 10 queries a class at 5 shots."""

    strategy: Literal["relation-net"] = "relation-net"
    n_query: int = Field(default=10, gt=0)
    iterations: int = Field(default=20_000, gt=0)
    meta_batch: int = Field(default=1, gt=0)
    validate_every: int = Field(default=500, gt=0)

    def arguments(self) -> dict[str, Any]:
        """What the relation network is made of."""
        return {"similarity": self.similarity, "structure": self.structure}


class LEOConfig(MetaTrainConfig):
    """Of `LEO`; numbers of its own are those of the authors' code. They clip gradients, which is not done here."""

    strategy: Literal["leo"] = "leo"
    iterations: int = Field(default=20_000, gt=0)
    meta_batch: int = Field(default=12, gt=0)
    validate_every: int = Field(default=500, gt=0)
    latents: int = Field(default=64, gt=0, description="numbers of a code")
    inner_lr: float = Field(default=1.0, gt=0, description="of codes, where it starts")
    inner_steps: int = Field(default=5, ge=0, description="on codes")
    finetune_lr: float = Field(default=0.001, gt=0, description="of weights, where it starts")
    finetune_steps: int = Field(default=5, ge=0, description="on weights")
    dropout: float = Field(default=0.3, ge=0, lt=1, description="of the encoder's inputs")
    kl_weight: float = Field(default=0.001, ge=0)
    encoder_penalty: float = Field(default=1e-9, ge=0)
    l2: float = Field(default=1e-8, ge=0)
    orthogonality: float = Field(default=0.001, ge=0)

    def arguments(self) -> dict[str, Any]:
        """All of the strategy's own."""
        own = LEOConfig.model_fields.keys() - MetaTrainConfig.model_fields.keys() - {"inner_lr", "inner_steps"}
        return self.model_dump(include=own) | {"lr": self.inner_lr, "steps": self.inner_steps}


class R2D2Config(MetaTrainConfig, SimilarityChoice):
    """Of `R2D2`; the number of iterations is that of `ProtoNetConfig`, its ways those of the test."""

    strategy: Literal["r2d2"] = "r2d2"
    iterations: int = Field(default=20_000, gt=0)
    meta_batch: int = Field(default=4, gt=0)
    validate_every: int = Field(default=500, gt=0)


class MatchingNetConfig(MetaTrainConfig, SimilarityChoice):
    """Of `MatchingNet`; trained as it is tested, in the paper's words."""

    strategy: Literal["matching-net"] = "matching-net"
    iterations: int = Field(default=20_000, gt=0)
    meta_batch: int = Field(default=4, gt=0)
    validate_every: int = Field(default=500, gt=0)
    full_context: bool = Field(default=False, description="whether embeddings see the whole support set")

    def arguments(self) -> dict[str, Any]:
        """Whether embeddings see the whole support set."""
        return {"full_context": self.full_context}


class CoTrainedConfig(MetaTrainConfig):
    """Of strategies that some steps teach all base classes at once; the others are of episodes."""

    base_batch: int = Field(default=64, gt=0, description="images of such a step")

    def arguments(self) -> dict[str, Any]:
        """Images of such a step; how many classes there are, the store says."""
        return {"base_batch": self.base_batch}


class TADAMConfig(CoTrainedConfig, SimilarityChoice):
    """Of `TADAM`; iterations, tasks and the batch of base images are those of the authors' code, which takes steps of SGD, not Adam."""

    strategy: Literal["tadam"] = "tadam"
    iterations: int = Field(default=30_000, gt=0)
    meta_batch: int = Field(default=2, gt=0)
    validate_every: int = Field(default=500, gt=0)


class InnerLoopConfig(MetaTrainConfig):
    """Of strategies that take gradient steps on a task."""

    inner_lr: float = Field(default=0.01, gt=0, description="of M or of its predictors, or of all weights where all move")
    inner_steps: int = Field(default=5, ge=0)
    inner_test_steps: int = Field(default=10, ge=0)
    first_order: bool = False

    def arguments(self) -> dict[str, Any]:
        """With the number of ways, which is that of the learned classifier."""
        return {
            "n_way": self.n_way,
            "steps": self.inner_steps,
            "test_steps": self.inner_test_steps,
            "lr": self.inner_lr,
            "first_order": self.first_order,
        }


class MetaPretrainedConfig(InnerLoopConfig):
    """Of those that start from a pretrained backbone, and need few steps."""

    iterations: int = Field(default=1000, gt=0)
    meta_batch: int = Field(default=2, gt=0)
    validate_every: int = Field(default=100, gt=0)


class MetaSimilarityConfig(MetaPretrainedConfig):
    """Of those in which the similarity and the classifier move."""

    inner_lr_classifier: float = Field(default=10.0, gt=0)

    def arguments(self) -> dict[str, Any]:
        """With the classifier's step size."""
        return {**super().arguments(), "lr_classifier": self.inner_lr_classifier}


class MetaStaticConfig(MetaSimilarityConfig):
    """Of `MetaStatic`."""

    strategy: Literal["meta-static"] = "meta-static"


class MetaDynamicConfig(MetaSimilarityConfig):
    """Of `MetaDynamic`; the numbers are those of `MetaStatic`."""

    strategy: Literal["meta-dynamic"] = "meta-dynamic"


class MetaClassifierConfig(MetaPretrainedConfig):
    """Of `MetaClassifier`, where only the classifier moves."""

    strategy: Literal["meta-classifier"] = "meta-classifier"
    inner_lr: float = Field(default=10.0, gt=0, description="of the classifier")


class MAMLConfig(InnerLoopConfig, SimilarityChoice):
    """Of `MAML`, which starts from random weights; the numbers of Finn et al. (2017) for Mini-ImageNet, with their meta-batch of 1 shot."""

    strategy: Literal["maml"] = "maml"
    iterations: int = Field(default=60_000, gt=0)
    meta_batch: int = Field(default=4, gt=0)
    validate_every: int = Field(default=500, gt=0)
    transductive: Annotated[bool, LeftOut()] = Field(default=True, description="queries are normalised together, or by the supports")

    def arguments(self) -> dict[str, Any]:
        """With the setting."""
        return {**super().arguments(), "transductive": self.transductive}
