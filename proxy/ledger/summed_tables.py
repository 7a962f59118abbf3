"""Tables of sums, by hours or days: hand-written SQL that adds to their rows, and makes those that are missing."""

from django.db.models import Model


def identity_of(model: type[Model]) -> list[str]:
    """Return the columns of a row's primary key."""
    return [str(field.column) for field in model._meta.pk_fields]


def numbers_of(model: type[Model]) -> list[str]:
    """Return the columns that are summed."""
    identity = identity_of(model)
    return [str(field.column) for field in model._meta.concrete_fields if field.column not in identity]


def addition_to(model: type[Model], source: str) -> str:
    """Return the statement that adds rows to a table: a VALUES or SELECT with its identity, then its numbers."""
    table, identity, numbers = model._meta.db_table, identity_of(model), numbers_of(model)
    return (
        f"INSERT INTO {table} ({', '.join([*identity, *numbers])}) {source} ON CONFLICT ({', '.join(identity)}) "
        f"DO UPDATE SET {', '.join(f'{name} = {table}.{name} + excluded.{name}' for name in numbers)}"
    )
