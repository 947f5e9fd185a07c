"""Whether distances to synthetic images tell training images from unseen ones: curve and rate at few false alarms."""

from __future__ import annotations

import math

import numpy as np
from scipy import stats

from datagen.evaluation import statistics
from datagen.evaluation.statistics import Interval

RATE = 0.01
"""of false alarms"""


def curve(members: np.ndarray, others: np.ndarray) -> Interval:
    """Return the area under the curve, 0 to 1: how often a member lies nearer than a non-member, ties half; 0.5 is chance.

    Interval: DeLong, DeLong & Clarke-Pearson 1988, Biometrics 44, eq. 5 to 8.

    Args:
        members: float [M], distances of training images to the nearest synthetic one, at least 2.
        others: float [N], those of unseen images, at least 2.
    """
    m, n = len(members), len(others)
    ranks = stats.rankdata(np.concatenate([members, others]))
    of_members = 1 - (ranks[:m] - stats.rankdata(members)) / n
    of_others = (ranks[m:] - stats.rankdata(others)) / m
    area = float(of_members.mean())
    error = math.sqrt(of_members.var(ddof=1) / m + of_others.var(ddof=1) / n)
    return Interval(area, max(0.0, area - statistics.Z * error), min(1.0, area + statistics.Z * error))


def rate(members: np.ndarray, others: np.ndarray) -> Interval:
    """Return the share of members nearer than the first percentile of non-members (true positives at 1 % false ones); NaN with fewer than 100 of those.

    Carlini et al. 2022 (arXiv 2112.03570), section II-C. The interval is Wilson's over the members alone.

    Args:
        members, others: as for `curve`.
    """
    if len(others) < 1 / RATE:
        return Interval(math.nan, math.nan, math.nan)
    threshold = np.sort(others)[math.floor(RATE * len(others))]
    return statistics.wilson(float((members < threshold).mean()), len(members))
