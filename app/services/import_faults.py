"""What can be wrong with a row of a file that could be read, as SQL for the plan of an import."""

from typing import NamedTuple


class _Error(NamedTuple):
    """An error of a row: when it has it, and the members of the error as expressions of text."""

    condition: str
    column: str
    value: str
    code: str
    message: str


def _errors(*errors: _Error) -> str:
    """The errors of a row as SQL: an array, or null if there are none, which is found out before one is made."""
    found = ", ".join(
        f"CASE WHEN {error.condition} THEN jsonb_build_object('column', {error.column}, 'value', {error.value}, "
        f"'code', '{error.code}', 'message', {error.message}) END"
        for error in errors
    )
    any_of_them = " OR ".join(f"({error.condition})" for error in errors)
    return f"CASE WHEN {any_of_them} THEN to_jsonb(array_remove(ARRAY[{found}], NULL)) END"


_KEY = "CASE WHEN sku IS NULL THEN 'gtin' ELSE 'sku' END"
_INSTANT = '\'YYYY-MM-DD"T"HH24:MI:SS.US"Z"\''


BEFORE_PRICES = _errors(
    _Error(
        "subject_id IS NULL AND NOT :create",
        column=_KEY,
        value="coalesce(sku, gtin)",
        code="unknown-item",
        message="'names no item, and new ones are not to be created'",
    ),
    _Error(
        "subject_id IS NULL AND :create AND (new_item ->> 'name') IS NULL",
        column="'name'",
        value="NULL",
        code="missing",
        message="'is required, because the item is new'",
    ),
    _Error(
        "archived_at IS NOT NULL",
        column=_KEY,
        value="coalesce(sku, gtin)",
        code="item-archived",
        message="'is archived and takes no new prices'",
    ),
    _Error(
        "sku IS NOT NULL AND holder_id IS DISTINCT FROM subject_id AND holder_id IS NOT NULL",
        column="'gtin'",
        value="gtin",
        code="gtin-of-another-item",
        message="'belongs to another item' || coalesce(', with the sku ' || holder_sku, '')",
    ),
    _Error(
        "subject_id IS NULL AND is_contested",
        column="'gtin'",
        value="gtin",
        code="duplicate-gtin",
        message="'is given to more than one new item of this file'",
    ),
    _Error(
        "subject_id IS NULL AND two_gtins",
        column="'gtin'",
        value="gtin",
        code="conflicting-gtin",
        message="'differs from that of another row for the same new item'",
    ),
    _Error(
        "twins > 1",
        column=_KEY,
        value="coalesce(sku, gtin)",
        code="duplicate-row",
        message="'is there ' || twins || ' times for the same quantity and interval, first in line ' || first_line",
    ),
    _Error(
        "ends <= starts",
        column="'valid_to'",
        value=f"to_char(ends AT TIME ZONE 'UTC', {_INSTANT})",
        code="empty-interval",
        message="'must be later than the beginning'",
    ),
)
"""What can be wrong with a row beside the others and the items."""

WITH_PRICES = _errors(
    _Error(
        "tax IS NOT NULL AND NOT tax_stated AND (amount, per) IS DISTINCT FROM (old_amount, old_per)",
        column="'tax'",
        value="NULL",
        code="tax-missing",
        message="'is required, or tax_rate: the price before states its tax as an amount'",
    ),
    _Error(
        "tax_included AND tax > amount",
        column="'tax'",
        value="trim_scale(tax)::text",
        code="tax-exceeds-amount",
        message="'must not exceed the amount that includes it'",
    ),
    _Error(
        "abs(percent) > :max_change_percent",
        column="'amount'",
        value="trim_scale(amount)::text",
        code="change-too-large",
        message=(
            "'changes the price by ' || trim_scale(percent) || ' %, from ' || trim_scale(old_amount) || "
            "CASE WHEN old_per <> 1 THEN ' per ' || trim_scale(old_per) ELSE '' END || "
            "': more than max_change_percent allows'"
        ),
    ),
)
"""What can be wrong beside the price that stands."""
