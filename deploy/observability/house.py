"""The house style of the boards: what every panel, variable and link has in common is said here once."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import count
from string import ascii_uppercase

from grafana_foundation_sdk.builders import common as c
from grafana_foundation_sdk.builders import dashboard as d
from grafana_foundation_sdk.builders import heatmap, prometheus, stat, statetimeline, table, timeseries
from grafana_foundation_sdk.cog.builder import Builder
from grafana_foundation_sdk.models import common, dashboard
from grafana_foundation_sdk.models import heatmap as heatmap_models
from grafana_foundation_sdk.models.prometheus import PromQueryFormat

from deploy.observability import selectors

TAG = "pricebook"
DATASOURCE = common.DataSourceRef(type_val="prometheus", uid="${datasource}")

type Panel = timeseries.Panel | stat.Panel | table.Panel | heatmap.Panel | statetimeline.Panel
type Steps = Sequence[tuple[float, str]]
"""Thresholds: from this value on, this colour. Below the first one everything is well."""


@dataclass(frozen=True)
class Query:
    """One PromQL expression of a panel."""

    expr: str
    legend: str = ""
    exemplars: bool = False
    limit: bool = False
    """Drawn as a dashed line: what the others are to stay below."""


@dataclass(frozen=True)
class Column:
    """A column of a table: the expression that gives its numbers."""

    title: str
    unit: str
    expr: str


def or_zero(expr: str, label: str | None = None) -> str:
    """Zero where the expression has no series yet, for counters that appear at their first event.

    :param label: if the legend shows a label, the one that says "none".
    """
    zero = "vector(0)" if label is None else f'label_replace(vector(0), "{label}", "none", "", "")'
    return f"{expr} or on () {zero}"


def graph(
    title: str,
    description: str,
    unit: str,
    *queries: Query,
    span: int = 12,
    steps: Steps = (),
    stacked: bool = False,
    most: float | None = None,
) -> timeseries.Panel:
    """Lines over time from zero up, with a table for a legend."""
    panel = _common(timeseries.Panel(), title, description, unit, span, 9)
    panel.min(0).line_width(1).fill_opacity(30 if stacked else 8).show_points(common.VisibilityMode.NEVER)
    panel.tooltip(c.VizTooltipOptions().mode(common.TooltipDisplayMode.MULTI).sort(common.SortOrder.DESCENDING))
    legend = c.VizLegendOptions().display_mode(common.LegendDisplayMode.TABLE).show_legend(True)
    panel.legend(legend.placement(common.LegendPlacement.BOTTOM).calcs(["lastNotNull", "max"]))
    if most is not None:
        panel.max(most)
    if stacked:
        panel.stacking(c.StackingConfig().mode(common.StackingMode.NORMAL))
    if steps:
        panel.thresholds(_thresholds(steps))
        panel.thresholds_style(c.GraphThresholdsStyleConfig().mode(common.GraphThresholdsStyleMode.DASHED))
    for ref, query in zip(ascii_uppercase, queries, strict=False):
        panel.with_target(_target(query, ref))
        if query.limit:
            panel.override_by_query(ref, _DASHED)
    return panel


def number(
    title: str,
    description: str,
    unit: str,
    expr: str,
    *,
    span: int = 4,
    steps: Steps = (),
    calm: str = "green",
    decimals: int | None = None,
    instant: bool = False,
    nothing: str | None = None,
) -> stat.Panel:
    """One number in large, coloured by its thresholds.

    :param calm: the colour below the first threshold.
    :param instant: ask for the last value only, where an expression over weeks would be too dear for a line.
    :param nothing: shown if there is no value, where that is no fault.
    """
    panel = _common(stat.Panel(), title, description, unit, span, 4)
    panel.thresholds(_thresholds(steps, calm)).reduce_options(c.ReduceDataOptions().calcs(["lastNotNull"]))
    panel.color_mode(common.BigValueColorMode.VALUE)
    panel.graph_mode(common.BigValueGraphMode.NONE if instant else common.BigValueGraphMode.AREA)
    if decimals is not None:
        panel.decimals(decimals)
    if nothing is not None:
        panel.no_value(nothing)
    target = _target(Query(expr), "A")
    return panel.with_target(target.instant() if instant else target)


def heat(title: str, description: str, unit: str, query: Query, *, span: int = 12) -> heatmap.Panel:
    """How a histogram's observations spread over its buckets, over time."""
    panel = _common(heatmap.Panel(), title, description, unit, span, 9)
    panel.calculate(False).cell_gap(1).show_legend().exemplars_color("rgba(255,0,255,0.8)")
    panel.y_axis(heatmap.YAxisConfig().unit(unit))
    panel.color(heatmap.HeatmapColorOptions().mode(heatmap_models.HeatmapColorMode.SCHEME).scheme("Oranges").steps(64))
    return panel.with_target(_target(query, "A").format(PromQueryFormat.HEATMAP))


def states(
    title: str, description: str, query: Query, names: Sequence[tuple[str, str, str]], *, span: int = 12
) -> statetimeline.Panel:
    """What state something was in over time.

    :param names: value, text and colour of each state.
    """
    panel = _common(statetimeline.Panel(), title, description, "none", span, 9)
    panel.mappings(
        [
            dashboard.ValueMap(
                options={value: dashboard.ValueMappingResult(text=text, color=color) for value, text, color in names}
            )
        ]
    )
    panel.show_value(common.VisibilityMode.NEVER).row_height(0.8)
    return panel.with_target(_target(query, "A"))


def grid(
    title: str, description: str, labels: Sequence[tuple[str, str]], *columns: Column, span: int = 24
) -> table.Panel:
    """A table of the present: one row for each combination of labels, one column for each expression.

    :param labels: the labels that the expressions have in common, and their headings.
    """
    panel = _common(table.Panel(), title, description, columns[0].unit, span, 9)
    headings = dict(labels)
    for ref, column in zip(ascii_uppercase, columns, strict=False):
        panel.with_target(_target(Query(column.expr), ref).instant().format(PromQueryFormat.TABLE))
        # Grafana names a column "Value" if it is the only one, and "Value #A" beside others.
        value = f"Value #{ref}" if len(columns) > 1 else "Value"
        headings[value] = column.title
        panel.override_by_name(column.title, [dashboard.DynamicConfigValue("unit", column.unit)])
    panel.with_transformation(dashboard.DataTransformerConfig("merge", options={}))
    panel.with_transformation(
        dashboard.DataTransformerConfig(
            "organize",
            options={
                "excludeByName": {"Time": True},
                "indexByName": {name: place for place, name in enumerate(headings)},
                "renameByName": headings,
            },
        )
    )
    return panel.sort_by([c.TableSortByFieldState().display_name(columns[0].title).desc(True)])


def board(
    uid: str, title: str, description: str, *rows: tuple[str, Sequence[Panel]], pods: bool = False
) -> dashboard.Dashboard:
    """A whole dashboard.

    :param rows: headings, and the panels under them.
    :param pods: whether its panels can be limited to some pods.
    """
    built = (
        d.Dashboard(f"Pricebook / {title}")
        .uid(uid)
        .description(description)
        .tags([TAG])
        .timezone("browser")
        .time("now-6h", "now")
        .refresh("30s")
        .tooltip(dashboard.DashboardCursorSync.CROSSHAIR)
        .variables(_variables(pods))
        .annotation(_starts())
        .link(
            d.DashboardLink("Pricebook")
            .type(dashboard.DashboardLinkType.DASHBOARDS)
            .tags([TAG])
            .include_vars(True)
            .keep_time(True)
            .placement(_IN_SIGHT)
        )
    )
    ids = count(1)
    for heading, panels in rows:
        built.with_row(d.Row(heading).id(next(ids)))
        for panel in panels:
            built.with_panel(panel.id(next(ids)))
    return built.build()


def shades_of(color: str) -> list[dashboard.DynamicConfigValue]:
    """An override that draws several series in shades of one colour."""
    return [dashboard.DynamicConfigValue("color", {"mode": "shades", "fixedColor": color})]


def expand(expr: str) -> str:
    """An expression as Grafana takes it, with the board's variables for selectors."""
    return selectors.fill(" ".join(expr.split()), namespace="$namespace", job="$job", pod="$pod")


# The SDK would put links and marks into a menu.
_IN_SIGHT = ""

_DASHED = [
    dashboard.DynamicConfigValue("custom.lineStyle", {"fill": "dash", "dash": [8, 8]}),
    dashboard.DynamicConfigValue("custom.fillOpacity", 0),
    dashboard.DynamicConfigValue("custom.stacking", {"mode": "none"}),
    dashboard.DynamicConfigValue("color", {"mode": "fixed", "fixedColor": "red"}),
]


def _common[P: (timeseries.Panel, stat.Panel, table.Panel, heatmap.Panel, statetimeline.Panel)](
    panel: P, title: str, description: str, unit: str, span: int, height: int
) -> P:
    panel.title(title).description(description).unit(unit).datasource(DATASOURCE).span(span).height(height)
    return panel


def _target(query: Query, ref: str) -> prometheus.Dataquery:
    target = prometheus.Dataquery().ref_id(ref).datasource(DATASOURCE).expr(expand(query.expr)).range()
    if query.exemplars:
        target.exemplar(True)
    return target.legend_format(query.legend or "__auto")


def _thresholds(steps: Steps, calm: str = "green") -> d.ThresholdsConfig:
    levels = [dashboard.Threshold(value=None, color=calm)]
    levels += [dashboard.Threshold(value=value, color=color) for value, color in steps]
    return d.ThresholdsConfig().mode(dashboard.ThresholdsMode.ABSOLUTE).steps(levels)


def _variables(pods: bool) -> list[Builder[dashboard.VariableModel]]:
    def of_metrics(name: str, label: str, query: str) -> d.QueryVariable:
        query = expand(query)
        variable = d.QueryVariable(name).label(label).datasource(DATASOURCE).query(query).definition(query)
        return variable.refresh(dashboard.VariableRefresh.ON_TIME_RANGE_CHANGED).sort(
            dashboard.VariableSort.ALPHABETICAL_ASC
        )

    variables: list[Builder[dashboard.VariableModel]] = [
        d.DatasourceVariable("datasource").label("Data source").type("prometheus"),
        of_metrics("namespace", "Namespace", "label_values(pricebook_info, namespace)"),
        of_metrics("job", "Release", 'label_values(pricebook_info{namespace="$namespace"}, job)'),
    ]
    if pods:
        pod = of_metrics("pod", "Pod", "label_values(pricebook_info<self>, pod)")
        variables.append(pod.multi(True).include_all(True).all_value(".*"))
    return variables


def _starts() -> d.AnnotationQuery:
    """A mark wherever a process began: a rollout, a scale-up, a restart."""
    return (
        d.AnnotationQuery()
        .name("Starts")
        .datasource(DATASOURCE)
        .enable(True)
        .icon_color("blue")
        .expr(expand("process_start_time_seconds<self> * 1000"))
        .use_value_for_time(True)
        .placement(_IN_SIGHT)
        .title_format("{{pod}} started")
        .step("60s")
    )
