"""The errors mmlens raises on purpose. Each message says what was given, what is allowed, what to do."""


class MMLensError(Exception):
    """Base of every error that mmlens raises on purpose."""


class UnsupportedModelError(MMLensError, ValueError):
    """No adapter, or no backbone, represents this model exactly."""


class HookError(MMLensError, ValueError):
    """A hook name does not exist, or a hook that was asked for never fired."""


class SpliceError(MMLensError, RuntimeError):
    """The Hugging Face model was changed in a way that the splice cannot follow."""


class SelfCheckError(MMLensError, RuntimeError):
    """A spliced model does not compute what it should; see :mod:`mmlens.model.self_check`."""


class SampleError(MMLensError, ValueError):
    """A sample, or a set of samples, cannot be used."""


class MediaError(SampleError):
    """A picture, video or sound is missing, truncated or not decodable."""


class TooManyFailuresError(SampleError):
    """More samples were unusable than the cap allows."""


class StatisticsError(MMLensError, ValueError):
    """Statistics or neuron sets that do not belong together, or to this model."""


class RunFolderError(MMLensError, RuntimeError):
    """A run folder belongs to other settings, or cannot be written."""
