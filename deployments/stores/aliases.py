"""Aliases of models: rows, and what a switch makes of one."""

from sqlalchemy import Connection, delete, insert, select

from deployments.errors import Conflict
from deployments.stores import schema
from deployments.stores.ids import microseconds
from deployments.stores.model_rows import now
from deployments.types import WHOLE, Alias, AliasTarget, SwitchOrder


def switched(before: Alias | None, order: SwitchOrder) -> Alias:
    """Return the alias after an order; a share of the requests is taken from its main target.

    Raises:
        Conflict: there is nothing to take a share from.
    """
    whole = Alias(order.alias, (AliasTarget(order.to, WHOLE),))
    if order.canary_percent == WHOLE:
        return whole
    others = [one for one in before.targets if one.model != order.to] if before else []
    if not others:
        if before is not None:
            return whole
        raise Conflict("a canary needs an alias that names another model already")
    rest = max(others, key=lambda one: one.percent).model
    share = AliasTarget(order.to, order.canary_percent)
    return Alias(order.alias, (AliasTarget(rest, WHOLE - order.canary_percent), share))


def aliases_of(connection: Connection) -> dict[str, Alias]:
    """Return every alias by its name."""
    rows = connection.execute(select(schema.model_aliases)).all()
    return {
        row.name: Alias(row.name, tuple(AliasTarget(*target) for target in row.targets))
        for row in rows
    }


def named_by(connection: Connection) -> set[str]:
    """Return the ids of the models that some alias names."""
    return {one.model for alias in aliases_of(connection).values() for one in alias.targets}


def write_alias(connection: Connection, alias: Alias) -> None:
    """Put an alias in place of what it was; one without targets is gone."""
    table = schema.model_aliases
    connection.execute(delete(table).where(table.c.name == alias.name))
    if alias.targets:
        targets = [[one.model, one.percent] for one in alias.targets]
        values = {"name": alias.name, "targets": targets, "changed_at": microseconds(now())}
        connection.execute(insert(table).values(values))


def forget_in_aliases(connection: Connection, model: str) -> None:
    """Take a model out of every alias; another target of the alias has its share, too."""
    for alias in aliases_of(connection).values():
        left = [one.model for one in alias.targets if one.model != model]
        if len(left) < len(alias.targets):
            targets = tuple(AliasTarget(one, WHOLE) for one in left[:1])
            write_alias(connection, Alias(alias.name, targets))
