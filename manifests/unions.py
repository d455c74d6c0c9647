"""Disjoint sets: what belongs together because a chain of pairs joins it."""

from __future__ import annotations


class Unions:
    """Disjoint sets of names; a set goes by its smallest name."""

    def __init__(self) -> None:
        self._parents: dict[str, str] = {}

    def find(self, name: str) -> str:
        """Smallest name of the set that a name is in; a name that was joined to none is alone."""
        path = []
        while (parent := self._parents.get(name, name)) != name:
            path.append(name)
            name = parent
        for passed in path:
            self._parents[passed] = name
        return name

    def join(self, first: str, second: str) -> None:
        """Make one set of the sets of two names."""
        small, large = sorted((self.find(first), self.find(second)))
        if small != large:
            self._parents[large] = small
