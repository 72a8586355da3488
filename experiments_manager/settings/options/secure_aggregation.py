"""The option `secure_aggregation`: what it may be, and with what it goes together."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

from pydantic import Field

from experiments_manager.settings.options.options import Options, option

SECURE_STRATEGIES = ("FedAvg", "FedProx", "FedAvgM", "FedAdam", "FedYogi", "FedAdagrad")
"""Those that work with the mean of the clients' weights alone."""
LEAST_CLIENTS = 3
_PLACE = "federated['secure_aggregation']"


class SecureAggregation(Options):
    """How updates are masked by SecAgg+ (Bell et al. 2020); names are those of Flower's `SecAggPlusWorkflow`.

    Attributes:
        num_shares: Among how many clients each splits its secrets: a number, or the share of all that take part.
        reconstruction_threshold: How many of these must stay until the end: a number, or a share of `num_shares`.
        clipping_range: The largest change of a weight in a round; a client with a larger one is left out.
        quantization_range: How many steps changes are rounded to.
        modulus_range: What masks are drawn from; a power of two.
    """

    num_shares: Annotated[int, Field(ge=3)] | Annotated[float, Field(gt=0, le=1)] = option(
        1.0, "a number of clients from 3 on, or a share of all above 0"
    )
    reconstruction_threshold: Annotated[int, Field(ge=2)] | Annotated[float, Field(gt=0.5, le=1)] = option(
        0.67, "a number of shares from 2 on, or a share of them above 0.5"
    )
    clipping_range: Annotated[float, Field(gt=0)] = option(8.0, "a number above 0")
    quantization_range: Annotated[int, Field(ge=2)] = option(2**22, "an integer of at least 2")
    modulus_range: Annotated[int, Field(ge=4, le=2**32)] = option(2**32, "a power of two up to 2**32")

    @classmethod
    def of(cls, federated: Mapping[str, Any]) -> SecureAggregation | None:
        """Return what a checked setting asks for; `None` where it asks for no secure aggregation."""
        asked = federated.get("secure_aggregation")
        if not asked and not isinstance(asked, Mapping):
            return None
        return cls(**(asked if isinstance(asked, Mapping) else {}))

    def for_clients(self, clients: int) -> tuple[int, int]:
        """Return into how many shares so many clients split their secrets, and how many of them are needed.

        They are those that Flower's workflow would take, and more than half of the shares: with fewer, a server that
        tells two halves different lists of who is there could take both masks off a client.
        """
        asked = self.num_shares
        shares = min(clients, asked if isinstance(asked, int) else max(LEAST_CLIENTS, round(asked * clients)))
        if shares < clients and shares % 2 == 0:
            shares += 1  # a client, and as many on each side of it
        wanted = self.reconstruction_threshold
        needed = wanted if isinstance(wanted, int) else round(wanted * shares)
        return shares, min(shares, max(needed, shares // 2 + 1))


def secure_aggregation_problems(federated: Mapping[str, Any], name: Any, least: Any) -> list[str]:
    """Return everything that is wrong with `federated['secure_aggregation']`, a sentence each.

    Args:
        federated: The setting.
        name: Of the strategy.
        least: The setting `min_clients`.
    """
    asked = federated.get("secure_aggregation")
    if asked is None or asked is False:
        return []
    if asked is not True and not isinstance(asked, Mapping):
        return [f"{_PLACE} is wrong. Expected True, False or a dictionary of options, got {asked!r}."]
    options = {} if asked is True else dict(asked)
    problems = _problems_of_options(options)
    if name not in SECURE_STRATEGIES:
        problems.append(
            f"{_PLACE} cannot be used with the strategy {name!r}, which looks at the replies of single clients. "
            f"Expected one of {', '.join(SECURE_STRATEGIES)}. Choose one of these, or leave secure_aggregation out."
        )
    privacy = federated.get("differential_privacy")
    if isinstance(privacy, Mapping) and privacy.get("side", "server") != "local":
        problems.append(
            f"{_PLACE} cannot be used with differential_privacy of the side {privacy.get('side', 'server')!r}, whose "
            "server looks at single updates or how they were clipped. Expected the side 'local'. Set it, or leave one "
            "of them out."
        )
    if isinstance(least, int) and least < LEAST_CLIENTS:
        problems.append(
            f"federated['min_clients'] is too small for secure_aggregation. Expected at least {LEAST_CLIENTS}, got "
            f"{least}: of two clients each knows the other's update when it knows their mean."
        )
    return problems


def _problems_of_options(options: Mapping[str, Any]) -> list[str]:
    problems = list(SecureAggregation.problems(options, f"{_PLACE}['{{}}']").values())
    if problems:
        return problems
    made = SecureAggregation(**options)
    if made.modulus_range & (made.modulus_range - 1) or made.modulus_range <= made.quantization_range:
        problems.append(
            f"{_PLACE}['modulus_range'] is wrong. Expected a power of two above quantization_range = "
            f"{made.quantization_range}, got {made.modulus_range}."
        )
    shares, threshold = made.num_shares, made.reconstruction_threshold
    if isinstance(shares, int) and isinstance(threshold, int) and threshold > shares:
        problems.append(
            f"{_PLACE}['reconstruction_threshold'] is wrong. Expected at most num_shares = {shares}, got {threshold}."
        )
    return problems
