"""The infrastructure sketch: it parses, and its roles may do what docs/cloud.md says and no more."""

from __future__ import annotations

import hcl2
import pytest
import test_s3_runs
from gmv.settings import PROJECT

TEXT = (PROJECT / "terraform" / "main.tf").read_text()


def _statements(policy: str) -> dict[str, list[str]]:
    """The actions of each statement of a policy, by its name."""
    for document in hcl2.loads(TEXT)["data"]:
        for kind, by_name in document.items():
            if kind.strip('"') == "aws_iam_policy_document":
                for name, body in by_name.items():
                    if name.strip('"') == policy:
                        return {
                            statement["sid"].strip('"'): [
                                action.strip('"') for action in statement["actions"]
                            ]
                            for statement in body["statement"]
                        }
    raise AssertionError(policy)


def _local(name: str) -> list[str]:
    """A list of the locals."""
    (places,) = (block[name] for block in hcl2.loads(TEXT)["locals"] if name in block)
    return [place.strip('"') for place in places]


def test_the_pipeline_reads_landing_and_can_not_change_it():
    may = _statements("pipeline")
    assert may["ReadLanding"] == ["s3:GetObject"]
    assert may["WriteLakeRunsAndExport"] == test_s3_runs.WRITES, "with which whole runs are tested"
    assert set(may) == {"ListBuckets", "ReadLanding", "WriteLakeRunsAndExport"}
    written = _local("written")
    assert "raw/lake" in written and not [place for place in written if "landing" in place]


def test_a_reader_only_reads_and_nothing_of_raw():
    may = _statements("reader")
    assert {action for actions in may.values() for action in actions} == {
        "s3:GetObject",
        "s3:ListBucket",
        "s3:GetBucketLocation",
    }
    read = _local("read")
    assert "analytics/lake" in read and not [place for place in read if "raw" in place]


def test_a_reader_may_query_and_write_nothing_but_results():
    may = _statements("queries")
    assert set(may) == {"Catalog", "Query", "QueryResults"}
    assert all(action.startswith("glue:Get") for action in may["Catalog"])
    assert {"athena:StartQueryExecution", "athena:GetQueryResults"} <= set(may["Query"])
    assert [one for actions in may.values() for one in actions if "Put" in one] == ["s3:PutObject"]
    assert '["analytics"].arn}/athena-results/*"' in TEXT


def test_no_action_is_a_wildcard():
    for policy in ("pipeline", "reader", "queries"):
        assert not [one for actions in _statements(policy).values() for one in actions if "*" in one]


def test_a_file_that_does_not_parse_is_noticed():
    with pytest.raises(Exception, match="Unexpected"):
        hcl2.loads(TEXT + "\nresource {")
