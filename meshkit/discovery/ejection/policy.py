"""When an instance is set aside, for how long, and how many may be at once."""

from __future__ import annotations

import dataclasses
import math

from meshkit.errors import ConfigError
from meshkit.numbers import check_numbers


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class EjectionPolicy:
    """Which instances callers stop calling for what they saw of them.

    An instance that refuses connections, or that is answered for by somebody else, is set aside
    at once. The other reasons, and the defaults of ``failures``, ``interval``, ``volume``,
    ``instances`` and ``deviations``, are those of Envoy's outlier detection and of gRPC's A50
    (which asks for a volume of 100 and takes 10 % of the instances at most; both without a probe
    before the return, and therefore for 30 s at first and 5 minutes at last):
    https://www.envoyproxy.io/docs/envoy/latest/intro/arch_overview/upstream/outlier
    https://github.com/grpc/proposal/blob/master/A50-xds-outlier-detection.md

    Attributes:
        failures: calls in a row that failed or got no answer in time; 0 for never.
        interval: seconds between two comparisons of the instances.
        volume: calls to an instance in the interval, for it to be compared.
        instances: how many have to have that volume for success rates to be compared: of fewer
            than five, none can lie 1.9 standard deviations below the mean.
        deviations: standard deviations by which its success rate is below the mean of all; 0 for
            never. Shed calls count as failed.
        difference: by how much it is below at least, from 0 to 1. Without that, one failed call
            in a thousand would stand out where nobody else has any.
        slowness: its mean latency as a multiple of the median of the others'; 0 for never.
            Neither of the two sources has this.
        delay: seconds by which it is slower at least.
        pause: seconds for which it is set aside the first time; twice as long each time in a
            row. For what comparisons find, at least the interval.
        longest_pause: seconds, in the end.
        share: of the instances, how many may be set aside for other reasons than refusing
            connections, from 0 to 1; rounded down.
        panic: when more than this share deserves it, nobody is set aside for these reasons:
            whatever is wrong, it is not these instances.

    Raises:
        ConfigError: a value is out of its range.
    """

    failures: int = 5
    interval: float = 10.0
    volume: int = 20
    instances: int = 5
    deviations: float = 1.9
    difference: float = 0.05
    slowness: float = 5.0
    delay: float = 0.02
    pause: float = 1.0
    longest_pause: float = 30.0
    share: float = 0.5
    panic: float = 0.5

    def __post_init__(self) -> None:
        check_numbers(self)
        for name in ("failures", "deviations", "delay"):
            self._check(name, 0)
        for name in ("volume", "instances"):
            self._check(name, 1)
        for name in ("interval", "pause", "longest_pause"):
            self._check(name, 0.001, "s")
        for name in ("share", "panic", "difference"):
            self._check(name, 0)
            if getattr(self, name) > 1:
                raise ConfigError(f"EjectionPolicy: {name} is {getattr(self, name):g}, over 1")
        if self.slowness and not 1 < self.slowness < math.inf:
            raise ConfigError(
                f"EjectionPolicy: slowness is {self.slowness:g}; it must be over 1, or 0 for never"
            )
        if self.longest_pause < self.pause:
            raise ConfigError(
                f"EjectionPolicy: longest_pause is {self.longest_pause:g} s, "
                f"shorter than pause ({self.pause:g} s)"
            )

    def _check(self, name: str, least: float, unit: str = "") -> None:
        value = getattr(self, name)
        if not least <= value < math.inf:
            shown = f"{value:g} {unit}".strip()
            raise ConfigError(
                f"EjectionPolicy: {name} is {shown}; it must be at least {least:g} and finite"
            )
