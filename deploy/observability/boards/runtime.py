"""Runtime and database: what do the processes use, and does the database keep up?"""

from grafana_foundation_sdk.models.dashboard import Dashboard

from deploy.observability import house
from deploy.observability.house import Query

UID = "pricebook-runtime"


def board() -> Dashboard:
    """Build it."""
    return house.board(
        UID,
        "Runtime and database",
        "CPU, memory and files of each process; its connections to the database, and how long the database takes.",
        ("Processes", _processes()),
        ("Database", _database()),
        pods=True,
    )


def _processes() -> list[house.Panel]:
    return [
        house.graph(
            "CPU",
            "Cores in use by each process. Python runs on one core at a time: near 1 a process is busy all the time, "
            "and only more pods help.",
            "none",
            Query("rate(process_cpu_seconds_total<instances>[$__rate_interval])", "{{pod}}"),
            Query(
                'max(kube_pod_container_resource_requests<pods,container="pricebook",resource="cpu">)',
                "requested for a pod",
                limit=True,
            ),
            steps=[(0.9, "red")],
        ),
        house.graph(
            "Memory",
            "Memory of each process, and what Kubernetes counts for its container. At the limit the kernel "
            "kills the container.",
            "bytes",
            Query("process_resident_memory_bytes<instances>", "{{pod}} process"),
            Query('container_memory_working_set_bytes<pods,container="pricebook">', "{{pod}} container"),
            Query(
                'max(kube_pod_container_resource_limits<pods,container="pricebook",resource="memory">)',
                "limit of a pod",
                limit=True,
            ),
        ),
        house.graph(
            "Garbage collections",
            "Python's runs per second by generation. Many of generation 2 cost time at every request.",
            "ops",
            Query(
                "sum by (generation) (rate(python_gc_collections_total<instances>[$__rate_interval]))",
                "generation {{generation}}",
            ),
            span=8,
        ),
        house.graph(
            "Objects collected",
            "Objects freed per second by the collector rather than at once: those in reference cycles.",
            "ops",
            Query(
                "sum by (generation) (rate(python_gc_objects_collected_total<instances>[$__rate_interval]))",
                "generation {{generation}}",
            ),
            span=8,
        ),
        house.graph(
            "File descriptors",
            "Open files and connections as a share of what the process may open.",
            "percentunit",
            Query("process_open_fds<instances> / process_max_fds<instances>", "{{pod}}"),
            span=8,
            steps=[(0.8, "red")],
        ),
        house.graph(
            "Time since the start",
            "Age of each process. A line that falls to zero is a restart.",
            "s",
            Query("time() - process_start_time_seconds<instances>", "{{pod}}"),
            span=24,
        ),
    ]


def _database() -> list[house.Panel]:
    in_use = 'pricebook_database_pool_connections<instances,state="in_use">'
    statements = "rate(pricebook_database_statement_seconds_%s<instances>[$__rate_interval])"
    waits = "rate(pricebook_database_pool_wait_seconds_bucket<instances>[$__rate_interval])"
    return [
        house.states(
            "Database reached",
            "Whether each pod reached the database at its last look (LEDGER_WATCH_SECONDS). While it cannot, requests "
            "get 503 problems and the pod stays ready.",
            Query("pricebook_database_up<instances>", "{{pod}}"),
            [("0", "not reached", "red"), ("1", "reached", "green")],
            span=6,
        ),
        house.states(
            "Requests refused at once",
            "Whether each pod has found the database away or silent: then it refuses at once what needs it, with 503 "
            "and Retry-After, and looks for the database twice a second until it is back.",
            Query("pricebook_database_circuit_open<instances>", "{{pod}}"),
            [("0", "served", "green"), ("1", "refused", "red")],
            span=6,
        ),
        house.states(
            "Reads go to",
            "Where each pod reads prices. Without DATABASE_READ_URL it is the primary, and nothing is shown. A replica "
            "that is away, silent or behind (DATABASE_READ_LAG_SECONDS) is left for the primary.",
            Query("pricebook_database_replica_in_use<instances>", "{{pod}}"),
            [("0", "primary", "orange"), ("1", "replica", "green")],
            span=6,
        ),
        house.graph(
            "Errors of the database",
            "Failures per second because of the database. unavailable: not reached, or gone. busy: a statement "
            "or a lock took too long. pool_timeout: no connection became free in time.",
            "ops",
            Query(
                "sum by (kind) (rate(pricebook_database_errors_total<instances>[$__rate_interval]))",
                "{{kind}}",
            ),
            span=6,
            stacked=True,
        ),
        house.graph(
            "Connections in use",
            "Connections that requests hold. A pod has as many for reads as for writes (DATABASE_POOL_SIZE each), and "
            "a few for imports (DATABASE_IMPORT_POOL_SIZE).",
            "short",
            Query(f"sum by (pod, pool) ({in_use})", "{{pod}} {{pool}}"),
            Query('min(pricebook_database_pool_limit<instances,pool!="importer">)', "limit of a pool", limit=True),
        ),
        house.graph(
            "Use of the pools",
            "Connections in use as a share of the limit, of the fullest pod.",
            "percentunit",
            Query(f"max by (pool) ({in_use} / ignoring (state) pricebook_database_pool_limit<instances>)", "{{pool}}"),
            steps=[(0.8, "orange"), (1, "red")],
            most=1,
        ),
        house.graph(
            "Connections of all pods",
            "Connections open to the database by state, and the most that these pods can open. The database's "
            "max_connections must be above it.",
            "short",
            Query("sum by (state) (pricebook_database_pool_connections<instances>)", "{{state}}"),
            Query("sum(pricebook_database_pool_limit<instances>)", "most", limit=True),
            stacked=True,
        ),
        house.graph(
            "Wait for a connection",
            "Time from asking a pool for a connection to having one. It grows before requests fail.",
            "s",
            *(
                Query(f"histogram_quantile({q}, sum by (le, pool) ({waits}))", f"{{{{pool}}}} p{q * 100:g}")
                for q in (0.5, 0.99)
            ),
        ),
        house.graph(
            "Time of a statement",
            "Time of one SQL statement, with its way to the database and back. Writes also wait here for the writes "
            "before them, one at a time.",
            "s",
            *(
                Query(
                    f"histogram_quantile({q}, sum by (le, pool) ({statements % 'bucket'}))",
                    f"{{{{pool}}}} p{q * 100:g}",
                    exemplars=True,
                )
                for q in (0.5, 0.95, 0.99)
            ),
        ),
        house.graph(
            "Statements",
            "SQL statements per second.",
            "ops",
            Query(f"sum by (pool) ({statements % 'count'})", "{{pool}}"),
            stacked=True,
        ),
        house.graph(
            "Statements for each request",
            "Statements divided by requests. A read of a price is one statement; a number that grows with a release is "
            "worth a look.",
            "none",
            Query(
                f"sum({statements % 'count'}) / sum(rate(http_requests_total<instances>[$__rate_interval]))",
                "statements for each request",
            ),
        ),
        house.heat(
            "Statement times",
            "How many statements took how long, of both pools.",
            "s",
            Query(f"sum by (le) ({statements % 'bucket'})", "{{le}}", exemplars=True),
        ),
    ]
