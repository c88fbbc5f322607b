"""The banks of NOTE and RoTTA as their papers tell them: plain lists for each class, one sample at a time."""

from __future__ import annotations

import math

import torch


class Balanced:
    """Prediction-balanced reservoir sampling; draws from `generator`: a class of the largest, an item, a coin."""

    def __init__(self, capacity, classes, generator):
        self.capacity, self.generator = capacity, generator
        self.lists = {c: [] for c in range(classes)}
        self.seen = [0] * classes

    def _drop_one(self, c):
        del self.lists[c][int(torch.randint(len(self.lists[c]), (), generator=self.generator))]

    def add(self, item, c, u):
        self.seen[c] += 1
        sizes = {k: len(v) for k, v in self.lists.items()}
        if sum(sizes.values()) < self.capacity:
            self.lists[c].append(item)
            return
        largest = [k for k in self.lists if sizes[k] == max(sizes.values())]
        if c not in largest:
            self._drop_one(largest[int(torch.randint(len(largest), (), generator=self.generator))])
            self.lists[c].append(item)
        elif float(torch.rand((), generator=self.generator)) < sizes[c] / self.seen[c]:
            self._drop_one(c)
            self.lists[c].append(item)

    def items(self):
        return [item for c in self.lists.values() for item in c]


class Timely:
    """Category-balanced sampling by timeliness and uncertainty."""

    def __init__(self, capacity, classes, timeliness=1.0, uncertainty=1.0):
        self.capacity, self.classes = capacity, classes
        self.timeliness, self.uncertainty = timeliness, uncertainty
        self.lists = {c: [] for c in range(classes)}  # of [item, u, age]

    def _score(self, age, u):
        old = self.timeliness / (1 + math.exp(-age / self.capacity))
        return old + self.uncertainty * u / math.log(self.classes)

    def _make_room(self, candidates, score):
        """Whether there is room now: the worst candidate is gone if it was worse than the newcomer."""
        worst = None
        for c in candidates:
            for number, (_, u, age) in enumerate(self.lists[c]):
                found = self._score(age, u)
                if worst is None or found >= worst[0]:
                    worst = (found, c, number)
        if worst is None:
            return True
        if worst[0] > score:
            del self.lists[worst[1]][worst[2]]
            return True
        return False

    def add(self, item, c, u):
        total = sum(len(v) for v in self.lists.values())
        if len(self.lists[c]) < self.capacity / self.classes:
            longest = max(len(v) for v in self.lists.values())
            all_longest = [k for k, v in self.lists.items() if len(v) == longest]
            accepted = total < self.capacity or self._make_room(all_longest, self._score(0, u))
        else:
            accepted = self._make_room([c], self._score(0, u))
        if accepted:
            self.lists[c].append([item, u, 0])
        for entries in self.lists.values():
            for entry in entries:
                entry[2] += 1

    def items(self):
        return [entry[0] for c in self.lists.values() for entry in c]

    def ages(self):
        return [entry[2] for c in self.lists.values() for entry in c]


def uncertainty(row):
    """`-sum_c p_c ln(p_c + 1e-6)` of one row of logits, in Python's floats."""
    z = [float(v) for v in row]
    total = sum(math.exp(v - max(z)) for v in z)
    p = [math.exp(v - max(z)) / total for v in z]
    return -sum(v * math.log(v + 1e-6) for v in p)
