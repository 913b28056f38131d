"""The bench's arithmetic: what its figures are made of, not what they are."""

import dataclasses

import pytest

from bench import capacity, works
from bench.capacity import Chart, Cost, Need, Users
from bench.goals import Goal, Start, goals
from bench.load import Run, median
from bench.pgbench import answered, literal, parameter
from bench.processes import Stat, family, parse_stat
from bench.report import Rows, figures, rate

RUN = Run(
    requests_per_second=1000,
    p50_milliseconds=2,
    p99_milliseconds=9,
    server_cpu=0.4,
    database_cpu=0.1,
    resident=100,
    shared_out=80,
    failed=0,
)
CHART = Chart(
    cpu=0.5,
    target_percent=80,
    per_pod=100,
    memory=384,
    pool=5,
    import_pool=1,
    most_pods=4,
    surge_percent=25,
    most_connections=100,
    reserved=10,
)


def run(**changes: float) -> Run:
    return dataclasses.replace(RUN, **changes)  # type: ignore[arg-type]  # failed is the one whole number


def test_a_process_may_be_called_anything() -> None:
    stat = "42 (a) (b c) S 7 42 42 0 -1 4194304 1 2 3 4 100 20 3 1 20 0 1 0 55 0 0"
    assert parse_stat(stat) == Stat(parent=7, ticks=124)


def test_a_family_has_all_generations_and_nobody_else() -> None:
    assert family(1, {2: 1, 3: 2, 4: 3, 9: 8}) == {1, 2, 3, 4}


def test_the_median_is_taken_of_each_figure_and_failures_are_summed() -> None:
    found = median(
        [run(requests_per_second=1, failed=1), run(requests_per_second=3), run(requests_per_second=9, failed=2)]
    )
    assert found == run(requests_per_second=3, failed=3)


def test_the_log_of_pgbench() -> None:
    lines = [f"0 {number} {number * 1000} 0 1800000000 1" for number in range(1, 101)]
    found = answered(lines, 4, None)
    assert (found.requests, found.seconds, found.failed) == (100, 4, 0)
    assert found.p50_milliseconds == pytest.approx(50.5)
    assert found.p99_milliseconds == pytest.approx(99.99)


def test_literals() -> None:
    assert [literal(value) for value in (None, 3, "O'Neil", [1, None])] == [
        "NULL",
        "'3'",
        "'O''Neil'",
        "'{\"1\",NULL}'",
    ]


def test_parameters_as_pgbench_writes_them() -> None:
    values = [None, "the item", ["O'Neil", None, "the item"]]
    assert [parameter(value, {"the item": ":item"}) for value in values] == [
        "NULL",
        ":item",
        "ARRAY['O''Neil', NULL, :item]",
    ]


def test_goals_are_ratios_of_what_was_measured_and_no_others() -> None:
    measured = {
        works.READ: {works.TUTORIAL: run(requests_per_second=100), works.COLD: run(requests_per_second=450)},
        works.LIST: {works.POCKETBASE: run(server_cpu=0.9), works.COLD: run(server_cpu=1.9)},
        works.LOOKUP: {works.COLD: run(server_cpu=1.3, database_cpu=0.2)},
    }
    assert [(goal.value, goal.reached) for goal in goals(measured, 0.25, Start(1.2, 130, 110))] == [
        (pytest.approx(4.5), True),
        (pytest.approx(0.5), False),
        (pytest.approx(3), True),
        (0.25, False),
        (1.2, True),
        (110, True),
    ]


def test_at_the_bound_a_goal_is_reached() -> None:
    assert Goal("", 2, 2).reached
    assert Goal("", 2, 2, less=True).reached
    assert not Goal("", 2.1, 2, less=True).reached


def test_a_table_on_a_page() -> None:
    rows = figures({"read": {"bare": [run(requests_per_second=900), run(requests_per_second=1100)]}})
    head, _, section, line = rows.markdown.splitlines()
    assert head.startswith("|  | req/s | range |")
    assert section.startswith("| **read** |")
    assert line == "| bare | 1,000 | 900-1,100 | 2.0 | 9.0 | 0.400 | 0.100 | 2,000 | 100 | 80 | 0 |"
    assert all(text.count("|") == len(rows.headings) + 1 for text in rows.markdown.splitlines())
    assert Rows(("a", "b"), [["1", "2"]]).markdown == "| a | b |\n| --- | ---: |\n| 1 | 2 |"


@pytest.mark.parametrize(("value", "text"), [(12345.6, "12,346"), (99.94, "99.9"), (2.345, "2.35"), (0.5, "0.50")])
def test_rates(value: float, text: str) -> None:
    assert rate(value) == text


def test_users_come_in_their_busiest_hour() -> None:
    rates = Users(a_day=3_600, reads=2, lists=1, lookups=0, busiest_hour=0.5, burst=4, writes_per_second=7).rates()
    assert rates == {works.READ: 4, works.LIST: 2, works.LOOKUP: 0, works.WRITE: 7}


def test_what_a_load_needs() -> None:
    rates = {works.READ: 900.0, works.LIST: 100.0}
    found = capacity.need(rates, {works.READ: Cost(1, 0.5), works.LIST: Cost(3, 2)}, CHART)
    # 1.2 cores at 0.4 each are 3 pods, and one more; in an update one starts, one terminates: 6 x 12 + 2 + 10.
    assert dataclasses.astuple(found) == pytest.approx((1000, 1.2, 0.65, 4, 84, 1000 / 3))


def test_memory_has_a_margin_and_is_rounded_up() -> None:
    assert capacity.memory(100, 50, 2, 56) == 320
    assert capacity.memory(100, 50, 2, 57) == 352


def test_reads_cost_less_where_some_come_from_the_cache() -> None:
    def of(server: float) -> dict[str, float]:
        return {"server_cpu": server, "database_cpu": server / 2}

    names = (works.READ, works.LIST, works.LOOKUP, works.WRITE)
    measured = {name: {works.COLD: of(2)} for name in names}
    assert capacity.costs(measured, 0.75)[works.READ] == Cost(2, 1)
    measured[works.READ][works.HOT] = of(0)
    assert capacity.costs(measured, 0.75)[works.READ] == Cost(0.5, 0.25)
    assert capacity.costs(measured, 0.75)[works.LIST] == Cost(2, 1)


def test_the_chart_is_held_to_what_was_measured() -> None:
    fits = Need(0, 0, 0, 0, 0, per_pod=100)
    assert [row[-1] for row in capacity.check(CHART, fits, 384)] == [True] * 4
    tight = dataclasses.replace(CHART, target_percent=110, most_pods=6)
    assert [row[-1] for row in capacity.check(tight, dataclasses.replace(fits, per_pod=99), 416)] == [False] * 4
