"""Training: a Learner with a live progress bar, metrics, callbacks and checkpoints."""

from chainrule.train.callbacks import Callback, CSVLogger, EarlyStopping, SaveBest, Schedule
from chainrule.train.checkpoint import load_checkpoint, save_checkpoint
from chainrule.train.history import History
from chainrule.train.learner import Batch, Learner
from chainrule.train.metrics import Metric, R2Score, accuracy, mean_absolute_error, mean_squared_error, r2_score
from chainrule.train.progress import Progress

__all__ = [
    "Batch", "History", "Learner",
    "Callback", "CSVLogger", "EarlyStopping", "SaveBest", "Schedule",
    "Metric", "R2Score", "accuracy", "mean_absolute_error", "mean_squared_error", "r2_score",
    "Progress", "load_checkpoint", "save_checkpoint",
]  # fmt: skip
