"""`fewshot-nsl episodes`: test sets drawn once and for all, and pictures of episodes."""

from pathlib import Path
from typing import Annotated

import typer

from fewshot_nsl.cli import episode_options, options, printing
from fewshot_nsl.errors import ConfigurationError

app = typer.Typer(help="Freeze test episodes into a file, and look at episodes.")


@app.command()
def freeze(
    dataset: options.Dataset = None,
    split: Annotated[str, typer.Option(help="train, val or test.")] = episode_options.SPLIT,
    n_way: options.Ways = episode_options.WAYS,
    n_shot: options.Shots = episode_options.SHOTS,
    n_query: options.Queries = episode_options.QUERIES,
    balanced: Annotated[bool, typer.Option("--balanced/--unbalanced", help="As many queries of each class, or any of its images.")] = True,
    episodes: Annotated[int, typer.Option(min=1, help="How many; they are the first of the seed.")] = 600,
    seed: Annotated[int, typer.Option("--seed", min=0, help="Of the episodes.")] = episode_options.SEED,
    force: Annotated[bool, typer.Option("--force", help="Replace a file that is there.")] = False,
    output: Annotated[
        Path | None,
        typer.Option("--output", help="Parquet file; by default episodes/<dataset>-<split>-<n>way-<k>shot-<episodes>.parquet."),
    ] = None,
    workspace: options.WorkspaceFolder = Path(),
) -> None:
    """Draw episodes and write them to a Parquet file that any library can replay.

    Example: fewshot-nsl episodes freeze --dataset cifar-fs --n-shot 1 --episodes 10000
    """
    from fewshot_nsl.data import choose_store
    from fewshot_nsl.episodes import EpisodeSampler
    from fewshot_nsl.episodes import freeze as write
    from fewshot_nsl.workspace import open_workspace

    place = open_workspace(workspace)
    store, notice = choose_store(place, dataset)
    printing.notify(notice)
    sampler = EpisodeSampler(store.split_labels(split), n_way, n_shot, n_query, seed, balanced=balanced, names=store.classes)
    name = f"{store.name}-{split}-{n_way}way-{n_shot}shot-{episodes}{'' if balanced else '-unbalanced'}.parquet"
    path = output or place.root / "episodes" / name
    frozen = write(store, sampler, path, split=split, episodes=episodes, force=force)
    typer.echo(f"{place.relative(path)}: {len(frozen)} episodes, {path.stat().st_size:,} bytes, fingerprint {frozen.fingerprint}")


@app.command()
def show(
    dataset: options.Dataset = None,
    frozen: episode_options.Frozen = None,
    split: episode_options.Split = None,
    n_way: episode_options.Ways = None,
    n_shot: episode_options.Shots = None,
    n_query: episode_options.Queries = None,
    seed: Annotated[int | None, typer.Option("--seed", min=0, show_default=str(episode_options.SEED), help="Of the episodes.")] = None,
    episode: Annotated[int, typer.Option("--episode", min=0, help="Number of the episode, from 0.")] = 0,
    output: Annotated[Path | None, typer.Option("--output", help="PNG file; by default in episodes/, named after what it shows.")] = None,
    workspace: options.WorkspaceFolder = Path(),
) -> None:
    """Write a picture of one episode: class by class its support images, and its queries beside them.

    Examples:
        fewshot-nsl episodes show --dataset cifar-fs --episode 3

        fewshot-nsl episodes show --frozen cifar-fs-test-5way-1shot-600 --episode 3
    """
    from fewshot_nsl.data import choose_store
    from fewshot_nsl.episodes import picture_episode
    from fewshot_nsl.workspace import moved_into_place, open_workspace

    if output is not None and output.suffix.lower() != ".png":
        raise ConfigurationError(f"--output {output} does not end with .png: expected the name of a PNG file")
    place = open_workspace(workspace)
    path, dataset = episode_options.find_set(place, frozen, dataset)
    store, notice = choose_store(place, dataset)
    printing.notify(notice)
    source, split = episode_options.open_episodes(store, path, split=split, n_way=n_way, n_shot=n_shot, n_query=n_query, seed=seed)
    sizes = f"{source.n_way}-way {printing.shots(source.n_shot)}-shot"
    picture = picture_episode(store, source[episode], f"{store.name}, {split} classes: {sizes}, seed {source.seed}, episode {episode}")
    name = path.stem if path else f"{store.name}-{split}-{source.n_way}way-{printing.shots(source.n_shot)}shot-seed{source.seed}"
    target = output or place.root / "episodes" / f"{name}-episode{episode}.png"
    with moved_into_place(target) as aside:
        picture.save(aside, format="PNG")
    typer.echo(f"Written to {place.relative(target)}")
