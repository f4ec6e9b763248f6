"""`fewshot-nsl quickstart`: everything once, small, on the embedded dataset."""

from pathlib import Path

import typer

from fewshot_nsl.cli import options
from fewshot_nsl.cli.evaluate import evaluate
from fewshot_nsl.cli.meta_train import meta_train
from fewshot_nsl.cli.pretrain import pretrain

DATASET = "glyphs"
EPOCHS = 8
ITERATIONS = 100
STRATEGIES = ["nearest-mean", "retrained", "static", "meta-static", "dynamic"]
"""Those that are compared: the paper's, and their controls."""
ENGINE = "plain"
"""Nothing is compiled: that would take longer than it saves here."""


def quickstart(device: options.Device = "auto", workspace: options.WorkspaceFolder = Path()) -> None:
    """Train and compare what starts from a pretrained network, on the embedded glyphs, in minutes on a laptop."""
    typer.echo(f"1/3  fewshot-nsl pretrain --dataset {DATASET} --epochs {EPOCHS} --engine {ENGINE}")
    pretrain(dataset=DATASET, epochs=EPOCHS, engine=ENGINE, device=device, workspace=workspace)
    typer.echo(f"2/3  fewshot-nsl meta-train --dataset {DATASET} --iterations {ITERATIONS} --engine {ENGINE}")
    meta_train(dataset=DATASET, iterations=ITERATIONS, validate_every=ITERATIONS // 4, engine=ENGINE, device=device, workspace=workspace)
    rows = " ".join(f"--strategy {name}" for name in STRATEGIES)
    typer.echo(f"3/3  fewshot-nsl evaluate --dataset {DATASET} {rows} --episodes 600 --engine {ENGINE}")
    evaluate(dataset=DATASET, strategy=STRATEGIES, engine=ENGINE, device=device, workspace=workspace)
