"""Episodes: which images make one, the batch a learner gets, and loaders."""

from fewshot_nsl.episodes.batch import EpisodeBatch
from fewshot_nsl.episodes.episode import Episode, Episodes
from fewshot_nsl.episodes.loader import EpisodeDataset, EpisodeLoader
from fewshot_nsl.episodes.sampler import EpisodeSampler

__all__ = ["Episode", "EpisodeBatch", "EpisodeDataset", "EpisodeLoader", "EpisodeSampler", "Episodes"]
