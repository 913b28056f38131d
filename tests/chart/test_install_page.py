"""docs/install.md tells the truth about the chart."""

import re

import yaml

from tests.support import chart

PAGE = (chart.ROOT / "docs" / "install.md").read_text()


def test_the_values_on_the_page_are_taken_together() -> None:
    blocks = re.findall(r"^```yaml\n(.*?)^```$", PAGE, flags=re.DOTALL | re.MULTILINE)
    assert len(blocks) == 4
    values = {key: value for block in blocks for key, value in yaml.safe_load(block).items()}
    objects = chart.render(values, name="pricebook")
    secrets = re.findall(r"create secret generic (\S+)", PAGE)
    pod = chart.one(objects, "Deployment", "pricebook")["spec"]["template"]["spec"]
    used = {
        value[0]
        for container in chart.containers(pod)
        for value in chart.environment(container, objects).values()
        if isinstance(value, tuple)
    }
    assert used == set(secrets)


def test_what_stays_has_the_names_on_the_page() -> None:
    table = PAGE.partition("## Uninstall")[2]
    bundled = chart.render(name="pricebook")
    cnpg = chart.render({"database": {"mode": "cnpg"}}, name="pricebook")
    kept = {
        item["metadata"]["name"]
        for item in bundled + cnpg
        if item["metadata"].get("annotations", {}).get("helm.sh/resource-policy") == "keep"
    }
    (claim,) = chart.one(bundled, "StatefulSet", "pricebook-postgres")["spec"]["volumeClaimTemplates"]
    kept.add(f"{claim['metadata']['name']}-pricebook-postgres-0")
    kept |= {item["metadata"]["name"] for item in chart.of_kind(bundled, "Pod")}
    commands = " ".join(re.findall(r"`kubectl ([^`]+)`", table))
    assert [name for name in kept if not re.search(rf"[ /]{name}( |$)", commands)] == []
