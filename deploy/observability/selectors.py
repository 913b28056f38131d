"""Names for the label selectors of one release, used in every PromQL expression of the boards and the rules.

``http_requests_total<self,status=~"5..">`` reads better than the labels spelled out, and a dashboard's variables, a
Helm template's values and a test's plain values can stand for the same release.
"""

import re

_SELECTORS = {
    "self": 'namespace="{namespace}",job="{job}"',
    "instances": 'namespace="{namespace}",job="{job}",pod=~"{pod}"',
    # The objects of Kubernetes carry the release's full name, as the scrape job does.
    "deployment": 'namespace="{namespace}",deployment="{job}"',
    "autoscaler": 'namespace="{namespace}",horizontalpodautoscaler=~"(keda-hpa-)?{job}"',
    "budget": 'namespace="{namespace}",poddisruptionbudget="{job}"',
    # A Deployment's pods: neither those of a release whose name begins the same, nor the database's.
    "pods": 'namespace="{namespace}",pod=~"{job}-[a-z0-9]+-[a-z0-9]{{5}}"',
}
_SELECTOR = re.compile(rf"<({'|'.join(_SELECTORS)})(,[^>]+)?>")


def fill(expression: str, *, namespace: str, job: str, pod: str = ".*") -> str:
    """The expression with its selectors written out.

    :param pod: regular expression of the pods meant by ``<instances>``.
    """

    def written_out(selector: re.Match[str]) -> str:
        labels = _SELECTORS[selector[1]].format(namespace=namespace, job=job, pod=pod)
        return f"{{{labels}{selector[2] or ''}}}"

    return _SELECTOR.sub(written_out, expression)
