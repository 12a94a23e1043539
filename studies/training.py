"""Train a model, or evolve its hyperparameters, from a train script of any task or from Python."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from utils.base.log import LOG, set_up_console
from utils.base.options import known_keywords, options_from

if TYPE_CHECKING:
    from utils.loggers.callbacks import Callbacks
    from utils.train.run_dir import TrainResult
    from utils.train.train_options import TrainOptions


def train(options: TrainOptions, user_callbacks: Sequence[Callbacks] = ()) -> TrainResult:
    """Train one model, see `utils.train.trainer`; with `--evolve`, many."""
    if options.evolve is not None:
        from studies.evolve.evolution import evolve

        return evolve(options, user_callbacks)
    from utils.train.trainer import train as train_one

    return train_one(options, user_callbacks)


def run(cls: type[TrainOptions], keywords: dict[str, Any]) -> TrainResult:
    """Train with keywords that are the flags of `cls` with underscores.

    As in the original, keywords that are no flags have no effect; they are logged.
    """
    set_up_console()
    user_callbacks = keywords.pop("callbacks", ())
    if hasattr(user_callbacks, "register_action"):  # functions by event, as in the original
        from utils.compat.callbacks import adapted

        user_callbacks = (adapted(user_callbacks),)
    known = known_keywords(cls, keywords)
    if ignored := sorted(keywords.keys() - known.keys()):
        function = f"{cls.prog.removesuffix('.py')}.run"
        LOG.warning(f"{function}: ignored {', '.join(ignored)}, which are no options of {cls.prog}")
    return train(options_from(cls, known), user_callbacks)
