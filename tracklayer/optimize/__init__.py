"""Find the fastest form of a model whose answers stay as right as they were."""

from tracklayer.optimize.choice import Choice, choose
from tracklayer.optimize.holdout import FILES as HOLDOUT
from tracklayer.optimize.holdout import find
from tracklayer.optimize.table import Row, text
from tracklayer.optimize.task import Budget

__all__ = ["HOLDOUT", "Budget", "Choice", "Row", "choose", "find", "text"]
