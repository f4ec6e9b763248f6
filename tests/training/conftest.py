"""Runs that were trained on the tiny dataset, as small as they can be."""

import pytest
import torch

from fewshot_nsl.data import ImageStore
from fewshot_nsl.strategies import META_STRATEGIES, MAMLConfig, MetaStaticConfig, get_meta_strategy
from fewshot_nsl.training import PretrainConfig, Run, load_checkpoint, meta_train, pretrain
from fewshot_nsl.workspace import Workspace, open_workspace

CPU = torch.device("cpu")


@pytest.fixture(scope="session")
def plain_config() -> PretrainConfig:
    """12 steps."""
    return PretrainConfig(network="plain", width=4, epochs=4, batch_size=24, lr=0.2)


@pytest.fixture(scope="session")
def meta_config() -> MetaStaticConfig:
    """4 outer steps."""
    return MetaStaticConfig(
        n_way=3,
        n_shot=2,
        n_query=3,
        iterations=4,
        meta_batch=2,
        inner_steps=2,
        inner_test_steps=3,
        validate_every=2,
        validation_episodes=5,
        lr=0.05,
    )


@pytest.fixture(scope="session")
def maml_config(meta_config: MetaStaticConfig) -> MAMLConfig:
    """The same 4 outer steps."""
    shared = meta_config.model_dump(exclude={"strategy", "inner_lr_classifier"})
    return MAMLConfig.checked({**shared, "width": 4, "inner_lr": 0.1})


@pytest.fixture(scope="session")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    """Where the finished runs below are; to be read only."""
    return open_workspace(tmp_path_factory.mktemp("trained"))


@pytest.fixture(scope="session")
def plain_run(trained: Workspace, tiny_store: ImageStore, plain_config: PretrainConfig) -> Run:
    """The plain network, pretrained."""
    return pretrain(trained, tiny_store, plain_config, CPU)


@pytest.fixture(scope="session")
def dynamic_run(trained: Workspace, tiny_store: ImageStore, plain_config: PretrainConfig) -> Run:
    """The dynamic network, pretrained."""
    return pretrain(trained, tiny_store, plain_config.model_copy(update={"network": "dynamic", "epochs": 1}), CPU)


@pytest.fixture(scope="session")
def meta_run(trained: Workspace, tiny_store: ImageStore, plain_run: Run, meta_config: MetaStaticConfig) -> Run:
    """Meta-static, from the plain network."""
    return meta_train(trained, tiny_store, load_checkpoint(plain_run.best), meta_config, CPU)


@pytest.fixture(scope="session")
def network_runs(
    trained: Workspace, tiny_store: ImageStore, plain_run: Run, dynamic_run: Run, meta_run: Run, maml_run: Run, maml_config: MAMLConfig
) -> dict[str, Run]:
    """A run of every network that some strategy is evaluated from."""
    runs = {"plain": plain_run, "dynamic": dynamic_run, "meta-static": meta_run, "maml": maml_run}
    for name in META_STRATEGIES.keys() - runs.keys():
        entry = get_meta_strategy(name)
        settings = maml_config.model_dump(exclude={"strategy"}) | {"validation_n_way": maml_config.n_way}
        settings |= {"lr": 0.001, "inner_lr": 1.0} if name == "leo" else {}  # others learn by steps that are far too large for it
        config = entry.config.checked({key: value for key, value in settings.items() if key in entry.config.model_fields})
        pretrained = load_checkpoint(runs[entry.pretrained].best) if entry.pretrained else None
        runs[name] = meta_train(trained, tiny_store, pretrained, config, CPU)
    return runs


@pytest.fixture(scope="session")
def maml_run(trained: Workspace, tiny_store: ImageStore, maml_config: MAMLConfig) -> Run:
    """MAML, from scratch."""
    return meta_train(trained, tiny_store, None, maml_config, CPU)
