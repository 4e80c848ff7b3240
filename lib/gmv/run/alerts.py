"""Alerts: one message when a problem begins, one when it is over, and silence in between.

`monitoring/alerts` keeps what has been told to whom, so that a run sends only what is missing, and sends
again what could not be delivered. Addresses are apprise's; they come from the environment and go nowhere
else: a record names an address by its number and its service.
"""

from __future__ import annotations

import datetime as dt
import logging
import re
import sys
import threading
import warnings
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar
from urllib.parse import unquote

from gmv.lake import records
from gmv.lake.location import local_twin
from gmv.lake.reader import Reader
from gmv.problems import ANOMALY, BLOCKED, FAILED_RUN, RESTATEMENT, STALE, open_problems
from gmv.run.record import link_to
from gmv.settings import settings
from gmv.tables import ALERTS

if TYPE_CHECKING:
    import requests

T = TypeVar("T")

RAISED, RESOLVED, DELIVERED, FAILED = "raised", "resolved", "delivered", "failed"

TOLD = (FAILED_RUN, BLOCKED, STALE, ANOMALY, RESTATEMENT)
"""The kinds of problems that alerts tell of; `gmv status` lists others besides."""

_WITH_ATTACHMENT = ("mailto", "mailtos")
_SAYS_OK_BUT_FAILS = ("workflow", "workflows", "msteams")
"""Microsoft's webhooks answer 200 or 202 and may say in the text that the message was not delivered."""

SECONDS = 30.0
"""How long one message to one address may take."""

_SENT_ON_WITHOUT_IT = (301, 302, 303)
"""Redirections that a POST follows as a GET, which carries no message."""

_SOUNDS_LIKE_AN_ERROR = re.compile(r"\b(error|fail(ed|ure)?|invalid|denied|throttled|bad ?request)\b", re.I)


@dataclass(frozen=True)
class Address:
    """One of the addresses of `GMV_ALERT_URLS`. Only `name` may be shown."""

    name: str
    url: str

    def __repr__(self) -> str:
        return f"Address({self.name})"


@dataclass(frozen=True)
class Message:
    """What is sent about a problem."""

    problem: str
    kind: str
    event: str
    text: str

    @property
    def title(self) -> str:
        return {
            RAISED: f"GMV: {self.kind.replace('_', ' ')}",
            RESOLVED: f"GMV: resolved: {self.kind.replace('_', ' ')}",
        }[self.event]


def addresses() -> list[Address]:
    """The addresses of the settings, in order."""
    listed = re.split(
        r"[\s,]+(?=[A-Za-z][\w+-]*://)", settings().alert_urls.get_secret_value().strip(" ,\n\t")
    )
    return [Address(f"{number} {_service(url)}", url) for number, url in enumerate(filter(None, listed), 1)]


def after_run(lake: Path, run: str, today: dt.date, report: Path | None) -> None:
    """Note which problems began and which are over, and tell those who should know.

    Nothing that goes wrong with a message fails the run: it is recorded and sent again by the next one.

    Args:
        lake: after the run has noted its end.
        report: where the run's report is found, for link or attachment; None where it made none.
    """
    reader = Reader(lake)
    past = reader.rows('select * from monitoring.alerts order by "at", event desc')
    news = _news(reader, past, run, today)
    records.append(lake, ALERTS, news)
    outcomes = []
    for message, to in _untold([*past, *news], addresses()):
        text = f"{message.text}\n\nReport: {link_to(report)}" if report else message.text
        failure = send(to, message.title, text, message.event, report)
        outcomes.append(
            {
                "problem": message.problem,
                "kind": message.kind,
                "event": FAILED if failure else DELIVERED,
                "of": message.event,
                "address": to.name,
                "message": failure or None,
                "run": run,
                "at": records.now(),
            }
        )
        if failure:
            print(
                f"gmv: alert not delivered to address {to.name}: {failure}. The next run tries again.",
                file=sys.stderr,
            )
    records.append(lake, ALERTS, outcomes)


def _news(reader: Reader, past: Sequence[dict[str, Any]], run: str, today: dt.date) -> list[dict[str, Any]]:
    """Rows for problems that have begun or are over since the last run."""
    states: dict[str, dict[str, Any]] = {
        row["problem"]: row for row in past if row["event"] in (RAISED, RESOLVED)
    }
    was_open = {key: row for key, row in states.items() if row["event"] == RAISED}
    now_open = {one.key: one for one in open_problems(reader, today) if one.kind in TOLD}
    common = {"run": run, "at": records.now()}
    began = [
        {"problem": key, "kind": one.kind, "event": RAISED, "message": str(one), **common}
        for key, one in now_open.items()
        if key not in was_open
    ]
    over = [
        {
            "problem": key,
            "kind": row["kind"],
            "event": RESOLVED,
            "message": f"Resolved: {row['message']}",
            **common,
        }
        for key, row in was_open.items()
        if key not in now_open
    ]
    return [*began, *over]


def _untold(rows: Sequence[dict[str, Any]], to: Sequence[Address]) -> Iterator[tuple[Message, Address]]:
    """What each address has still to be told: that a problem is open, or that one it knows of is over.

    Which checks block may change from run to run; that this is over is told when none does any more.
    """
    newest: dict[str, dict[str, Any]] = {}
    told: dict[tuple[str, str], str] = {}
    for row in rows:
        if row["event"] in (RAISED, RESOLVED):
            newest[row["problem"]] = row
        elif row["event"] == DELIVERED:
            told[row["problem"], row["address"]] = row["of"]
    is_blocked = any(row["kind"] == BLOCKED and row["event"] == RAISED for row in newest.values())
    for key, row in newest.items():
        for address in to:
            known = told.get((key, address.name), RESOLVED)
            is_over = row["kind"] != RESTATEMENT and not (is_blocked and row["kind"] == BLOCKED)
            is_noteworthy = row["event"] == RAISED or is_over
            if known != row["event"] and is_noteworthy:
                yield Message(key, row["kind"], row["event"], row["message"]), address


def test_message() -> list[tuple[Address, str]]:
    """Send one message to each address. Returns each with why it failed; empty: it was delivered."""
    text = "This is a test: alerts of the GMV pipeline arrive here. Nothing needs to be done."
    return [(to, send(to, "GMV: test", text, RESOLVED)) for to in addresses()]


def send(to: Address, title: str, text: str, event: str, report: Path | None = None) -> str:
    """Send a message to one address.

    Returns:
        Why it was not delivered, without anything of the address in it; empty: it was.
    """
    import apprise

    # No picture: who reads the message would load it from apprise's own site.
    sender = apprise.Apprise(asset=apprise.AppriseAsset(app_id="GMV", image_url_mask="", image_url_logo=""))
    file = local_twin(report.parent) / report.name if report else None
    attached = str(file) if file and _service(to.url) in _WITH_ATTACHMENT and file.is_file() else None
    kind = apprise.NotifyType.FAILURE if event == RAISED else apprise.NotifyType.SUCCESS
    with _quiet(), _answers() as answers:
        if not sender.add(to.url):
            return f"apprise can't read address {to.name}; see docs/alerts.md for its form"
        notify = partial(
            sender.notify,
            title=title,
            body=text,
            notify_type=kind,
            body_format=apprise.NotifyFormat.TEXT,
            attach=attached,
        )
        try:
            delivered = _within(SECONDS, notify)
        except Exception as error:  # a message must never be what fails a run
            return _without_secrets(f"{type(error).__name__}: {error}", to)
    if not delivered:
        told = f"HTTP {answers[-1].status_code}: {_text(answers[-1])}" if answers else "no answer"
        return _without_secrets(told, to)
    if answers and any(answer.status_code in _SENT_ON_WITHOUT_IT for answer in answers[-1].history):
        return "it was redirected to where a message does not arrive"
    if (
        answers
        and _service(to.url) in _SAYS_OK_BUT_FAILS
        and _SOUNDS_LIKE_AN_ERROR.search(_text(answers[-1]))
    ):
        return _without_secrets(f"HTTP {answers[-1].status_code}, but: {_text(answers[-1])}", to)
    return ""


def _within(seconds: float, call: Callable[[], T]) -> T:
    """What a call gives; it is left to itself when it takes longer, as with a service that answers drop by drop.

    Raises:
        TimeoutError: it did.
        Exception: what the call raises.
    """
    done: Future[T] = Future()

    def work() -> None:
        try:
            done.set_result(call())
        except BaseException as error:
            done.set_exception(error)

    threading.Thread(target=work, daemon=True).start()
    try:
        return done.result(seconds)
    except TimeoutError:
        raise TimeoutError(f"not done after {seconds:.0f} s") from None


def _service(url: str) -> str:
    scheme = re.match(r"[A-Za-z][\w+-]*(?=://)", url)
    return scheme[0].lower() if scheme else "unreadable"


def _text(answer: requests.Response) -> str:
    printable = "".join(char if char.isprintable() else " " for char in answer.text[:300])
    return " ".join(printable.split()) or "without a text"


def _without_secrets(text: str, to: Address) -> str:
    """The text without any part of the address, whoever repeated it."""
    parts = re.split(r"[/:@?&=#]+", to.url)
    for part in sorted({*parts, *map(unquote, parts)}, key=len, reverse=True):
        if len(part) >= 4:
            text = re.sub(re.escape(part), "…", text, flags=re.I)
    text = re.sub(r"\b(Basic|Bearer)\s+\S+", r"\1 …", text, flags=re.I)
    return re.sub(r"\w+://\S+", "…", text)


@contextmanager
def _quiet() -> Iterator[None]:
    """apprise's own log may name hosts and users; what matters is in the return value."""
    logger = logging.getLogger("apprise")
    before, logger.disabled = logger.disabled, True
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of an address that asks for no certificate
            yield
    finally:
        logger.disabled = before


@contextmanager
def _answers() -> Iterator[list[requests.Response]]:
    """The HTTP answers that come in meanwhile; apprise does not hand out their texts."""
    import requests

    seen: list[requests.Response] = []
    original = requests.Session.send

    def send_and_keep(session: requests.Session, request: Any, **options: Any) -> requests.Response:
        answer = original(session, request, **options)
        seen.append(answer)
        return answer

    requests.Session.send = send_and_keep  # type: ignore[method-assign, assignment]
    try:
        yield seen
    finally:
        requests.Session.send = original  # type: ignore[method-assign, assignment]
