"""What a plan has to keep to, with the path of every field that does not."""

import re
from collections.abc import Iterable, Iterator
from typing import Final

from services.billing.domain.customer import currency_violations, refuse, text_violations
from services.billing.domain.plan import Component, FlatFee, Graduated, Limit, PerUnit, PlanTerms, Tier
from services.kit.errors import FieldViolation

MAX_COMPONENTS: Final = 50
MAX_TIERS: Final = 100
MAX_LIMITS: Final = 100
MAX_THRESHOLD: Final = 1_000
_NAME: Final = re.compile(r"[a-z][a-z0-9_.-]{0,62}", re.ASCII)


def check(terms: PlanTerms) -> None:
    """Refuse a plan that cannot be priced.

    Raises:
        InvalidArgument: naming every field that is wrong.
    """
    refuse(list(_plan(terms)))


def _plan(terms: PlanTerms) -> Iterator[FieldViolation]:
    yield from _name("plan.id", terms.id)
    yield from text_violations("plan.display_name", terms.display_name)
    yield from currency_violations("plan.currency", terms.currency)
    if not 1 <= len(terms.components) <= MAX_COMPONENTS:
        yield FieldViolation("plan.components", f"{len(terms.components)} given; 1 to {MAX_COMPONENTS} are allowed")
    if len(terms.limits) > MAX_LIMITS:
        yield FieldViolation("plan.limits", f"{len(terms.limits)} given; at most {MAX_LIMITS} are allowed")
    for index, component in enumerate(terms.components):
        yield from _component(f"plan.components[{index}]", component)
    yield from _repeated("plan.components[{}].id", (component.id for component in terms.components))
    for index, limit in enumerate(terms.limits):
        yield from _limit(f"plan.limits[{index}]", limit)
    yield from _repeated("plan.limits[{}].meter", (limit.meter for limit in terms.limits))


def _component(path: str, component: Component) -> Iterator[FieldViolation]:
    yield from _name(f"{path}.id", component.id)
    yield from text_violations(f"{path}.display_name", component.display_name)
    match component.charge:
        case FlatFee(amount):
            if amount < 0:
                yield FieldViolation(f"{path}.flat_fee.amount", f"{amount} is negative; the least is 0")
        case PerUnit() as charge:
            yield from _metered(f"{path}.per_unit", charge)
        case Graduated() as charge:
            yield from _metered(f"{path}.graduated", charge)
            yield from _tiers(f"{path}.graduated.tiers", charge.tiers)


def _metered(path: str, charge: PerUnit | Graduated) -> Iterator[FieldViolation]:
    yield from _name(f"{path}.meter", charge.meter)
    if charge.per <= 0:
        yield FieldViolation(f"{path}.per", "must be above 0; leave it out for a price per unit")


def _tiers(path: str, tiers: tuple[Tier, ...]) -> Iterator[FieldViolation]:
    if not 1 <= len(tiers) <= MAX_TIERS:
        yield FieldViolation(path, f"{len(tiers)} given; 1 to {MAX_TIERS} are allowed")
    below = None
    for index, tier in enumerate(tiers):
        field = f"{path}[{index}].up_to"
        last = index == len(tiers) - 1
        if tier.up_to is None:
            if not last:
                yield FieldViolation(field, "is missing; only the last tier has no bound")
            continue
        if last:
            yield FieldViolation(field, f"{tier.up_to:f} bounds the last tier, so that more had no price; leave it out")
        if tier.up_to <= (below or 0):
            yield FieldViolation(field, f"{tier.up_to:f} is not above {below or 0:f}; bounds grow from tier to tier")
        below = tier.up_to


def _limit(path: str, limit: Limit) -> Iterator[FieldViolation]:
    yield from _name(f"{path}.meter", limit.meter)
    for index, threshold in enumerate(limit.thresholds):
        if not 1 <= threshold <= MAX_THRESHOLD:
            yield FieldViolation(
                f"{path}.thresholds[{index}]", f"{threshold} is no percentage from 1 to {MAX_THRESHOLD}"
            )
    yield from _repeated(path + ".thresholds[{}]", (str(threshold) for threshold in limit.thresholds))


def _name(field: str, name: str) -> Iterator[FieldViolation]:
    if not _NAME.fullmatch(name):
        yield FieldViolation(
            field, f"{name[:80]!r} is no name; use a lower-case letter, then at most 62 of a-z, 0-9, '_', '-', '.'"
        )


def _repeated(field: str, names: Iterable[str]) -> Iterator[FieldViolation]:
    seen: set[str] = set()
    for index, name in enumerate(names):
        if name in seen:
            yield FieldViolation(field.format(index), f"{name!r} is there twice; each may be there once")
        seen.add(name)
