"""Many rows as the parameters of one statement."""

from typing import Any

from sqlalchemy import TableValuedAlias, bindparam, column, func
from sqlalchemy.dialects.postgresql import ARRAY
from sqlalchemy.types import TypeEngine


def parameter_rows(**columns: tuple[str, TypeEngine[Any]]) -> TableValuedAlias:
    """Rows of parameters that are arrays, with their ``place``, from 1.

    :param columns: for each the name of the parameter and the type of its elements.
    """
    return (
        func.unnest(*(bindparam(name, type_=ARRAY(kind)) for name, kind in columns.values()))
        .table_valued(*(column(name, kind) for name, (_, kind) in columns.items()), with_ordinality="place")
        .render_derived()
    )
