from fewshot_nsl.strategies import STRATEGIES
from fewshot_nsl.training import Recipe, Row, Run, load_checkpoint
from fewshot_nsl.workspace import file_checksum


def _recipe() -> Recipe:
    return Recipe.model_validate(
        {
            "name": "x",
            "title": "a row",
            "dataset": "tiny",
            "pretraining": {"network": "plain"},
            "strategy": {"name": "ridge", "settings": {"penalty": 0.5}},
            "evaluation": {"split": "test", "n_way": 3, "n_shot": 2, "n_query": 4, "episodes": 5, "seed": 0},
        }
    )


def test_a_row_of_a_recipe_has_its_title_and_settings(plain_run: Run) -> None:
    row = Row("ridge", load_checkpoint(plain_run.best), _recipe())
    assert (row.title, row.settings) == ("a row", {"penalty": 0.5})


def test_a_row_without_one_has_those_of_the_strategy(plain_run: Run) -> None:
    row = Row("ridge", load_checkpoint(plain_run.best))
    assert (row.title, row.settings) == (STRATEGIES["ridge"].title, {})


def test_the_similarity_inside_is_said_where_it_was_chosen(network_runs: dict[str, Run]) -> None:
    titles = {name: Row(name, load_checkpoint(network_runs[name].best)).title for name in ("protonet", "meta-dynamic")}
    assert titles == {name: STRATEGIES[name].title for name in titles}
    checkpoint = load_checkpoint(network_runs["protonet"].best)
    description = checkpoint.card.description.model_copy(update={"similarity": "static"})
    card = checkpoint.card.model_copy(update={"description": description})
    assert Row("protonet", checkpoint.model_copy(update={"card": card})).title == "ProtoNet, static NSN"


def test_the_checksum_is_of_the_file(plain_run: Run) -> None:
    assert Row("ridge", load_checkpoint(plain_run.best)).checkpoint_sha256 == file_checksum(plain_run.best)
