"""A first run on a few events, at set-up: it shows that everything works, and leaves the server's classes ready."""

from __future__ import annotations

import contextlib
import tempfile
from pathlib import Path

from gmv.lake import spark
from gmv.run import runner

_EVENTS = {
    "purchase": "transaction_datetime,transaction_date,purchase_id,buyer_id,prod_item_id,order_date,"
    "release_date,producer_id\n"
    "2023-01-01T08:00:00,2023-01-01,1,1,1,2023-01-01,2023-01-01,1\n",
    "product_item": "transaction_datetime,transaction_date,purchase_id,product_id,item_quantity,purchase_value\n"
    "2023-01-01T08:00:00,2023-01-01,1,1,1,10.00\n",
    "purchase_extra_info": "transaction_datetime,transaction_date,purchase_id,subsidiary\n"
    "2023-01-01T08:00:00,2023-01-01,1,nacional\n",
}


def keep_classes_ready() -> None:
    """Make the archive that lets Spark servers start faster, unless this Java has one.

    A run on a lake of its own loads what later runs will need.

    Raises:
        GmvError: when a run fails.
    """
    archive = spark.class_archive(spark.java())
    if archive.exists():
        return
    with tempfile.TemporaryDirectory(dir=archive.parent) as name:
        folder = Path(name)
        made = folder / archive.name
        with spark.SparkServer(None, folder / "spark.log", archive_to=made) as server, server.in_use():
            _land(folder / "landing")
            request = runner.Request(folder / "lake", folder / "landing", folder / "runs")
            runner.run(request, lambda _: contextlib.nullcontext())
        if made.exists():  # a Java without class-data sharing makes none, and works without it
            made.rename(archive)


def _land(landing: Path) -> None:
    landing.mkdir()
    for table, text in _EVENTS.items():
        (landing / f"{table}.csv").write_text(text)
