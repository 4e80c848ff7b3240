"""Run by Dagster's own Python: a tick at a fixed time, or a range of partitions; prints what came of it as JSON."""

import datetime as dt
import importlib.util
import json
import sys
from pathlib import Path

import dagster as dg

FILE = Path(__file__).resolve().parents[1] / "orchestration" / "dagster" / "gmv_daily.py"


def tick(definitions: dg.Definitions, at: str, instance: dg.DagsterInstance) -> dg.ExecuteInProcessResult:
    """The run that the schedule asks for at that time."""
    schedule = definitions.resolve_schedule_def("gmv_daily_schedule")
    context = dg.build_schedule_context(instance, dt.datetime.fromisoformat(at).replace(tzinfo=dt.UTC))
    (request,) = schedule.evaluate_tick(context).run_requests
    job = definitions.resolve_job_def(schedule.job_name)
    return job.execute_in_process(
        partition_key=request.partition_key, tags=request.tags, instance=instance, raise_on_error=False
    )


def backfill(
    definitions: dg.Definitions, start: str, end: str, instance: dg.DagsterInstance
) -> dg.ExecuteInProcessResult:
    """The one run that a backfill of these days becomes."""
    tags = {"dagster/asset_partition_range_start": start, "dagster/asset_partition_range_end": end}
    return dg.materialize(list(definitions.assets), tags=tags, instance=instance, raise_on_error=False)


def main(command: str, *arguments: str) -> None:
    spec = importlib.util.spec_from_file_location("gmv_daily", FILE)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    with dg.instance_for_test() as instance:
        result = {"tick": tick, "backfill": backfill}[command](module.defs, *arguments, instance)
        materialized = result.get_asset_materialization_events()
        told = {
            "success": result.success,
            "materialized": sorted(
                f"{event.materialization.asset_key.to_user_string()} {event.materialization.partition}"
                for event in materialized
            ),
            "metadata": {
                event.materialization.asset_key.to_user_string(): {
                    name: value.value for name, value in event.materialization.metadata.items()
                }
                for event in materialized
            },
            "checks": {
                check.check_name: [check.passed, check.description]
                for check in result.get_asset_check_evaluations()
            },
            "failure": [
                event.event_specific_data.error_display_string for event in result.get_step_failure_events()
            ],
        }
    print("TOLD", json.dumps(told, default=str))


main(*sys.argv[1:])
