"""A run: the folder of one training, its configuration, its log of every step, and its two checkpoints."""

import csv
import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TextIO

import torch

from fewshot_nsl.config import Config
from fewshot_nsl.devices import describe_hardware
from fewshot_nsl.errors import CheckpointError
from fewshot_nsl.training.checkpoint import CheckpointCard, current_versions
from fewshot_nsl.workspace import Workspace, moved_into_place


@dataclass
class Run:
    """`runs/<dataset>/<backbone>/<network>/seed<S>-<config hash>/` with `run.json`, `log.csv`, `last.safetensors`, `best.safetensors`."""

    folder: Path
    _log: TextIO | None = field(default=None, repr=False)

    @property
    def last(self) -> Path:
        """The newest state, optimizer included: what a stopped run resumes from."""
        return self.folder / "last.safetensors"

    @property
    def best(self) -> Path:
        """The weights of the highest validation accuracy: what is evaluated."""
        return self.folder / "best.safetensors"

    @property
    def record(self) -> dict[str, Any]:
        """`run.json`, or {} before it is written."""
        path = self.folder / "run.json"
        if not path.is_file():
            return {}
        record: dict[str, Any] = json.loads(path.read_text())
        return record

    @property
    def finished(self) -> bool:
        """Whether training came to its end."""
        return self.record.get("status") == "finished"

    def write_record(self, record: Mapping[str, Any]) -> None:
        """Replace `run.json`."""
        with moved_into_place(self.folder / "run.json") as aside:
            aside.write_text(json.dumps(record, indent=2) + "\n")

    def clear(self) -> None:
        """Forget an earlier training in this folder."""
        for name in ("run.json", "log.csv", "last.safetensors", "best.safetensors"):
            (self.folder / name).unlink(missing_ok=True)

    def open_log(self, columns: list[str], step: int) -> "csv.DictWriter[str]":
        """`log.csv` with a line for each step before `step`, open for those that follow.

        Lines of steps after the checkpoint belong to work that was lost, and are dropped.
        """
        path = self.folder / "log.csv"
        kept: list[dict[str, str]] = []
        if path.is_file():
            with path.open(newline="") as file:
                kept = [row for row in csv.DictReader(file) if row["step"].isdigit() and int(row["step"]) < step]
        with moved_into_place(path) as aside, aside.open("w", newline="") as file:
            writer = csv.DictWriter(file, columns)
            writer.writeheader()
            writer.writerows(kept)
        self._log = path.open("a", newline="", buffering=1)  # a line at a time: a killed run keeps its log
        return csv.DictWriter(self._log, columns)

    def close_log(self) -> None:
        """No more steps."""
        if self._log is not None:
            self._log.close()
            self._log = None


def open_run(workspace: Workspace, card: CheckpointCard, config: Config, *, similarity: str = "plain") -> Run:
    """The run of this configuration on this very store; its folder is made when something is first written there.

    `similarity` is that of a network which could have another; `find_run` then finds it under a name of its own.
    """
    text = json.dumps([card.fingerprint, config.model_dump(mode="json")], sort_keys=True)
    name = f"seed{card.seed}-{hashlib.sha256(text.encode()).hexdigest()[:8]}"
    network = card.network if similarity == "plain" else f"{card.network}-{similarity}"
    folder = workspace.runs / card.dataset / card.description.backbone / network / name
    return Run(folder)


def run_record(card: CheckpointCard, config: Config, device: torch.device) -> dict[str, Any]:
    """What `run.json` says of a run before its first step."""
    return {
        "network": card.network,
        "dataset": card.dataset,
        "fingerprint": card.fingerprint,
        "config": config.model_dump(mode="json"),
        "hardware": describe_hardware(device),
        "versions": current_versions(),
    }


def find_run(workspace: Workspace, dataset: str, backbone: str, network: str, seed: int) -> Run | None:
    """The finished run of this dataset, backbone, network and seed, or None.

    Raises:
        CheckpointError: there are several; they are listed.
    """
    folders = sorted((workspace.runs / dataset / backbone / network).glob(f"seed{seed}-*"))
    finished = [run for run in map(Run, folders) if run.finished]
    if len(finished) > 1:
        listed = ", ".join(str(run.best.relative_to(workspace.root)) for run in finished)
        raise CheckpointError(
            f"{len(finished)} finished runs of {dataset} {backbone} {network} seed {seed}: choose one with --checkpoint: {listed}"
        )
    return finished[0] if finished else None
