"""Alerts: one message per problem, told to real receivers, and nothing of an address anywhere."""

from __future__ import annotations

import datetime as dt
import json
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from decimal import Decimal
from email import message_from_bytes
from email.policy import default as modern
from pathlib import Path

import pytest
import small_lake
from aiosmtpd.controller import Controller
from apprise.plugins.slack import NotifySlack
from gmv import cli, tables
from gmv.lake import records
from gmv.lake.location import local_twin, location
from gmv.lake.reader import Reader
from gmv.run import alerts
from gmv.settings import settings
from receiver import Receiver
from small_lake import at, day
from typer.testing import CliRunner

TODAY = day("2023-02-24")  # the sample's newest published day is the one before
SLACK = "T1JJ3T3L2/A1BRTD4JD/TIiajkdnlazkcOXrIdevi7FQ"


@pytest.fixture
def slack(monkeypatch: pytest.MonkeyPatch) -> Iterator[Receiver]:
    """Slack's side: only its host is another one."""
    receiver = Receiver()
    monkeypatch.setattr(NotifySlack, "webhook_url", f"http://127.0.0.1:{receiver.port}/services")
    use(monkeypatch, f"slack://{SLACK}")
    yield receiver
    receiver.server.shutdown()


@pytest.fixture
def teams(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Receiver]:
    """The side of a Teams workflow: encrypted, with a certificate of its own."""
    receiver = Receiver(tmp_path)
    receiver.answers = [(202, "", 0.0)]
    use(monkeypatch, f"workflows://127.0.0.1:{receiver.port}/workflow643e69cc/sigJxfYzE3hS9?verify=no")
    yield receiver
    receiver.server.shutdown()


def use(monkeypatch: pytest.MonkeyPatch, urls: str) -> None:
    monkeypatch.setenv("GMV_ALERT_URLS", urls)
    settings.cache_clear()


@pytest.fixture
def lake(tmp_path: Path) -> Path:
    small_lake.write_sample(tmp_path / "lake")
    return tmp_path / "lake"


def end_run(lake: Path, run: str, outcome: str, message: str = "") -> None:
    """A run that has ended, on record."""
    common = {"run": run, "kind": "run", "outcome": outcome, "message": message}
    moment = at(f"2023-03-{run[1:]}T06:00")
    small_lake.write(lake, tables.RUNS, [{**common, "event": "started", "at": moment}])
    small_lake.write(
        lake, tables.RUNS, [{**common, "event": "ended", "at": moment + dt.timedelta(minutes=1)}]
    )


def watch(lake: Path, run: str, outcome: str, message: str = "", today: dt.date = TODAY) -> None:
    end_run(lake, run, outcome, message)
    alerts.after_run(lake, run, today, None)


def events(lake: Path) -> list[tuple]:
    rows = Reader(lake).rows('select run, problem, event, "of", address from monitoring.alerts order by "at"')
    return [tuple(row.values()) for row in rows]


# --- One message per problem ------------------------------------------------------------------------------


def test_a_problem_is_told_when_it_begins_and_when_it_is_over_and_not_in_between(lake, slack):
    watch(lake, "r02", "failed", "03_gold failed: out of memory.")
    watch(lake, "r03", "failed", "03_gold failed: out of memory.")
    watch(lake, "r04", "succeeded")
    watch(lake, "r05", "nothing_new")
    assert events(lake) == [
        ("r02", "failed_run", "raised", None, None),
        ("r02", "failed_run", "delivered", "raised", "1 slack"),
        ("r04", "failed_run", "resolved", None, None),
        ("r04", "failed_run", "delivered", "resolved", "1 slack"),
    ]
    (path, raised), (_, resolved) = slack.got
    assert path == f"/services/{SLACK}"
    assert "GMV: failed run" in json.dumps(raised)
    assert "Run r02 failed. 03_gold failed: out of memory." in json.dumps(raised)
    assert "gmv run goes on where it ended" in json.dumps(raised)
    assert "GMV: resolved: failed run" in json.dumps(resolved)


def test_a_run_without_problems_writes_and_sends_nothing(lake, slack):
    watch(lake, "r02", "succeeded")
    assert events(lake) == [] and slack.got == []


def test_what_status_lists_besides_is_no_alert(lake, slack):
    rejected = {"table": "purchase", "reasons": ["field_count"], "file": "a.csv", "sha256": "a", "line": 2}
    small_lake.write(lake, tables.QUARANTINE, [{**rejected, "run": "r02"}])
    watch(lake, "r02", "succeeded")
    assert events(lake) == [] and slack.got == []


def test_stale_data_names_the_day_that_was_expected(lake, slack):
    watch(lake, "r02", "nothing_new", today=day("2023-03-01"))
    ((_, told),) = slack.got
    assert "2023-02-23 is the newest published day, but 2023-02-27 was expected" in json.dumps(told)
    assert "The newest event is of 2023-02-28 09:00" in json.dumps(told)


def test_a_blocked_publication_says_which_check_and_why(lake, slack):
    failed = {
        "run": "r02",
        "check": "negative_gmv",
        "severity": "block",
        "passed": False,
        "subject": "2023-02-18",
    }
    small_lake.write(lake, tables.CHECK_RESULTS, [failed])
    watch(lake, "r02", "refused", "Nothing was published: negative_gmv, 2023-02-18 nac: -1.00.")
    assert events(lake)[0][1] == "blocked_publication:negative_gmv"
    assert "negative_gmv, 2023-02-18 nac: -1.00" in json.dumps(slack.got[0][1])


def refuse(lake: Path, run: str, check: str) -> None:
    failed = {"run": run, "check": check, "severity": "block", "passed": False, "subject": "2023-02-18"}
    small_lake.write(lake, tables.CHECK_RESULTS, [failed])
    watch(lake, run, "refused", f"Nothing was published: {check}.")


def test_a_block_is_over_when_a_run_ended_well_whatever_came_between(lake, slack):
    refuse(lake, "r02", "refused_file")
    watch(lake, "r03", "failed", "boom")
    refuse(lake, "r04", "refused_file")
    refuse(lake, "r05", "feed_missing")
    assert [(run, problem, event) for run, problem, event, _, _ in events(lake) if event != "delivered"] == [
        ("r02", "blocked_publication:refused_file", "raised"),
        ("r03", "failed_run", "raised"),
        ("r05", "blocked_publication:feed_missing", "raised"),
        ("r05", "blocked_publication:refused_file", "resolved"),
    ]
    told = [json.dumps(message) for _, message in slack.got]
    assert len(told) == 3 and not any("GMV: resolved" in one for one in told), "nothing is published yet"
    watch(lake, "r06", "succeeded")
    told = [json.dumps(message) for _, message in slack.got[3:]]
    assert len(told) == 3 and all("GMV: resolved" in one for one in told)


def test_an_anomaly_says_what_the_day_is_made_of(lake, slack):
    odd = {"run": "r02", "check": "day_drop", "severity": "warn", "passed": False, "subject": "2023-02-23"}
    small_lake.write(
        lake,
        tables.CHECK_RESULTS,
        [{**odd, "message": "505.50 against 778.55", "recorded_at": at("2023-03-02")}],
    )
    watch(lake, "r02", "succeeded")
    told = json.dumps(slack.got[0][1])
    assert "day_drop, 2023-02-23: 505.50 against 778.55" in told
    assert "Payment received +505.50 (1 purchase(s))" in told and "gmv explain 2023-02-23" in told
    small_lake.write(lake, tables.CHECK_RESULTS, [{**odd, "passed": True, "recorded_at": at("2023-03-03")}])
    watch(lake, "r03", "succeeded")
    assert [event for _, _, event, _, _ in events(lake)] == ["raised", "delivered", "resolved", "delivered"]


def test_a_block_keeps_back_no_end_but_a_blocks_and_nothing_else_keeps_its_end_back(lake, slack, monkeypatch):
    use(monkeypatch, f"json://127.0.0.1:{slack.port}")
    odd = {"run": "r02", "check": "day_drop", "severity": "warn", "subject": "2023-02-23", "message": "fell"}
    for run, passed in (("r02", False), ("r03", True)):
        judged = {**odd, "passed": passed, "recorded_at": at(f"2023-03-{run[1:]}")}
        small_lake.write(lake, tables.CHECK_RESULTS, [judged])
        refuse(lake, run, "refused_file")
    watch(lake, "r04", "succeeded", today=day("2023-03-01"))
    told = [(message["type"], message["title"]) for _, message in slack.got]
    assert sorted(told[:2]) == [("failure", "GMV: anomaly"), ("failure", "GMV: blocked publication")]
    assert told[2:] == [
        ("success", "GMV: resolved: anomaly"),
        ("success", "GMV: resolved: blocked publication"),
        ("failure", "GMV: stale"),
    ]


def restate(lake: Path, run: str, amount: str) -> None:
    """Another price for a purchase of 18 February; the day is published anew."""
    old, change = Decimal("778.55"), Decimal(amount)
    place = {"transaction_date": day("2023-02-18"), "subsidiary": "nacional", "ledger_seq": 2, "run": run}
    posting = {"purchase_id": "78", "amount": change, "purchases": 0, "known_on": day("2023-03-01")}
    small_lake.write(lake, tables.GMV_LEDGER, [{**place, **posting, "reason": "repriced", "cause": "event"}])
    published = {"previous_gmv": old, "gmv": old + change, "published_at": at("2023-03-02T06:00")}
    small_lake.write(lake, tables.DAILY_GMV_HISTORY, [{**place, **published}])
    row = {"transaction_date": day("2023-02-18"), "subsidiary": "nacional", "gmv": old + change}
    records.replace_days(lake, [day("2023-02-18")], [row], {"run": run})


def test_a_large_restatement_is_told_once_with_the_ledgers_reason(lake, slack):
    restate(lake, "r02", "-100.00")
    watch(lake, "r02", "succeeded")
    watch(lake, "r03", "nothing_new")
    ((_, told),) = slack.got
    assert "2023-02-18 was restated by -100.00: from 778.55 to 678.55" in json.dumps(told)
    assert "Price or quantity lowered -100.00 (1 purchase(s))" in json.dumps(told)


def test_a_restatement_is_over_without_a_message(lake, slack):
    restate(lake, "r02", "-100.00")
    watch(lake, "r02", "succeeded")
    published = {"transaction_date": day("2023-02-23"), "subsidiary": "new", "gmv": Decimal("1.00")}
    published |= {"ledger_seq": 3, "run": "r03", "published_at": at("2023-03-03T06:00")}
    small_lake.write(lake, tables.DAILY_GMV_HISTORY, [published])
    watch(lake, "r03", "succeeded")
    assert [event for _, key, event, *_ in events(lake) if key.startswith("restatement")] == [
        "raised",
        "delivered",
        "resolved",
    ]


def test_a_restatement_within_the_limit_is_no_alert(lake, slack):
    restate(lake, "r02", "-38.92")  # 5 % would be 38.93
    watch(lake, "r02", "succeeded")
    assert slack.got == []


# --- What can't be delivered ------------------------------------------------------------------------------


@pytest.mark.parametrize("answer", [(429, "ratelimited", 0.0), (500, "oops", 0.0), (200, "no_team", 0.0)])
def test_slack_that_does_not_take_it_is_asked_again_by_the_next_run(lake, slack, answer, capsys):
    slack.answers = [answer, (200, "ok", 0.0)]
    watch(lake, "r02", "failed", "boom")
    assert "alert not delivered to address 1 slack" in capsys.readouterr().err
    watch(lake, "r03", "failed", "boom")
    watch(lake, "r04", "failed", "boom")
    assert [event for _, _, event, _, _ in events(lake)] == ["raised", "failed", "delivered"]
    assert len(slack.got) == 2
    (reason,) = Reader(lake).rows("select message from monitoring.alerts where event = 'failed'")
    assert reason["message"] == f"HTTP {answer[0]}: {answer[1]}"


def test_a_receiver_that_does_not_answer_is_given_up_and_asked_again(lake, slack):
    slack.answers = [(200, "ok", 60.0), (200, "ok", 0.0)]
    began = time.monotonic()
    watch(lake, "r02", "failed", "boom")
    assert time.monotonic() - began < 50
    watch(lake, "r03", "failed", "boom")
    assert [event for _, _, event, _, _ in events(lake)] == ["raised", "failed", "delivered"]


def test_a_receiver_that_answers_drop_by_drop_holds_nobody(lake, slack, monkeypatch):
    monkeypatch.setattr(alerts, "SECONDS", 1.0)
    slack.answers, slack.byte_seconds = [(200, "ok" * 60, 0.0)], 0.5
    began = time.monotonic()
    watch(lake, "r02", "failed", "boom")
    assert time.monotonic() - began < 50
    (reason,) = Reader(lake).rows("select message from monitoring.alerts where event = 'failed'")
    assert reason["message"] == "TimeoutError: not done after 1 s"


def test_what_is_given_up_neither_hides_its_error_nor_keeps_the_process():
    with pytest.raises(ZeroDivisionError):
        alerts._within(60, lambda: 1 // 0)
    hangs = "import time; from gmv.run import alerts; alerts._within(0.1, lambda: time.sleep(60))"
    ended = subprocess.run([sys.executable, "-c", hangs], capture_output=True, text=True, timeout=50)
    assert "TimeoutError: not done after 0 s" in ended.stderr


@pytest.mark.parametrize(("status", "is_told"), [(301, False), (302, False), (303, False), (307, True)])
def test_a_webhook_that_sends_elsewhere_has_the_message_only_if_that_goes_along(
    lake, slack, monkeypatch, status, is_told
):
    use(monkeypatch, f"json://127.0.0.1:{slack.port}/old")
    slack.send_to = f"http://127.0.0.1:{slack.port}/new"
    slack.answers = [(status, "", 0.0), (200, "ok", 0.0)]
    watch(lake, "r02", "failed", "boom")
    assert [event for _, _, event, _, _ in events(lake)][1:] == ["delivered" if is_told else "failed"]
    assert [path for path, _ in slack.got] == ["/old", "/new"][: 1 + is_told]


def test_a_problem_that_nobody_was_told_of_ends_without_a_message(lake, slack):
    slack.answers = [(500, "", 0.0)]
    watch(lake, "r02", "failed", "boom")
    watch(lake, "r03", "succeeded")
    assert len(slack.got) == 1
    assert [event for _, _, event, _, _ in events(lake)] == ["raised", "failed", "resolved"]


def test_teams_gets_a_card_and_a_200_with_an_error_in_it_has_failed(lake, teams):
    error = "Webhook message delivery failed with error: Microsoft Teams endpoint returned HTTP error 429"
    teams.answers = [(200, error, 0.0), (202, "", 0.0)]
    watch(lake, "r02", "failed", "boom")
    watch(lake, "r03", "failed", "boom")
    assert [event for _, _, event, _, _ in events(lake)] == ["raised", "failed", "delivered"]
    path, card = teams.got[0]
    assert path.startswith("/workflows/workflow643e69cc/triggers/manual/paths/invoke")
    assert card["attachments"][0]["contentType"] == "application/vnd.microsoft.card.adaptive"
    assert "Run r02 failed" in json.dumps(card) and "boom" in json.dumps(card)
    assert "github.com" not in json.dumps(card), "a card that loads pictures from elsewhere"


def test_of_others_than_teams_an_answer_that_speaks_of_errors_is_none(lake, slack, monkeypatch):
    use(monkeypatch, f"json://127.0.0.1:{slack.port}")
    slack.answers = [(200, '{"error": null}', 0.0)]
    watch(lake, "r02", "failed", "boom")
    assert [event for _, _, event, _, _ in events(lake)] == ["raised", "delivered"]


def test_one_address_that_fails_keeps_no_other_from_being_told(lake, slack, monkeypatch, capsys):
    use(monkeypatch, f",nonsense://x, slack://{SLACK},\n")
    watch(lake, "r02", "failed", "boom")
    (said,) = capsys.readouterr().err.splitlines()
    assert "to address 1 nonsense: apprise can't read address 1 nonsense; see docs/alerts.md" in said
    assert {(event, address) for _, _, event, _, address in events(lake)[1:]} == {
        ("failed", "1 nonsense"),
        ("delivered", "2 slack"),
    }


# --- Mail -------------------------------------------------------------------------------------------------


class Mailbox:
    """What an SMTP server does with mail: keeps it."""

    def __init__(self) -> None:
        self.got: list[bytes] = []

    async def handle_DATA(self, server, session, envelope) -> str:
        self.got.append(envelope.content)
        return "250 taken"


@pytest.fixture
def mailbox(monkeypatch: pytest.MonkeyPatch) -> Iterator[Mailbox]:
    """The other side of mail."""
    mailbox = Mailbox()
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    server = Controller(mailbox, hostname="127.0.0.1", port=port)
    server.start()
    use(monkeypatch, f"mailto://127.0.0.1:{port}?from=gmv@example.com&to=oncall@example.com")
    yield mailbox
    server.stop()


@pytest.mark.parametrize("runs_dir", ["runs", "s3://acme-gmv/runs"])
def test_mail_says_where_the_report_is_and_has_it_attached(lake, tmp_path, monkeypatch, mailbox, runs_dir):
    if runs_dir.startswith("s3:"):
        pytest.importorskip("s3fs", reason="make setup-s3 brings it")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    place = location(runs_dir) / "r02"
    local_twin(place).mkdir(parents=True)
    (local_twin(place) / "report.html").write_text("<p>the report</p>")
    end_run(lake, "r02", "failed", "boom")
    alerts.after_run(lake, "r02", TODAY, place / "report.html")
    (mail,) = [message_from_bytes(content, policy=modern) for content in mailbox.got]
    assert mail["subject"] == "GMV: failed run"
    said = mail.get_body(("plain", "html")).get_content()
    assert "Run r02 failed. boom" in said and f"Report: {place}/report.html" in said
    (attached,) = mail.iter_attachments()
    assert attached.get_filename() == "report.html" and b"the report" in attached.get_payload(decode=True)


@pytest.mark.parametrize("report", [None, "gone.html"])
def test_mail_arrives_without_a_report(lake, tmp_path, mailbox, report):
    end_run(lake, "r02", "failed", "boom")
    alerts.after_run(lake, "r02", TODAY, tmp_path / report if report else None)
    (mail,) = [message_from_bytes(content, policy=modern) for content in mailbox.got]
    said = mail.get_body(("plain", "html")).get_content()
    assert "Run r02 failed. boom" in said and ("Report:" in said) is bool(report)
    assert not list(mail.iter_attachments())


def test_what_a_source_sent_is_text_in_a_mail_and_no_markup(lake, mailbox):
    watch(lake, "r02", "failed", "03_gold failed: <img src='https://elsewhere.example/x.png'>.")
    (mail,) = [message_from_bytes(content, policy=modern) for content in mailbox.got]
    assert mail.get_content_type() == "text/plain" and "03_gold failed: <img src=" in mail.get_content()


def test_a_mail_server_that_is_gone_is_asked_again_by_the_next_run(lake, mailbox, monkeypatch):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    reached = settings().alert_urls.get_secret_value()
    use(monkeypatch, f"mailto://127.0.0.1:{port}?from=gmv@example.com&to=oncall@example.com")
    watch(lake, "r02", "failed", "boom")
    use(monkeypatch, reached)
    watch(lake, "r03", "failed", "boom")
    assert [event for _, _, event, _, _ in events(lake)] == ["raised", "failed", "delivered"]
    (reason,) = Reader(lake).rows("select message from monitoring.alerts where event = 'failed'")
    assert reason["message"] == "no answer" and len(mailbox.got) == 1


@pytest.mark.parametrize("link", ["https://reports.example/gmv", "https://reports.example/gmv/"])
def test_a_chat_gets_the_link_that_people_open_and_no_report(
    lake, tmp_path, monkeypatch, slack, capsys, link
):
    use(monkeypatch, f"json://127.0.0.1:{slack.port}")
    monkeypatch.setenv("GMV_REPORT_LINK", link)
    settings.cache_clear()
    report = tmp_path / "r02" / "report.html"
    report.parent.mkdir()
    report.write_text("<p>the report</p>")
    end_run(lake, "r02", "failed", "boom")
    alerts.after_run(lake, "r02", TODAY, report)
    watch(lake, "r04", "succeeded")
    (_, failed), (_, resolved) = slack.got
    assert failed["message"].endswith("\n\nReport: https://reports.example/gmv/r02/report.html")
    assert failed["attachments"] == []
    assert resolved["message"].startswith("Resolved: ") and "Report:" not in resolved["message"]
    assert capsys.readouterr().err == ""


# --- Secrets, and the command -----------------------------------------------------------------------------


def test_nothing_of_an_address_is_stored_printed_or_shown(lake, slack, capsys):
    slack.answers = [(500, f"no such hook: {SLACK} of TIiajkdnlazkcOXrIdevi7FQ", 0.0)]
    watch(lake, "r02", "failed", "boom")
    told = capsys.readouterr()
    stored = b"".join(
        path.read_bytes() for path in (lake / "monitoring" / "alerts").rglob("*") if path.is_file()
    )
    shown = f"{told.out}{told.err}{settings()!r}{alerts.addresses()!r}{events(lake)}".encode() + stored
    for part in (SLACK, *SLACK.split("/")):
        assert part.encode() not in shown
    (reason,) = Reader(lake).rows("select message from monitoring.alerts where event = 'failed'")
    assert reason["message"].startswith("HTTP 500: no such hook: …")


@pytest.mark.parametrize(
    "address", ["hooks.slack.com/services/T000/B000/XXXXSECRET", "slack:/T000/XXXXSECRET"]
)
def test_an_address_without_its_service_is_not_shown_either(lake, slack, monkeypatch, capsys, address):
    use(monkeypatch, f"{address} slack://{SLACK}")
    watch(lake, "r02", "failed", "boom")
    told = f"{capsys.readouterr()}{alerts.addresses()!r}{Reader(lake).rows('from monitoring.alerts')}"
    assert "xxxxsecret" not in told.lower() and "1 unreadable" in told
    assert len(slack.got) == 1


def test_a_secret_that_an_answer_repeats_in_another_form_is_not_told(lake, slack, monkeypatch):
    use(monkeypatch, f"json://usr:p%40ssword@127.0.0.1:{slack.port}/to%6Ben")
    slack.answers = [(400, "/token of usr p@ssword, Basic dXNyOnBAc3N3b3Jk \x1b[31m", 0.0)]
    watch(lake, "r02", "failed", "boom")
    (reason,) = Reader(lake).rows("select message from monitoring.alerts where event = 'failed'")
    assert not [part for part in ("token", "p@ss", "dXNy", "\x1b") if part in reason["message"]]


def test_no_part_of_an_address_is_told_in_whatever_case_it_is_repeated():
    to = alerts.Address("1 slack", "slack://T1JJ3T3L2/A1BRTD4JD/TIiajkdnlazkcOXrIdevi7FQ")
    assert alerts._without_secrets("no t1jj3t3l2 nor TIIAJKDNLAZKCOXRIDEVI7FQ", to) == "no … nor …"
    assert alerts._without_secrets("moved to https://other.example/x", to) == "moved to …"
    to = alerts.Address("1 json", "json://user:pass@host/pass/my-password")
    assert alerts._without_secrets("no my-password", to) == "no …", "a part may hold another one"
    to = alerts.Address("1 json", "json://u:pass@host")
    assert alerts._without_secrets("under pass", to) == "under …", "three letters may be in any word"


def test_alert_test_sends_one_message_and_says_what_became_of_it(slack):
    slack.answers = [(200, "ok", 0.0), (500, "", 0.0)]
    told = CliRunner().invoke(cli.app, ["alert-test"])
    assert (told.exit_code, told.output.split()) == (0, ["1", "slack", "delivered"])
    told = CliRunner().invoke(cli.app, ["alert-test"])
    assert told.exit_code == 1 and "NOT delivered: HTTP 500" in told.output


def test_without_addresses_problems_are_noted_and_told_once_there_is_one(lake, slack, monkeypatch):
    use(monkeypatch, "")
    watch(lake, "r02", "failed", "boom")
    assert [event for _, _, event, _, _ in events(lake)] == ["raised"]
    use(monkeypatch, f"slack://{SLACK}")
    watch(lake, "r03", "failed", "boom")
    assert [event for _, _, event, _, _ in events(lake)] == ["raised", "delivered"]
