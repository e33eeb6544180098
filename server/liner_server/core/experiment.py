"""Which variant of which experiment a track belongs to: the same one every time.

A track's place in [0, 1) is a hash of the experiment's name and salt and of what names the track,
so a retry, another server or another day never moves it to another variant. Where several
experiments run, a second and independent place, the same for all of them, says which one may have
the track: each owns a part of the population, so no track is ever in two.
"""

import hashlib
import itertools
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Self

CONTROL, TREATMENT = "control", "experimental"
"""The variant that everything stays with, and the usual name of the one that is tried."""

EXPERIMENTAL = "experimental"
"""Name of the provider that is tried."""


@dataclass(frozen=True, kw_only=True)
class Variant:
    """One way to answer that is tried."""

    name: str = TREATMENT
    model: str = EXPERIMENTAL
    """Name of the provider that takes the primary's place."""

    traffic: float = 0.1
    """Its share of the experiment's tracks, 0 to 1."""


@dataclass(frozen=True, kw_only=True)
class Assignment:
    """What was drawn for one track."""

    experiment: str
    variant: str
    model: str
    """Provider to ask first; empty for the control."""
    allocation: str
    """The shares in force, as rows keep them: "control=0.9,experimental=0.1"."""
    shadow: bool


@dataclass(frozen=True, kw_only=True)
class Experiment:
    """Models tried on shares of the tracks."""

    name: str
    """Names the experiment in answers; another name draws other tracks."""

    variants: Sequence[Variant] = (Variant(),)
    """What is tried; the shares sum to at most 1, and the control has the rest."""

    salt: str = ""
    """Another salt draws other tracks under the same name."""

    population: tuple[float, float] = (0.0, 1.0)
    """The part of all tracks that it may have: from, up to and without."""

    excluded: Collection[str] = field(default=frozenset(), repr=False)
    """track_ids that take part in no experiment."""

    shadow: bool = False
    """Ask the variants' models besides the usual ones, but never use what they say."""

    @property
    def running(self) -> bool:
        """Whether any variant gets tracks."""
        return any(variant.traffic > 0 for variant in self.variants)

    @property
    def allocation(self) -> str:
        """The shares in force, the control's first, in a form that is equal for equal shares."""
        rest = 1 - sum(variant.traffic for variant in self.variants)
        shares = [(CONTROL, max(0.0, rest)), *((v.name, v.traffic) for v in self.variants)]
        return ",".join(f"{name}={share:.6g}" for name, share in shares)

    def with_traffic(self, shares: Mapping[str, float]) -> Self:
        """Return the experiment with other shares for the variants named."""
        changed = [replace(v, traffic=shares.get(v.name, v.traffic)) for v in self.variants]
        return replace(self, variants=tuple(changed))

    def assign(self, unit: str) -> Assignment | None:
        """Return what a track gets, or None if it is none of this experiment's.

        `unit` is its track_id, or a digest of its content.
        """
        low, high = self.population
        if not self.running or unit in self.excluded:
            return None
        # The same place for every experiment: their populations do not overlap, so neither do they.
        if (low > 0 or high < 1) and not low <= place("population", "", unit) < high:
            return None
        drawn = self.variant(unit)
        return Assignment(
            experiment=self.name,
            variant=drawn,
            model=next((v.model for v in self.variants if v.name == drawn), ""),
            allocation=self.allocation,
            shadow=self.shadow,
        )

    def variant(self, unit: str) -> str:
        """Return the name of a track's variant, whatever the population.

        Each variant has an equal part of [0, 1) for its own and fills it from below; what it gets
        beyond that lies at the ends of the others' parts, the last one's first. So raising a share
        takes tracks from the control alone, and stopping a variant gives its tracks to nobody
        else. Of three variants or more that holds as long as none has more than its part.
        """
        parts = len(self.variants)
        drawn = self.place(unit) * parts
        home = min(int(drawn), parts - 1)
        used = [min(1.0, variant.traffic * parts) for variant in self.variants]
        if drawn - home < used[home]:
            return self.variants[home].name
        # How much of what no variant has of its own lies above this place.
        above = home + 1 - drawn + sum(1 - part for part in used[home + 1 :])
        for variant, part in zip(self.variants, used, strict=True):
            above -= variant.traffic * parts - part
            if above <= 0:
                return variant.name
        return CONTROL

    def place(self, unit: str) -> float:
        """Return where a track stands in [0, 1)."""
        return place(self.name, self.salt, unit)


def place(name: str, salt: str, unit: str) -> float:
    """Return where a unit stands in [0, 1) for a name and a salt."""
    # The lengths in front keep name, salt and unit from running into each other.
    text = f"{len(name)}:{name}:{len(salt)}:{salt}:{unit}" if salt else f"{len(name)}:{name}:{unit}"
    # A lone surrogate cannot be encoded; it can come from JSON and must not fail an answer.
    digest = hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=8)
    # As many bits as a float holds: of more, the highest would be rounded to 1.
    return (int.from_bytes(digest.digest()) >> 11) / 2**53


def assign(experiments: Sequence[Experiment], unit: str) -> Assignment | None:
    """Return what a track gets: of the experiments that may have it the first, or None."""
    for experiment in experiments:
        found = experiment.assign(unit)
        if found is not None:
            return found
    return None


def overlapping(experiments: Sequence[Experiment]) -> tuple[str, str] | None:
    """Return two experiments that could have the same track, or None if there are none."""
    ordered = sorted(experiments, key=lambda one: one.population)
    for one, following in itertools.pairwise(ordered):
        if following.population[0] < one.population[1]:
            return one.name, following.name
    return None
