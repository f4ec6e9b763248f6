import json
import re
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path

import pytest
from pydantic import ValidationError

from fewshot_nsl.errors import DataError
from fewshot_nsl.evaluate import Evaluation, ResultRow, normal_interval, read_evaluations, result_name, write_evaluation

ACCURACIES = [0.5, 0.75, 1.0]


@pytest.fixture
def evaluation() -> Evaluation:
    interval = normal_interval(ACCURACIES)
    row = ResultRow(
        strategy="nearest-mean",
        title="plain, nearest class mean",
        backbone="cnn4",
        width=32,
        parameters=28768,
        checkpoint="runs/best.safetensors",
        checkpoint_sha256="ab" * 32,
        transductive=False,
        trained_on="tiny",
        augmentations=["flip"],
        accuracy=interval.mean,
        ci95=interval.half_width,
        accuracies=ACCURACIES,
        seconds=1.5,
    )
    return Evaluation(
        created=datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC),
        command="fewshot-nsl evaluate",
        dataset="tiny",
        fingerprint="cd" * 32,
        split="test",
        n_way=5,
        n_shot=1,
        n_query=15,
        episodes=3,
        seed=0,
        hardware="a machine",
        versions={"torch": "2"},
        rows=[row],
    )


def test_a_file_gives_the_evaluation_back(evaluation: Evaluation, tmp_path: Path) -> None:
    path = tmp_path / "evaluate" / "results" / "some.json"
    write_evaluation(evaluation, path)
    assert Evaluation.model_validate_json(path.read_text()) == evaluation
    assert [file.name for file in path.parent.iterdir()] == ["some.json"]


def test_the_file_is_json_of_the_names_in_the_contract(evaluation: Evaluation, tmp_path: Path) -> None:
    write_evaluation(evaluation, tmp_path / "some.json")
    content = json.loads((tmp_path / "some.json").read_text())
    episodes = {"dataset", "fingerprint", "split", "n_way", "n_shot", "n_query", "episodes", "seed", "rows"}
    assert episodes <= content.keys()
    row = {"strategy", "backbone", "checkpoint", "transductive", "trained_on", "accuracy", "ci95", "accuracies"}
    assert row <= content["rows"][0].keys()
    assert content["rows"][0]["accuracies"] == ACCURACIES
    assert content["rows"][0]["accuracy"] == 0.75
    assert content["rows"][0]["ci95"] == pytest.approx(1.96 * 0.25 / 3**0.5, rel=1e-4)


def test_results_of_before_there_were_frozen_episodes_and_precisions_are_read(evaluation: Evaluation) -> None:
    old = {name: value for name, value in evaluation.model_dump(mode="json").items() if name not in ("frozen", "precision")}
    assert evaluation.precision == "float32"
    assert Evaluation.model_validate_json(json.dumps(old)) == evaluation
    for path in (Path(__file__).parents[2] / "evaluate" / "results").glob("*.json"):
        assert Evaluation.model_validate_json(path.read_text()).rows


def test_frozen_episodes_and_uneven_shots_are_given_back(evaluation: Evaluation) -> None:
    frozen = evaluation.model_copy(update={"frozen": "ef" * 32, "n_shot": (1, 2, 3, 4, 5)})
    assert Evaluation.model_validate_json(frozen.model_dump_json()) == frozen


def test_the_file_replaces_one_that_is_there(evaluation: Evaluation, tmp_path: Path) -> None:
    path = tmp_path / "some.json"
    path.write_text("old")
    write_evaluation(evaluation, path)
    assert Evaluation.model_validate_json(path.read_text()) == evaluation


def test_names_sort_by_time_and_tell_evaluations_apart(evaluation: Evaluation) -> None:
    name = result_name(evaluation)
    assert re.fullmatch(r"20260102T030405Z-[0-9a-f]{8}\.json", name)
    assert result_name(evaluation) == name
    assert result_name(evaluation.model_copy(update={"seed": 1})) != name
    later = evaluation.model_copy(update={"created": evaluation.created + timedelta(seconds=1)})
    assert result_name(later) > name


def test_names_are_in_utc(evaluation: Evaluation) -> None:
    created = datetime(2026, 1, 2, 5, 4, 5, tzinfo=timezone(timedelta(hours=2)))
    assert result_name(evaluation.model_copy(update={"created": created})).startswith("20260102T030405Z-")


def test_an_evaluation_does_not_change(evaluation: Evaluation) -> None:
    with pytest.raises(ValidationError, match="frozen"):
        evaluation.seed = 1
    with pytest.raises(ValidationError, match="frozen"):
        evaluation.rows[0].accuracy = 1.0


def test_the_evaluations_of_a_folder_are_read_oldest_first(evaluation: Evaluation, tmp_path: Path) -> None:
    later = evaluation.model_copy(update={"created": evaluation.created + timedelta(days=1)})
    for each in (later, evaluation):
        write_evaluation(each, tmp_path / result_name(each))
    (tmp_path / "notes.txt").write_text("of a person")
    assert read_evaluations(tmp_path) == {result_name(evaluation): evaluation, result_name(later): later}
    assert list(read_evaluations(tmp_path).values()) == [evaluation, later]
    assert read_evaluations(tmp_path / "nothing") == {}


def test_a_file_that_is_no_evaluation_is_named(evaluation: Evaluation, tmp_path: Path) -> None:
    write_evaluation(evaluation, tmp_path / "good.json")
    for content in ("{}", "no JSON"):
        (tmp_path / "other.json").write_text(content)
        with pytest.raises(DataError, match=f"^{tmp_path / 'other.json'} is not an evaluation: field '.*; move it elsewhere$"):
            read_evaluations(tmp_path)
