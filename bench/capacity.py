"""`python -m bench.capacity`: what the measurements say of pods, connections and memory, and of the chart."""

import argparse
import json
import math
import sys
from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import yaml
from rich.console import Console

from bench import RESULTS, report, works
from bench.report import Rows

_VALUES = Path(__file__).parent.parent / "charts" / "pricebook" / "values.yaml"
_MOST_AIM = 0.5
"""Of a core: a pod at its aim can take twice as much in the half minute that another one needs to help it."""
_MARGIN = 1.25
_MEMORY_STEP = 32
_OTHER_CONNECTIONS = 2
"""Of migrations, beside those that are reserved."""


@dataclass(frozen=True, slots=True)
class Cost:
    """Processor milliseconds of one request: of Pricebook, and of PostgreSQL."""

    server: float
    database: float


@dataclass(frozen=True, slots=True)
class Users:
    """Who asks for what, and when. All of it is assumed: put your own figures in."""

    a_day: float = 1_000_000
    reads: float = 10
    lists: float = 2
    lookups: float = 1
    busiest_hour: float = 0.12
    burst: float = 3
    writes_per_second: float = 20

    def rates(self) -> dict[str, float]:
        """Requests per second in the busiest moment, by operation."""
        a_second = self.a_day * self.busiest_hour / 3600 * self.burst
        return {
            works.READ: self.reads * a_second,
            works.LIST: self.lists * a_second,
            works.LOOKUP: self.lookups * a_second,
            works.WRITE: self.writes_per_second,
        }


@dataclass(frozen=True, slots=True)
class Chart:
    """What the chart says, of CPU in cores and of memory in MiB."""

    cpu: float
    target_percent: float
    per_pod: float
    memory: float
    pool: int
    import_pool: int
    most_pods: int
    surge_percent: float
    most_connections: int
    reserved: int

    @property
    def aim(self) -> float:
        """Cores that the autoscaler lets a pod use."""
        return self.cpu * self.target_percent / 100

    @property
    def connections_a_pod(self) -> int:
        """For reads, writes, imports and the feed."""
        return 2 * self.pool + self.import_pool + 1


@dataclass(frozen=True, slots=True)
class Need:
    """What a load takes."""

    requests_per_second: float
    server_cores: float
    database_cores: float
    pods: int
    connections: int
    per_pod: float


def need(rates: Mapping[str, float], costs: Mapping[str, Cost], chart: Chart) -> Need:
    """Pods at their aim, one more that may be lost, and the connections of a rolling update.

    In a rolling update as many pods as the surge start, and as many may still terminate.
    """
    server = sum(rate * costs[name].server for name, rate in rates.items()) / 1000
    database = sum(rate * costs[name].database for name, rate in rates.items()) / 1000
    requests = sum(rates.values())
    pods = math.ceil(server / chart.aim) + 1
    surge = math.ceil(pods * chart.surge_percent / 100)
    connections = (pods + 2 * surge) * chart.connections_a_pod + _OTHER_CONNECTIONS + chart.reserved
    return Need(requests, server, database, pods, connections, requests / server * chart.aim)


def memory(idle: float, import_growth: float, imports: int, cache: float) -> int:
    """MiB that a pod should have: what it holds, what each import may add, its cache, and a quarter more."""
    return math.ceil((idle + import_growth * imports + cache) * _MARGIN / _MEMORY_STEP) * _MEMORY_STEP


def costs(measured: Mapping[str, Any], cached_share: float) -> dict[str, Cost]:
    """The cost of each operation; where reads are also cached, of a read of which so many come from the cache."""

    def of(work: str, name: str) -> Cost:
        run = measured[work][name]
        # Seconds for each 1000 requests are milliseconds for each.
        return Cost(run["server_cpu"], run["database_cpu"])

    found = {work: of(work, works.COLD) for work in (works.READ, works.LIST, works.LOOKUP, works.WRITE)}
    for work in (works.READ, works.LIST):
        if works.HOT in measured[work]:
            cold, hot = found[work], of(work, works.HOT)
            found[work] = Cost(
                cached_share * hot.server + (1 - cached_share) * cold.server,
                cached_share * hot.database + (1 - cached_share) * cold.database,
            )
    return found


def read_chart(values: Mapping[str, Any]) -> Chart:
    """From the chart's default values."""
    requests, scaling, database = values["resources"]["requests"], values["autoscaling"], values["database"]
    return Chart(
        cpu=_cores(str(requests["cpu"])),
        target_percent=scaling["averageUtilization"],
        per_pod=values["keda"]["prometheus"]["requestRate"]["perPod"],
        memory=float(str(requests["memory"]).removesuffix("Mi")),
        pool=values["config"]["databasePoolSize"],
        import_pool=values["config"]["databaseImportPoolSize"],
        most_pods=scaling["maxReplicas"],
        surge_percent=float(str(values["maxSurge"]).removesuffix("%")),
        most_connections=database["maxConnections"],
        reserved=database["reservedConnections"],
    )


def _cores(text: str) -> float:
    return float(text.removesuffix("m")) / 1000 if text.endswith("m") else float(text)


def check(chart: Chart, mixed: Need, least_memory: int) -> list[tuple[str, str, str, bool]]:
    """The chart's values beside what follows: name, value, what follows, whether that fits."""
    surge = math.ceil(chart.most_pods * chart.surge_percent / 100)
    connections = (chart.most_pods + 2 * surge) * chart.connections_a_pod + _OTHER_CONNECTIONS + chart.reserved
    return [
        (
            "resources.requests.cpu x autoscaling.averageUtilization",
            f"{chart.cpu:g} cores x {chart.target_percent:g} % = {chart.aim:g}",
            f"at most {_MOST_AIM:g} of a core",
            chart.aim <= _MOST_AIM,
        ),
        (
            "keda.prometheus.requestRate.perPod",
            f"{chart.per_pod:g}",
            f"at most {mixed.per_pod:,.0f}, which take {chart.aim:g} of a core",
            chart.per_pod <= mixed.per_pod,
        ),
        (
            "resources.requests.memory",
            f"{chart.memory:g} MiB",
            f"at least {least_memory} MiB",
            chart.memory >= least_memory,
        ),
        (
            "autoscaling.maxReplicas, config.databasePoolSize",
            f"{chart.most_pods} pods of {chart.connections_a_pod} connections: {connections} in a rolling update",
            f"at most database.maxConnections, {chart.most_connections}",
            connections <= chart.most_connections,
        ),
    ]


def tables(
    measured: Mapping[str, Any], users: Users, cached_share: float, chart: Chart, cache_mib: float
) -> list[tuple[str, Rows]]:
    """All of the arithmetic."""
    of_operation = costs(measured["works"], cached_share)
    rates = users.rates()
    mixed = need(rates, of_operation, chart)
    start = measured["starts"]["gunicorn"]
    least = memory(start["shared_out"], measured["import_grown_mib"], chart.import_pool, cache_mib)
    rows = [
        [
            name,
            f"{cost.server:.2f}",
            f"{cost.database:.2f}",
            report.rate(1000 / cost.server * chart.aim),
            report.rate(1000 / cost.server),
            report.rate(rates[name]),
            f"{rates[name] * cost.server / 1000:.2f}",
            f"{rates[name] * cost.database / 1000:.2f}",
        ]
        for name, cost in of_operation.items()
    ]
    total = f"{mixed.requests_per_second:,.0f}", f"{mixed.server_cores:.2f}", f"{mixed.database_cores:.2f}"
    rows.append(["together", "", "", f"{mixed.per_pod:,.0f}", "", *total])
    headings = (
        "",
        "CPU ms",
        "of PostgreSQL",
        f"per s at {chart.aim:g} cores",
        "per s at a core",
        "per s",
        "cores",
        "of PostgreSQL",
    )
    needs = [
        ("pods, each at its aim, and one more", f"{mixed.pods}"),
        ("connections in a rolling update, without a pooler", f"{mixed.connections}"),
        ("cores of PostgreSQL", f"{mixed.database_cores:.1f}"),
        ("memory of a pod", f"{least} MiB"),
    ]
    return [
        ("What an operation costs, and what the busiest moment takes", Rows(headings, rows)),
        ("What that needs", Rows(("", ""), needs)),
        (
            "The chart's defaults",
            Rows(
                ("value", "default", "follows", "fits"),
                [(*row[:3], "yes" if row[3] else "no") for row in check(chart, mixed, least)],
            ),
        ),
    ]


def main() -> None:
    """Print the arithmetic, and exit with 1 if the chart's defaults do not follow from it."""
    parser = argparse.ArgumentParser(prog="python -m bench.capacity", description="Pods, connections and memory.")
    for one in fields(Users):
        parser.add_argument(f"--{one.name.replace('_', '-')}", type=float, default=one.default)
    parser.add_argument("--cached-share", type=float, default=0.8, help="of reads and lists, where there is a cache")
    parser.add_argument("--page", type=Path, help="a page to write the tables into, between its markers")
    options = parser.parse_args()
    file = RESULTS / "bench.json"
    if not file.exists():
        sys.exit("Nothing was measured yet: make bench")
    measured = json.loads(file.read_text())
    users = Users(**{one.name: getattr(options, one.name) for one in fields(Users)})
    values = yaml.safe_load(_VALUES.read_text())
    chart = read_chart(values)
    cache = values["config"].get("responseCacheBytes", 0) / 2**20
    console = Console(width=max(Console().width, 130))
    sections = tables(measured, users, options.cached_share, chart, cache)
    for title, rows in sections:
        report.show(console, title, rows)
    console.print(measured["facts"], highlight=False, soft_wrap=True)
    if options.page:
        text = "\n\n".join(f"{title}:\n\n{rows.markdown}" for title, rows in sections)
        report.write(options.page, "capacity", f"{measured['facts']}\n\n{text}\n")
    if any(row[-1] == "no" for row in sections[-1][1].rows):
        sys.exit("The chart's defaults do not follow from these figures.")


if __name__ == "__main__":
    main()
