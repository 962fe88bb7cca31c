"""Early stopping inside one trial: when does its own history end it? Pure: a stopper and measurements in, answer out.

The stoppers are the choices of a spec's section `stopper`. A trial's epochs are folded into `Progress` one by one, in the
worker and in the study alike, so that an answer costs the same after 3,000 epochs as after three. Whatever stops a trial:
its value and its checkpoint are those of its best epoch by the objective.

Source of gl, pq and up: Prechelt 1998, "Early Stopping - But When?" (in Neural Networks: Tricks of the Trade). E_va is the
watched metric, E_tr the training metric; both are losses of 0 or more. A value that is not finite is the worst there is.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal, assert_never

from hpo.trial import Direction, Measurement

VALIDATION_LOSS = "val_loss"  # what gl, pq and up watch unless they are told otherwise


@dataclass(frozen=True, slots=True)
class NoStopper:
    """Fixed epochs: no trial is ended by its own history. Its value and checkpoint are those of its best epoch all the same."""

    name: Literal["none"] = "none"


@dataclass(frozen=True, slots=True)
class Patience:
    """A trial ends after `epochs` epochs in which nothing was better than the best by more than `min_improvement`.

    It watches `metric` (None: the objective), which is better in `direction` (None: as the trainer declares it, as the
    objective is, or else lower). Source: Goodfellow et al. 2016, "Deep Learning", algorithm 7.1, with one evaluation an
    epoch. The trial's value and checkpoint are those of its best epoch by the objective.
    """

    name: Literal["patience"] = "patience"
    epochs: int = 5
    min_improvement: float = 0.0
    metric: str | None = None
    direction: Direction | None = None


@dataclass(frozen=True, slots=True)
class GeneralisationLoss:
    """GL_a: a trial ends after the first epoch whose generalisation loss (see the function) is above a = `threshold` percent.

    The trial's value and checkpoint are those of its best epoch by the objective.
    """

    name: Literal["gl"] = "gl"
    threshold: float = 5.0
    metric: str | None = None


@dataclass(frozen=True, slots=True)
class ProgressQuotient:
    """PQ_a: a trial ends at the first end of a strip of `strip` epochs where GL / P_k is above a = `threshold`.

    GL is `generalisation_loss`, P_k the `training_progress` in that strip. The trial's value and checkpoint are those of
    its best epoch by the objective.
    """

    name: Literal["pq"] = "pq"
    threshold: float = 1.0
    strip: int = 5
    metric: str | None = None
    training_metric: str = "train_loss"


@dataclass(frozen=True, slots=True)
class Rises:
    """UP_s: a trial ends when the metric rose in s = `strips` successive strips of k = `strip` epochs.

    UP_1 stops at the first end of a strip t with E_va(t) > E_va(t - k), UP_s there if UP_(s-1) stops at t - k. The first
    strip has nothing to compare with. The trial's value and checkpoint are those of its best epoch by the objective.
    """

    name: Literal["up"] = "up"
    strips: int = 2
    strip: int = 5
    metric: str | None = None


Stopper = NoStopper | Patience | GeneralisationLoss | ProgressQuotient | Rises


@dataclass(frozen=True, slots=True)
class Progress:
    """A trial's epochs so far, as far as stoppers need to know them.

    `best` is its lowest objective loss. `error` is what the stopper watches, at the latest `epoch`, and `lowest` the value
    to beat; both are lower where better and infinite where worst. Of the strip that `epoch` is in, `strip_total` and
    `strip_lowest` are the sum and the minimum of the training errors. `strip_end` is the error at the latest end of a
    strip, `rises` how many strips in a row it has risen by then.
    """

    epoch: int = 0
    best: float = math.inf
    best_epoch: int = 0
    error: float = math.inf
    lowest: float = math.inf
    lowest_epoch: int = 0
    strip_total: float = 0.0
    strip_lowest: float = math.inf
    strip_end: float | None = None
    rises: int = 0


def generalisation_loss(error: float, lowest: float) -> float:
    """GL(t) = 100 (E_va(t) / E_opt(t) - 1), in percent; `lowest` is E_opt(t), the lowest error up to t.

    Infinite where `error` is, and above a lowest error of 0. Source: Prechelt 1998, section 2.2.
    """
    if error == lowest < math.inf:
        return 0.0
    return 100 * (error / lowest - 1) if 0 < lowest < math.inf and error < math.inf else math.inf


def training_progress(total: float, lowest: float, strip: int) -> float:
    """P_k(t) = 1000 (sum of E_tr over the strip / (k min E_tr in the strip) - 1), per mille; k is `strip`.

    0, no progress, where the training is perfect (a minimum of 0) or an error of the strip is not finite. Source: Prechelt
    1998, section 2.2.
    """
    return 1000 * (total / (strip * lowest) - 1) if lowest > 0 and total < math.inf else 0.0


def progress_quotient(progress: Progress, strip: int) -> float:
    """GL(t) / P_k(t) at the end of a strip: 0 where GL is, and infinite without training progress."""
    loss = generalisation_loss(progress.error, progress.lowest)
    made = training_progress(progress.strip_total, progress.strip_lowest, strip)
    if loss == 0:
        return 0.0
    return loss / made if made > 0 else math.inf


def watched(stopper: Stopper) -> dict[str, float]:
    """The metrics that a trainer has to yield for the stopper, beside the objective, each with the lowest value it may have."""
    match stopper:
        case NoStopper():
            return {}
        case Patience(metric=metric):
            return {} if metric is None else {metric: -math.inf}
        case Rises(metric=metric):
            return {metric or VALIDATION_LOSS: -math.inf}
        case GeneralisationLoss(metric=metric):
            return {metric or VALIDATION_LOSS: 0.0}
        case ProgressQuotient(metric=metric, training_metric=training_metric):
            return {metric or VALIDATION_LOSS: 0.0, training_metric: 0.0}
        case _:
            assert_never(stopper)


def after(so_far: Progress, measured: Measurement, direction: Direction, stopper: Stopper) -> Progress:
    """The progress with one more epoch; `direction` is the objective's. KeyError if a watched metric is missing."""
    epoch, loss = measured.epoch, direction.loss(measured.value)
    best, best_epoch = (loss, epoch) if loss < so_far.best or epoch == 1 else (so_far.best, so_far.best_epoch)
    if isinstance(stopper, NoStopper):
        return Progress(epoch, best, best_epoch)
    error = _error(stopper, measured, loss)
    margin = stopper.min_improvement if isinstance(stopper, Patience) else 0.0
    better = epoch == 1 or error < so_far.lowest - margin
    lowest, lowest_epoch = (error, epoch) if better else (so_far.lowest, so_far.lowest_epoch)
    total, strip_lowest, strip_end, rises = so_far.strip_total, so_far.strip_lowest, so_far.strip_end, so_far.rises
    if isinstance(stopper, ProgressQuotient):
        training = _worst_if_not_finite(measured.metrics[stopper.training_metric])
        begins = (epoch - 1) % stopper.strip == 0
        total, strip_lowest = (training, training) if begins else (total + training, min(strip_lowest, training))
    if isinstance(stopper, Rises) and epoch % stopper.strip == 0:
        rose = strip_end is not None and (error > strip_end or error == math.inf)
        strip_end, rises = error, rises + 1 if rose else 0
    return Progress(epoch, best, best_epoch, error, lowest, lowest_epoch, total, strip_lowest, strip_end, rises)


def _error(stopper: Patience | GeneralisationLoss | ProgressQuotient | Rises, measured: Measurement, loss: float) -> float:
    if isinstance(stopper, Patience):
        if stopper.metric is None:
            return loss
        return _worst_if_not_finite((stopper.direction or Direction.MINIMIZE).loss(measured.metrics[stopper.metric]))
    return _worst_if_not_finite(measured.metrics[stopper.metric or VALIDATION_LOSS])


def _worst_if_not_finite(value: float) -> float:
    return value if math.isfinite(value) else math.inf


def why_over(stopper: Stopper, at: Progress) -> str | None:
    """Why the stopper ends a trial after this epoch, with the numbers behind it; None if it goes on."""
    match stopper:
        case NoStopper():
            return None
        case Patience(epochs=epochs):
            return _impatient(stopper, at) if at.epoch - at.lowest_epoch >= epochs else None
        case GeneralisationLoss(threshold=threshold):
            loss = generalisation_loss(at.error, at.lowest)
            return f"GL {loss:.4g} above {threshold:g} {_where(stopper, at)}" if loss > threshold else None
        case ProgressQuotient(threshold=threshold, strip=strip):
            quotient = progress_quotient(at, strip) if at.epoch % strip == 0 else 0.0
            return f"PQ {quotient:.4g} above {threshold:g} {_where(stopper, at)}" if quotient > threshold else None
        case Rises(strips=strips, strip=strip):
            if at.epoch % strip or at.rises < strips:
                return None
            strip_of = f"of {strip} epoch" + ("s" if strip > 1 else "")
            rose = f"{strips} strips {strip_of} in a row" if strips > 1 else f"a strip {strip_of}"
            return f"UP: {rose} ended higher than the one before, {_where(stopper, at)}"
        case _:
            assert_never(stopper)


def _impatient(stopper: Patience, at: Progress) -> str:
    margin = f"by more than {stopper.min_improvement:g} " if stopper.min_improvement else ""
    said = f"no better {stopper.metric or 'value'} {margin}in {stopper.epochs} epochs, at epoch {at.epoch}"
    sign = stopper.direction or Direction.MINIMIZE
    numbers = f": {sign.loss(at.error):.6g}, after {sign.loss(at.lowest):.6g} at epoch {at.lowest_epoch}"
    return said if stopper.metric is None else said + numbers


def _where(stopper: GeneralisationLoss | ProgressQuotient | Rises, at: Progress) -> str:
    metric = stopper.metric or VALIDATION_LOSS
    return f"at epoch {at.epoch}: {metric} {at.error:.6g}, lowest {at.lowest:.6g} at epoch {at.lowest_epoch}"
