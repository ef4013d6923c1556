"""Several data sets in one epoch, each with its share."""

from collections import Counter
from collections.abc import Iterator
from itertools import cycle, islice

import numpy as np
from torch.utils.data import Sampler


class MixedSampler(Sampler):
    """Indices into data sets laid one after the other; random order from (seed, epoch) alone.

    With shares an epoch is one pass over the first data set, and of every other as many samples as its share says,
    drawn in passes of its own (nothing comes twice before all came once). Without shares it is one pass over all.
    What comes again within an epoch is (index, 1), (index, 2), ..., and `FaceDataset` draws it anew.

    Args:
        sizes: of the data sets. shares: one positive number each, or None.
        world, rank: processes, and which this is; all get equally many indices (some twice where they do not divide).
    """

    def __init__(self, sizes: list[int], shares: list[float] | None, world: int = 1, rank: int = 0, seed: int = 0):
        self.sizes, self.world, self.rank, self.seed, self.epoch = sizes, world, rank, seed, 0
        self.counts = [max(1, round(sizes[0] * share / shares[0])) for share in shares] if shares else list(sizes)

    def set_epoch(self, epoch: int) -> None:
        self.epoch = epoch

    def __len__(self) -> int:
        return -(-sum(self.counts) // self.world)

    def __iter__(self) -> Iterator[int | tuple[int, int]]:
        starts = np.cumsum([0, *self.sizes])
        parts = [start + self._draw(i) for i, start in enumerate(starts[:-1])]
        order = np.random.default_rng((self.seed, self.epoch)).permutation(np.concatenate(parts))
        row: list[int | tuple[int, int]] = []
        times = Counter[int]()
        for index in order.tolist():
            row.append((index, times[index]) if times[index] else index)
            times[index] += 1
        return islice(cycle(row), self.rank, len(self) * self.world, self.world)

    def _draw(self, source: int) -> np.ndarray:
        """This epoch's samples of one data set, a piece of an endless row of passes over it."""
        size, count = self.sizes[source], self.counts[source]
        first, last = self.epoch * count, (self.epoch + 1) * count
        passes = range(first // size, -(-last // size))
        row = np.concatenate([np.random.default_rng((self.seed, source, n)).permutation(size) for n in passes])
        return row[first - passes[0] * size :][:count]
