"""The alerts that are shipped look at what server and sidecar really measure, and say what to do."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import httpx2
import yaml

from connectors_grpc import policy
from connectors_grpc.errors import Reason
from tests.running import Server
from tests.sidecar.harness import world

ALERTS = Path(__file__).resolve().parent.parent.parent / "deploy" / "monitoring" / "alerts.yaml"


def rules() -> list[dict[str, Any]]:
    """Every alert."""
    groups = yaml.safe_load(ALERTS.read_text())["groups"]
    return [rule for group in groups for rule in group["rules"]]


def families(page: str) -> set[str]:
    """The names that a page of metrics has, with those that a counter or histogram is asked by."""
    found = re.findall(r"^# TYPE (\w+) (\w+)$", page, re.MULTILINE)
    suffixes = {"histogram": ("_bucket", "_count", "_sum"), "counter": ("", "_total")}
    return {name + suffix for name, kind in found for suffix in suffixes.get(kind, ("",))}


async def test_every_alert_asks_for_a_metric_that_there_is(server: Server) -> None:
    """By the pages of a server and a sidecar that run."""
    key = (server.keys / "admin.key").read_text().strip()
    async with httpx2.AsyncClient(trust_env=False) as http:
        page = await http.get(f"{server.http_url}/metrics", headers={"Authorization": f"Bearer {key}"})
    async with world() as measured:
        await measured.ask()
        known = families(page.text) | families((await measured.metrics()).body.decode())
    assert page.status_code == 200
    for rule in rules():
        names = re.findall(r"\bconnectors_\w+", rule["expr"])
        assert names, rule["alert"]
        assert set(names) <= known, rule["alert"]


def test_every_alert_says_what_to_do_and_names_reasons_and_acts_that_there_are() -> None:
    """A reason that was renamed would make an alert silent for ever."""
    reasons = {reason.value for reason in Reason}
    acts = {rpc.rpartition("/")[2] for rpc in policy.RULES}
    for rule in rules():
        assert rule["annotations"].keys() == {"summary", "do"}, rule["alert"]
        for matched in re.findall(r'(?:reason|result)=~?"([^"]+)"', rule["expr"]):
            named = {name for name in matched.split("|") if name != "5xx"}
            assert named <= reasons, rule["alert"]
        assert set(re.findall(r'action="(\w+)"', rule["expr"])) <= acts, rule["alert"]
    assert len({rule["alert"] for rule in rules()}) == len(rules())
