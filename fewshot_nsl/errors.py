"""Every refusal of the package. One line: what is wrong, what was expected, what was got, what to try next."""


class FewShotNSLError(Exception):
    """Base of all refusals; the command line prints it as one line and exits 1."""


class DataError(FewShotNSLError):
    """A dataset, a store, or an image of one is missing, damaged, or not the one meant."""


class EpisodeError(FewShotNSLError):
    """An episode of the asked sizes cannot be drawn."""


class CheckpointError(FewShotNSLError):
    """A checkpoint is missing, damaged, ambiguous, or of another model or dataset."""


class ConfigurationError(FewShotNSLError, ValueError):
    """An argument or option has a value outside its range, or names nothing."""


class NotFoldable(FewShotNSLError):  # noqa: N818 - the name says what is wrong
    """A layer whose similarity depends on its input cannot become a plain convolution."""


class DeviceError(FewShotNSLError):
    """The asked device is not on this machine."""


class TrainingError(FewShotNSLError):
    """Training cannot go on, for instance because the loss is not finite."""


class KernelError(FewShotNSLError):
    """Kernels for this processor cannot be compiled here."""
