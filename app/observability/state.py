"""Prometheus metrics of what is the case now, read when they are scraped. None of it asks the database."""

from collections.abc import Iterator
from dataclasses import dataclass

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric

from app.database import Database
from app.follower import Follower
from app.keyring import KeyRing
from app.observability.ledger_watch import LedgerWatch
from app.readiness import Readiness
from app.response_cache import ResponseCache
from app.traffic import Traffic


@dataclass(frozen=True, eq=False)
class StateCollector:
    """Reads the live objects of one application. ``info`` names its version, schema and server."""

    info: dict[str, str]
    readiness: Readiness
    traffic: Traffic
    database: Database
    watch: LedgerWatch
    follower: Follower
    keys: KeyRing
    responses: ResponseCache

    def collect(self) -> Iterator[Metric]:
        """The metrics as they are now."""
        info = GaugeMetricFamily("pricebook_info", "What runs here; always 1.", labels=list(self.info))
        info.add_metric(list(self.info.values()), 1)
        yield info
        yield GaugeMetricFamily("pricebook_ready", "Whether /readyz says that requests may come.", self.readiness.ready)
        yield from self._traffic()
        yield from self._pools()
        yield from self._ledger()
        yield from self._feed()
        yield GaugeMetricFamily("pricebook_keys", "Keys in force that this process knows.", len(self.keys))
        yield GaugeMetricFamily(
            "pricebook_response_cache_bytes", "Bytes of answers kept in memory, about.", self.responses.bytes
        )
        yield GaugeMetricFamily(
            "pricebook_response_cache_limit_bytes", "Bytes that they may take.", self.responses.max_bytes
        )

    def _traffic(self) -> Iterator[Metric]:
        traffic = self.traffic
        yield GaugeMetricFamily("pricebook_draining", "Whether the stop has begun.", traffic.draining)
        yield GaugeMetricFamily(
            "pricebook_requests_in_flight",
            "Requests being served, without those that wait for changes.",
            traffic.in_flight,
        )
        yield GaugeMetricFamily(
            "pricebook_requests_limit", "Requests in flight beyond which more are refused.", traffic.limit
        )
        yield CounterMetricFamily(
            "pricebook_requests_shed",
            "Requests refused for that limit, or those of waiters and connections.",
            traffic.shed,
        )

    def _pools(self) -> Iterator[Metric]:
        connections = GaugeMetricFamily(
            "pricebook_database_pool_connections", "Open connections to the database.", labels=["pool", "state"]
        )
        limit = GaugeMetricFamily(
            "pricebook_database_pool_limit", "Connections that the pool may open.", labels=["pool"]
        )
        for name, pool in self.database.pools():
            connections.add_metric([name, "in_use"], pool.checkedout())
            connections.add_metric([name, "idle"], pool.checkedin())
            limit.add_metric([name], pool.size())
        yield connections
        yield limit

    def _ledger(self) -> Iterator[Metric]:
        yield GaugeMetricFamily(
            "pricebook_database_up", "Whether the database answered at the last look.", self.watch.up
        )
        yield GaugeMetricFamily(
            "pricebook_database_circuit_open",
            "Whether requests are refused at once because the database is away.",
            self.database.circuit.open,
        )
        replica = self.database.replica
        yield GaugeMetricFamily(
            "pricebook_database_replica_in_use",
            "Whether reads go to the replica rather than to the primary.",
            None if replica is None else replica.in_use,
        )
        head = self.watch.head
        yield GaugeMetricFamily(
            "pricebook_ledger_seq", "Number of the last change, as last looked at.", head.seq if head else None
        )
        yield GaugeMetricFamily(
            "pricebook_ledger_change_timestamp_seconds",
            "When that change was recorded.",
            head.recorded_at.timestamp() if head else None,
        )

    def _feed(self) -> Iterator[Metric]:
        follower = self.follower
        yield GaugeMetricFamily("pricebook_feed_seq", "Number of the last change that the follower has.", follower.seq)
        yield GaugeMetricFamily(
            "pricebook_feed_lag_seconds", "Since when the follower lacks changes that are known.", follower.lag_seconds
        )
        yield GaugeMetricFamily(
            "pricebook_feed_listening", "Whether the follower has its connection to the database.", follower.live
        )
        yield GaugeMetricFamily(
            "pricebook_feed_window_changes", "Changes that the follower keeps in memory.", len(follower.window)
        )
        waiters = GaugeMetricFamily("pricebook_feed_waiters", "Requests that wait for changes.", labels=["kind"])
        for kind, count in self.traffic.waiting.items():
            waiters.add_metric([kind], count)
        yield waiters
        yield GaugeMetricFamily(
            "pricebook_feed_waiters_limit", "Waiters beyond which more are refused.", self.traffic.waiters_limit
        )
