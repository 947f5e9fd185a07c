"""Compute every headline figure of a report and its bootstrap interval again from predictions.parquet, by code that shares nothing with datagen."""

import sys

import numpy as np
import pandas as pd

DRAWS, KEYS = 2000, ["set", "arm", "repeat"]


def correct(rows: pd.DataFrame) -> np.ndarray:
    """Return bool [repeats, images]; every repeat has the images in the same order."""
    return np.stack([(one.label.astype(str) == one.predicted.astype(str)).to_numpy() for _, one in rows.groupby("repeat", sort=True)])


def interval(values: np.ndarray, groups: np.ndarray, rng: np.random.Generator) -> str:
    """Return the mean of values [repeats, images] and the ends of its 95 % interval; repeats, and images or groups of them, are drawn with replacement."""
    codes, count = np.unique(groups, return_inverse=True)[1], len(np.unique(groups))
    sums, sizes = np.stack([np.bincount(codes, row, count) for row in values]), np.bincount(codes)
    means = []
    for _ in range(DRAWS):
        units, repeats = rng.integers(0, count, count), rng.integers(0, len(values), len(values))
        means.append(sums[repeats][:, units].sum(axis=1).mean() / sizes[units].sum())
    low, high = np.quantile(means, [0.025, 0.975])
    return f"{values.mean():+.6f} {low:+.6f} {high:+.6f}"


def main() -> None:
    """Print one line an arm and one a difference of two arms: set, name, mean, low, high."""
    table, rng = pd.read_parquet(sys.argv[1]), np.random.default_rng(0)
    arms = {(str(of), str(arm)): rows for (of, arm), rows in table.groupby(KEYS[:2], sort=False, observed=True)}
    first = next(iter(arms.values()))
    first = first[first.repeat == first.repeat.iloc[0]]
    groups = first.group.astype(object).where(first.group.notna(), [f"image {i}" for i in range(len(first))]).to_numpy().astype(str)
    right = {key: correct(rows) for key, rows in arms.items()}
    for (of, arm), values in right.items():
        print(f"{of or '-'} {arm.replace(' ', '_')} {interval(values, groups, rng)}")
    pairs = list(right)
    for of, better in pairs:
        for other, base in pairs if better in {"both", "synthetic", "classical", "native"} else ():
            if other in {"", of} and base in {"real", "classical", "weighted", "oversampled"} and base != better and (better == "both" or base == "real"):
                repeats = min(len(right[of, better]), len(right[other, base]))
                print(f"{of or '-'} {better}-{base} {interval(right[of, better][:repeats] * 1.0 - right[other, base][:repeats], groups, rng)}")


if __name__ == "__main__":
    main()
