"""Episodes: which images make one, the batch a learner gets, and loaders."""

from fewshot_nsl.episodes.augment import augment
from fewshot_nsl.episodes.batch import EpisodeBatch
from fewshot_nsl.episodes.dataset import EpisodeDataset
from fewshot_nsl.episodes.episode import Episode, Episodes
from fewshot_nsl.episodes.frozen import FrozenEpisodes
from fewshot_nsl.episodes.frozen_file import find_frozen, freeze, read_description, read_frozen
from fewshot_nsl.episodes.frozen_table import FrozenDescription
from fewshot_nsl.episodes.image_dataset import ImageDataset
from fewshot_nsl.episodes.loader import EpisodeLoader
from fewshot_nsl.episodes.picture import picture_episode
from fewshot_nsl.episodes.sampler import EpisodeSampler

__all__ = [
    "Episode",
    "EpisodeBatch",
    "EpisodeDataset",
    "EpisodeLoader",
    "EpisodeSampler",
    "Episodes",
    "FrozenDescription",
    "FrozenEpisodes",
    "ImageDataset",
    "augment",
    "find_frozen",
    "freeze",
    "picture_episode",
    "read_description",
    "read_frozen",
]
