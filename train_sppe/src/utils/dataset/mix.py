"""Several data sets in one epoch, each with its share."""

from collections import Counter
from collections.abc import Iterator
from itertools import cycle, islice

import numpy as np
from torch.utils.data import Sampler


class MixedSampler(Sampler):
    """Indices into data sets laid one after the other; random order from (seed, epoch) alone.

    With shares an epoch is one pass over the first data set, and of every other as many samples as its share says,
    drawn in passes of its own (nothing comes again before all have come). Without shares it is one pass over all.
    What comes again within an epoch is (index, 1), (index, 2), ..., and `FaceDataset` draws it anew.

    Args:
        copies: for each data set, how often each of its samples comes in a pass, (N,) int. shares: one positive number
            each, or None.
        world, rank: processes, and which this is; all get equally many indices (some twice where they do not divide).
    """

    def __init__(
        self, copies: list[np.ndarray], shares: list[float] | None, world: int = 1, rank: int = 0, seed: int = 0
    ):
        starts = np.cumsum([0, *map(len, copies)])
        self.passes = [start + np.repeat(np.arange(len(times)), times) for start, times in zip(starts, copies)]
        self.world, self.rank, self.seed, self.epoch = world, rank, seed, 0
        sizes = [len(samples) for samples in self.passes]
        self.counts = [max(1, round(sizes[0] * share / shares[0])) for share in shares] if shares else sizes

    def set_epoch(self, epoch: int) -> None:
        self.epoch = epoch

    def __len__(self) -> int:
        return -(-sum(self.counts) // self.world)

    def __iter__(self) -> Iterator[int | tuple[int, int]]:
        parts = [self._draw(source) for source in range(len(self.passes))]
        order = np.random.default_rng((self.seed, self.epoch)).permutation(np.concatenate(parts))
        row: list[int | tuple[int, int]] = []
        times = Counter[int]()
        for index in order.tolist():
            row.append((index, times[index]) if times[index] else index)
            times[index] += 1
        return islice(cycle(row), self.rank, len(self) * self.world, self.world)

    def _draw(self, source: int) -> np.ndarray:
        """This epoch's samples of one data set, a piece of an endless row of passes over it."""
        samples, count = self.passes[source], self.counts[source]
        first, last = self.epoch * count, (self.epoch + 1) * count
        numbers = range(first // len(samples), -(-last // len(samples)))
        row = np.concatenate([np.random.default_rng((self.seed, source, n)).permutation(samples) for n in numbers])
        return row[first - numbers[0] * len(samples) :][:count]
