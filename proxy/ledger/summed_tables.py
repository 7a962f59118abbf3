"""Hand-written SQL that adds to tables of hourly or daily sums, and creates the missing rows."""

from django.db.models import Model


def identity_of(model: type[Model]) -> list[str]:
    """Return the columns of the primary key."""
    return [str(field.column) for field in model._meta.pk_fields]


def numbers_of(model: type[Model]) -> list[str]:
    """Return the columns that are summed."""
    identity = identity_of(model)
    return [str(field.column) for field in model._meta.concrete_fields if field.column not in identity]


def addition_to(model: type[Model], source: str) -> str:
    """Return the statement that adds rows to the table of `model`.

    source: a VALUES or SELECT clause with the columns of the primary key, then the summed ones.
    """
    table, identity, numbers = model._meta.db_table, identity_of(model), numbers_of(model)
    return (
        f"INSERT INTO {table} ({', '.join([*identity, *numbers])}) {source} ON CONFLICT ({', '.join(identity)}) "
        f"DO UPDATE SET {', '.join(f'{name} = {table}.{name} + excluded.{name}' for name in numbers)}"
    )
