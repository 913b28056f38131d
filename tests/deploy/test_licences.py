"""What the image contains may be passed on with it: the licences of the locked packages, as they state them."""

import re
import tomllib
from importlib.metadata import PackageNotFoundError, metadata
from pathlib import Path

LOCK = tomllib.loads((Path(__file__).parents[2] / "uv.lock").read_text())
PERMISSIVE = re.compile(r"\b(MIT|Apache|BSD|ISC|PSF|Python Software Foundation|MPL|Mozilla|Public Domain)\b")
# Copyleft, and what is no licence for everybody. GPL is in LGPL and AGPL, too.
OTHERS = re.compile(r"GPL|GNU|SSPL|BUSL|Commons Clause|Proprietary", re.IGNORECASE)


def test_licences_of_what_the_service_runs_on() -> None:
    needs = {one["name"]: [each["name"] for each in one.get("dependencies", [])] for one in LOCK["package"]}
    reached, waiting = set(), ["pricebook"]
    while waiting:
        name = waiting.pop()
        if name not in reached:
            reached.add(name)
            waiting += needs[name]
    stated = {}
    for name in reached:
        try:
            found = metadata(name)
        except PackageNotFoundError:  # For another platform.
            continue
        licence = next((text for text in map(found.get, ("License-Expression", "License")) if text), "").splitlines()[
            :1
        ]
        kinds = [kind for kind in found.get_all("Classifier") or [] if kind.startswith("License ::")]
        stated[name] = "; ".join([*licence, *kinds])
    assert len(stated) > 35
    assert {name: text for name, text in stated.items() if OTHERS.search(text) or not PERMISSIVE.search(text)} == {}
