"""Prices: the business view. What changes, what is asked, what is answered, and what is added up."""

from grafana_foundation_sdk.models.dashboard import Dashboard

from deploy.observability import house
from deploy.observability.house import Column, Query, or_zero

UID = "pricebook-prices"

_PRICE_ROUTES = (
    'method=~"GET|POST",handler=~".*/(price|prices|prior-price|prices:lookup|schedule|quotes|quotes:verify)"'
)


def board() -> Dashboard:
    """Build it."""
    return house.board(
        UID,
        "Prices",
        "Changes of items, books and prices; prices asked and how they were answered; quotes; imports; the feed; the "
        "ledger.",
        ("Now", _now()),
        ("Changes", _changes()),
        ("Reads", _reads()),
        ("Quotes", _quotes()),
        ("Imports", _imports()),
        ("Feed", _feed()),
    )


def _now() -> list[house.Panel]:
    return [
        house.number(
            "Last seq",
            "Number of the last change that any pod has seen. It never goes back, and has no gaps.",
            "none",
            "max(pricebook_ledger_seq<self>)",
            calm="blue",
            decimals=0,
            span=4,
        ),
        house.number(
            "Since the last change",
            "Time since anything was written. Whether that is long depends on your business.",
            "s",
            "time() - max(pricebook_ledger_change_timestamp_seconds<self>)",
            calm="blue",
            span=5,
        ),
        house.number(
            "Prices recorded",
            "Prices written in the time shown.",
            "short",
            'sum(increase(pricebook_changes_total<self,type="price.recorded">[$__range]))',
            calm="blue",
            decimals=0,
            span=5,
            instant=True,
        ),
        house.number(
            "Prices asked",
            "Prices asked in the time shown: single ones, and every line of a lookup.",
            "short",
            "sum(increase(pricebook_price_reads_total<self>[$__range]))",
            calm="blue",
            decimals=0,
            span=5,
            instant=True,
        ),
        house.number(
            "Answered with a price",
            "Share of the prices asked, in the time shown, for which there was one.",
            "percentunit",
            """
            sum(increase(pricebook_price_reads_total<self,outcome="answered">[$__range]))
            / sum(increase(pricebook_price_reads_total<self>[$__range]))
            """,
            calm="red",
            steps=[(0.9, "orange"), (0.99, "green")],
            decimals=2,
            span=5,
            instant=True,
            nothing="none asked",
        ),
    ]


def _changes() -> list[house.Panel]:
    by_type = "sum by (type) (%s(pricebook_changes_total<self>[%s]))"
    return [
        house.graph(
            "Changes by type",
            "Changes committed per second. All writes go one after the other, so the sum has a ceiling: that of the "
            "database's commits.",
            "ops",
            Query(by_type % ("rate", "$__rate_interval"), "{{type}}"),
            stacked=True,
        ),
        house.graph(
            "Ledger",
            "The last seq that each pod has seen. Lines that part are pods that see an older state.",
            "none",
            Query("pricebook_ledger_seq<self>", "{{pod}}"),
        ),
        house.graph(
            "Since the last change",
            "Time since anything was written, as the pods see it.",
            "s",
            Query("time() - max(pricebook_ledger_change_timestamp_seconds<self>)", "since the last change"),
        ),
        house.grid(
            "Changes in the time shown",
            "How often each type of change happened.",
            [("type", "Type")],
            Column("Changes", "short", by_type % ("increase", "$__range")),
            span=12,
        ),
    ]


def _reads() -> list[house.Panel]:
    asked = "rate(pricebook_price_reads_total<self>[$__rate_interval])"
    requests = f"rate(http_requests_total<self,{_PRICE_ROUTES}>[$__rate_interval])"
    buckets = f"rate(http_request_duration_seconds_bucket<self,{_PRICE_ROUTES}>[$__rate_interval])"
    return [
        house.graph(
            "Prices asked by outcome",
            "Prices asked per second: single ones, and every line of a lookup. no_price: none at that time. "
            "unknown_item: whoever asks knows an item that this service does not.",
            "ops",
            Query(f"sum by (outcome) ({asked})", "{{outcome}}"),
            stacked=True,
        ),
        house.graph(
            "Share without a price",
            "Prices asked for which there was none, by reason. A step after an import is worth a look.",
            "percentunit",
            Query(
                f"""
                sum by (outcome) (rate(pricebook_price_reads_total<self,outcome!="answered">[$__rate_interval]))
                / on () group_left sum({asked})
                """,
                "{{outcome}}",
            ),
        ),
        house.graph(
            "Busiest routes of prices",
            "Requests per second of the five routes of prices that are asked most.",
            "reqps",
            Query(f"topk(5, sum by (method, handler) ({requests}))", "{{method}} {{handler}}"),
        ),
        house.graph(
            "Duration of price routes, p99",
            "The time within which 99 of 100 requests are answered.",
            "s",
            Query(
                f"histogram_quantile(0.99, sum by (le, method, handler) ({buckets}))",
                "{{method}} {{handler}}",
                exemplars=True,
            ),
        ),
        house.graph(
            "Answered from the caller's cache",
            "Share of reads that ended in 304: the caller had the answer and only asked whether it still holds. That "
            "works for items, books, and prices at a given instant.",
            "percentunit",
            Query(
                f"""
                ({or_zero('sum(rate(http_requests_total<self,method="GET",status="304">[$__rate_interval]))')})
                / sum(rate(http_requests_total<self,method="GET">[$__rate_interval]))
                """,
                "304",
            ),
            most=1,
        ),
        house.grid(
            "Price routes in the time shown",
            "Requests by route and status.",
            [("method", "Method"), ("handler", "Route"), ("status", "Status")],
            Column(
                "Requests",
                "short",
                f"sum by (method, handler, status) (increase(http_requests_total<self,{_PRICE_ROUTES}>[$__range]))",
            ),
            span=12,
        ),
    ]


def _quotes() -> list[house.Panel]:
    by_result = "sum by (result) (%s(pricebook_quotes_total<self>[%s]))"
    return [
        house.graph(
            "Quotes by result",
            "Documents per second. quoted: added up. verified: a stored quote that is right. different: one that is "
            "not what its own lines and the ledger give; somebody changed it.",
            "ops",
            Query(by_result % ("rate", "$__rate_interval"), "{{result}}"),
            stacked=True,
        ),
        house.grid(
            "Quotes in the time shown",
            "How many were added up, and what came of those that were verified.",
            [("result", "Result")],
            Column("Quotes", "short", by_result % ("increase", "$__range")),
            span=12,
        ),
    ]


def _imports() -> list[house.Panel]:
    by_status = "sum by (status) (%s(pricebook_import_rows_total<self>[%s]))"
    buckets = "rate(pricebook_import_seconds_bucket<self>[$__rate_interval])"
    return [
        house.graph(
            "Imports by result",
            "Price lists per second: compared (previewed), applied, refused because prices moved since the preview "
            "(conflict), and failed: unreadable, cut off, or with errors where all was to be applied.",
            "ops",
            Query("sum by (result) (rate(pricebook_imports_total<self>[$__rate_interval]))", "{{result}}"),
            stacked=True,
        ),
        house.graph(
            "Rows by what they do",
            "Rows of compared lists per second. Many errors are a file in the wrong form; many missing ones are a file "
            "that is not the whole list.",
            "ops",
            Query(by_status % ("rate", "$__rate_interval"), "{{status}}"),
            stacked=True,
        ),
        house.graph(
            "Duration of the steps, p90",
            "read: the file as it arrives. compare: its rows with the ledger. apply: the changes are written, and "
            "other writers wait.",
            "s",
            Query(f"histogram_quantile(0.9, sum by (le, step) ({buckets}))", "{{step}}"),
        ),
        house.grid(
            "Rows in the time shown",
            "How many rows of the lists that were compared did what.",
            [("status", "Status")],
            Column("Rows", "short", by_status % ("increase", "$__range")),
            span=12,
        ),
    ]


def _feed() -> list[house.Panel]:
    return [
        house.graph(
            "Lag",
            "How long each pod has known of changes that it cannot pass on yet. 0 is where it belongs.",
            "s",
            Query("pricebook_feed_lag_seconds<self>", "{{pod}}"),
        ),
        house.graph(
            "Who waits",
            "Long polls and event streams that wait for the next change. They hold no connection to the database.",
            "none",
            Query("sum by (kind) (pricebook_feed_waiters<self>)", "{{kind}}"),
            stacked=True,
        ),
        house.graph(
            "Catching up",
            "Reads per second in which the pods found changes, by what woke them. Only poll: notifications do not get "
            "through, and consumers hear of a change up to FEED_POLL_SECONDS later.",
            "ops",
            Query(
                "sum by (woken_by) (rate(pricebook_feed_catch_ups_total<self>[$__rate_interval]))",
                "{{woken_by}}",
            ),
            stacked=True,
        ),
        house.graph(
            "Connected",
            "Whether each pod has the connection on which it listens.",
            "none",
            Query("pricebook_feed_listening<self>", "{{pod}}"),
            most=1,
        ),
    ]
