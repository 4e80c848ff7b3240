"""Run by Prefect's own Python, on a server of its own: one run of the flow; prints what came of it as JSON.

The arguments are the time that the run was scheduled for, its parameters as JSON, and, if the run is to begin later
than its server, a file: once that is there, it begins.
"""

import datetime as dt
import importlib.util
import json
import sys
import time
from pathlib import Path

from prefect.client.orchestration import get_client
from prefect.flow_engine import run_flow
from prefect.states import Scheduled
from prefect.testing.utilities import prefect_test_harness

FILE = Path(__file__).resolve().parents[1] / "orchestration" / "prefect" / "gmv_daily.py"


def main(at: str, parameters: str, begin: str = "") -> None:
    spec = importlib.util.spec_from_file_location("gmv_daily", FILE)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    given = module.gmv_daily.validate_parameters(
        {"start_date": None, "end_date": None, **json.loads(parameters)}
    )
    when = dt.datetime.fromisoformat(at).replace(tzinfo=dt.UTC)
    with prefect_test_harness(server_startup_timeout=300), get_client(sync_client=True) as client:
        while begin and not Path(begin).exists():
            time.sleep(0.1)
        flow_run = client.create_flow_run(
            module.gmv_daily, parameters=given, state=Scheduled(scheduled_time=when)
        )
        state = run_flow(module.gmv_daily, flow_run, given, return_type="state")
        ended = client.read_flow_run(flow_run.id)
        artifacts = client.request("POST", "/artifacts/filter", json={}).json()
    told = {
        "state": [state.type.value, state.name, state.message],
        "run": [ended.state_name, ended.run_count],
        "artifacts": {artifact["key"]: artifact["data"] for artifact in artifacts},
    }
    print("TOLD", json.dumps(told, default=str))


main(*sys.argv[1:])
