"""The dashboard is one that Grafana understands, on the data source that is provisioned, about metrics that exist."""

import json
import re
from itertools import combinations, pairwise
from pathlib import Path
from typing import Any

import yaml
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.cog.plugins import register_default_plugins
from grafana_foundation_sdk.models.dashboard import Dashboard

import producer.api.metrics
from consumer.adapters.metrics import Metrics
from schemas import topology
from tests.deploy.compose_file import ROOT, services
from tests.deploy.dashboard_file import FILE, dashboard, panels, queries

PROVISIONING = ROOT / "deploy" / "grafana" / "provisioning"
GRID_WIDTH = 24


def understood(content: dict[str, Any]) -> Any:
    """What Grafana's own types keep of it, with their defaults."""
    register_default_plugins()
    return json.loads(JSONEncoder().encode(Dashboard.from_json(content)))


def lost(written: Any, kept: Any, path: str = "") -> list[str]:
    """Where `kept` lacks something that was written, or has something else; it may have more."""
    if isinstance(written, dict) and isinstance(kept, dict):
        return [place for key in written for place in lost(written[key], kept.get(key, "nothing"), f"{path}.{key}")]
    if isinstance(written, list) and isinstance(kept, list) and len(written) == len(kept):
        return [
            place
            for number, pair in enumerate(zip(written, kept, strict=True))
            for place in lost(*pair, f"{path}[{number}]")
        ]
    return [] if written == kept else [path]


def test_grafana_knows_every_field_of_it() -> None:
    assert lost(dashboard(), understood(dashboard())) == []


def test_a_field_that_grafana_does_not_know_would_be_found() -> None:
    changed = dashboard()
    changed["panels"][1]["options"]["grapfMode"] = "none"
    changed["panels"][2]["fieldConfig"]["defaults"]["units"] = "s"
    assert lost(changed, understood(changed)) == [
        ".panels[1].options.grapfMode",
        ".panels[2].fieldConfig.defaults.units",
    ]


def test_every_panel_has_a_title_of_its_own_a_unit_and_says_what_to_do() -> None:
    titles = [panel["title"] for panel in panels()]
    assert len(set(titles)) == len(titles) >= 15
    for panel in panels():
        assert panel["fieldConfig"]["defaults"]["unit"]
        assert len(panel["description"]) > 40
        assert panel["targets"]


def test_what_a_description_refers_to_is_there() -> None:
    titles = {panel["title"] for panel in dashboard()["panels"]}
    named = {name for panel in panels() for name in re.findall(r'"([A-Z][^"]+\?)"', panel["description"])}
    assert named
    assert named <= titles


def test_it_begins_with_whether_users_get_images_and_no_panel_covers_another() -> None:
    everything = dashboard()["panels"]
    assert everything[0]["title"] == "Do users get images?"
    assert len({panel["id"] for panel in everything}) == len(everything)
    places = [panel["gridPos"] for panel in everything]
    assert all(place["x"] >= 0 and place["x"] + place["w"] <= GRID_WIDTH for place in places)
    assert all((one["y"], one["x"]) < (other["y"], other["x"]) for one, other in pairwise(places))
    for one, other in combinations(places, 2):
        beside = one["x"] + one["w"] <= other["x"] or other["x"] + other["w"] <= one["x"]
        above = one["y"] + one["h"] <= other["y"] or other["y"] + other["h"] <= one["y"]
        assert beside or above, (one, other)


def test_everything_asks_the_provisioned_data_source() -> None:
    (datasource,) = yaml.safe_load((PROVISIONING / "datasources/prometheus.yml").read_text())["datasources"]
    (variable,) = dashboard()["templating"]["list"]
    assert (variable["type"], variable["query"]) == ("datasource", datasource["type"])
    assert variable["current"] == {"text": datasource["name"], "value": datasource["uid"]}
    asked = [it["datasource"] for panel in panels() for it in (panel, *panel["targets"])]
    assert all(it == {"type": datasource["type"], "uid": f"${{{variable['name']}}}"} for it in asked)


def test_grafana_knows_how_often_prometheus_scrapes() -> None:
    (datasource,) = yaml.safe_load((PROVISIONING / "datasources/prometheus.yml").read_text())["datasources"]
    scraped = yaml.safe_load((ROOT / "deploy/prometheus/prometheus.yml").read_text())["global"]["scrape_interval"]
    assert datasource["jsonData"]["timeInterval"] == scraped


def test_grafana_finds_the_dashboard_where_compose_mounts_it() -> None:
    grafana = services()["grafana"]
    mounts = {Path(volume.split(":")[1]): ROOT / volume.split(":")[0] for volume in grafana["volumes"]}
    (provider,) = yaml.safe_load((PROVISIONING / "dashboards/image-uploads.yml").read_text())["providers"]
    home = Path(grafana["environment"]["GF_DASHBOARDS_DEFAULT_HOME_DASHBOARD_PATH"])
    assert mounts[Path(provider["options"]["path"])] == FILE.parent
    assert mounts[home.parent] / home.name == FILE
    assert mounts[Path("/etc/grafana/provisioning")] == PROVISIONING  # where Grafana looks by itself


def test_it_asks_for_metrics_and_queues_that_exist() -> None:
    suffixes = {"counter": ("_total",), "gauge": ("",), "histogram": ("_bucket", "_count", "_sum")}
    registries = (Metrics().registry, producer.api.metrics.Metrics()._registry)
    existing = {
        f"{family.name}{suffix}"
        for registry in registries
        for family in registry.collect()
        for suffix in suffixes[family.type]
    }
    asked = {name for query in queries() for name in re.findall(r"\bimage_uploads_\w+", query.expression)}
    assert asked <= existing
    named = {name for query in queries() for name in re.findall(r'queue="([^"]+)"', query.expression)}
    assert named == {topology.WORK_QUEUE, topology.DEAD_QUEUE}


def test_what_every_worker_reports_alike_is_not_added_up() -> None:
    about_queues = [query.expression for query in queries() if "queue_messages" in query.expression]
    assert len(about_queues) >= 3
    assert all(expression.startswith("max") for expression in about_queues)
