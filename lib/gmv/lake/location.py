"""Where lake, landing and runs are: a folder, or a place in an object store (`s3://bucket/prefix`).

A place acts as a Path (`/`, `name`, `exists`, `glob`, `open`, `str`); where the difference matters, `is_remote`
tells it. Credentials and endpoint come from AWS's standard chain: environment,
profile, role. Nothing here reads, passes or keeps them.
"""

from __future__ import annotations

import datetime as dt
import hashlib
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, ClassVar, cast

from gmv.errors import GmvError, UsageError

ZONES = {"bronze": "raw", "silver": "curated", "gold": "analytics", "monitoring": "analytics"}
"""The bucket of each layer, where a lake is split: what `{zone}` stands for in its location."""

_REMOTE = re.compile(r"s3a?:/+(?=[^/])")  # a Path holds s3://bucket as s3:/bucket
_ADDRESS = re.compile(r"[A-Za-z][\w+.-]+:(/|$)")  # and gs://bucket as gs:/bucket, s3:// as s3:


def location(given: str | os.PathLike[str]) -> Path:
    """The folder of that name, absolute; or the place in S3, which acts as a Path.

    `s3://acme-gmv-{zone}/lake` is a lake over three buckets: `{zone}` becomes raw, curated or analytics, by
    the table's layer (`ZONES`).

    Raises:
        UsageError: for another scheme than s3.
        GmvError: S3 is asked for and its packages are missing.
    """
    text = str(given)
    if not _REMOTE.match(text):
        if _ADDRESS.match(text):
            raise UsageError(f"{text}: this is neither a folder nor a place in S3 (s3://bucket/prefix).")
        return Path(os.path.abspath(Path(text).expanduser()))
    uri = _REMOTE.sub("s3://", text, count=1).rstrip("/")
    _tell_delta_rs()
    return cast(Path, SplitLake(uri) if "{zone}" in uri else _place(uri))


def is_remote(path: str | os.PathLike[str]) -> bool:
    """Whether it is in an object store."""
    return bool(_REMOTE.match(str(path)))


class SplitLake:
    """A lake over several buckets: `/` finds the bucket of a table by its layer."""

    def __init__(self, template: str) -> None:
        self._template = template

    def __truediv__(self, path: str) -> Path:
        zone = ZONES.get(str(path).split("/")[0], "analytics")
        return cast(Path, _place(self._template.replace("{zone}", zone)) / str(path))

    def __str__(self) -> str:
        return self._template

    def __fspath__(self) -> str:
        return self._template


@dataclass(frozen=True)
class StoredObject:
    """An object below a place, as it was listed."""

    path: str
    """Below the place, with forward slashes."""
    location: Path
    size: int
    """Bytes."""
    modified_at: dt.datetime
    """UTC without zone; S3 tells whole seconds."""


def objects(place: Path) -> list[StoredObject]:
    """All objects below a place.

    Raises:
        GmvError: they can't be listed.
    """
    check(place)
    bucket, prefix = _bucket_and_prefix(place)
    return [
        StoredObject(
            found["Key"].removeprefix(prefix),
            cast(Path, _place(f"s3://{bucket}/{found['Key']}")),
            found["Size"],
            found["LastModified"].astimezone(dt.UTC).replace(tzinfo=None),
        )
        for found in _listed(bucket, prefix)
        if not found["Key"].endswith("/")
    ]


def _bucket_and_prefix(place: object) -> tuple[str, str]:
    """With its last slash: without it, `gmv` is also what begins `gmv-of-others`, which a role need not be allowed."""
    bucket, _, prefix = str(place).removeprefix("s3://").partition("/")
    return bucket, prefix and prefix.rstrip("/") + "/"


def _listed(bucket: str, prefix: str) -> Iterator[dict[str, Any]]:
    # s3fs's own find and glob also look at the prefix as if it were an object, which a role need not be allowed.
    more: dict[str, str] = {}
    while True:
        told = filesystem().call_s3("list_objects_v2", Bucket=bucket, Prefix=prefix, **more)
        yield from told.get("Contents", [])
        if not told.get("IsTruncated"):
            return
        more = {"ContinuationToken": told["NextContinuationToken"]}


def newest(folder: Path, name: str, within: str = "") -> tuple[Path, dt.datetime] | None:
    """The newest file of a name in the folders of a folder, and when it was written (UTC, without zone).

    Args:
        within: only in folders whose names begin so.
    """
    if is_remote(folder):
        written = [
            (found.location, found.modified_at)
            for found in objects(folder)
            if found.path.count("/") == 1
            and found.path.endswith(f"/{name}")
            and found.path.startswith(within)
        ]
    else:
        written = [
            (file, dt.datetime.fromtimestamp(file.stat().st_mtime, dt.UTC).replace(tzinfo=None))
            for file in folder.glob(f"{within}*/{name}")
        ]
    return max(written, key=lambda one: one[1], default=None)


def filesystem() -> Any:
    """The object store as an fsspec filesystem.

    Raises:
        GmvError: its packages are missing.
    """
    return cast(Any, _place("s3://any")).fs


@lru_cache(maxsize=1)
def filesystem_of_data() -> Any:
    """The object store for DuckDB to read Delta's data files from: what they are like is asked once per process.

    Such a file never changes. DuckDB asks a dozen times per file and query, which takes longer than reading it.
    """
    from s3fs import S3FileSystem

    class DataFiles(S3FileSystem):
        known: ClassVar[dict[str, dict[str, Any]]] = {}

        async def _info(self, path: str, *given: Any, **options: Any) -> dict[str, Any]:
            key = self._strip_protocol(path)
            if key not in self.known:
                self.known[key] = await super()._info(path, *given, **options)
            return self.known[key]

    return DataFiles(use_listings_cache=False)


def check(path: Path) -> None:
    """Find out whether a place can be listed; a folder is left to the file system.

    Raises:
        GmvError: there is no such bucket, no permission, no valid credential, or no answer.
    """
    if not is_remote(path):
        return
    for place in over_buckets(path):
        bucket, prefix = _bucket_and_prefix(place)
        with explained(place):
            filesystem().call_s3("list_objects_v2", Bucket=bucket, Prefix=prefix, MaxKeys=1)


def over_buckets(path: Path) -> list[str]:
    """The places that make up a lake: one, or as many as it has buckets."""
    return sorted({str(path).replace("{zone}", zone) for zone in ZONES.values()})


def remove(folder: Path) -> None:
    """Remove a folder or place and what is in it, if it is there."""
    if is_remote(folder):
        if filesystem().exists(str(folder)):
            filesystem().rm(str(folder), recursive=True)
    else:
        import shutil

        shutil.rmtree(folder, ignore_errors=True)


def upload(folder: Path, place: Path, skip_before: float = 0) -> float:
    """Copy a folder's files to a place.

    Args:
        skip_before: leave out files that were last changed before this time (seconds of the epoch).

    Returns:
        The newest change among the files: what the next call may skip before.
    """
    newest = skip_before
    for file in sorted(folder.rglob("*")):
        if file.is_file() and (changed := file.stat().st_mtime) >= skip_before:
            filesystem().put_file(str(file), str(place / file.relative_to(folder).as_posix()))
            newest = max(newest, changed)
    return newest


def require_lake(lake: Path) -> None:
    """Let only a lake pass that is there; one in an object store is not looked for.

    Raises:
        UsageError: there is no such folder.
    """
    if not is_remote(lake) and not lake.is_dir():
        raise UsageError(f"There is no lake at {lake}: nothing was done. Name another by --lake.")


def local_twin(path: Path) -> Path:
    """The folder of this user and machine that belongs to a place; a folder itself. It need not exist."""
    if not is_remote(path):
        return path
    name = hashlib.sha256(str(path).encode()).hexdigest()[:16]
    cache = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(cache) / "gmv" / name


def make_new(folder: Path) -> None:
    """Make a run's, a report's or a proof's folder on this machine.

    Raises:
        GmvError: it can't be made.
    """
    try:
        folder.mkdir(parents=True)
    except OSError as error:
        raise GmvError(
            f"The folder {folder} can't be made: {error.strerror}. Name another place by --runs-dir."
        ) from error


@contextmanager
def explained(place: object) -> Iterator[None]:
    """Turn an object store's error into a sentence about `place`.

    Raises:
        GmvError: instead of whatever was raised, when it is one that `explanation` knows.
    """
    try:
        yield
    except GmvError:
        raise
    except Exception as error:
        sentence = explanation(chained(error))
        if sentence is None:
            raise
        raise GmvError(f"{place}: {sentence}") from error


def chained(error: BaseException) -> str:
    """An error's type and text, and those of its causes."""
    told, cause = [], cast(BaseException | None, error)
    while cause:
        told.append(f"{type(cause).__name__}: {cause}")
        cause = cause.__cause__ or cause.__context__
    return "; ".join(told)


_EXPLANATIONS = (
    (
        r"NoCredentials|Unable to locate credentials|no providers in chain|Unable to load credentials",
        "no credentials were found. Set AWS_PROFILE, or AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, "
        "or give this machine a role.",
    ),
    (
        r"ExpiredToken|TokenRefreshRequired|RequestExpired|token.{0,40}expired",
        "the credentials have expired. Renew them and run again.",
    ),
    (
        r"InvalidAccessKeyId|SignatureDoesNotMatch|InvalidToken|UnrecognizedClient",
        "the store does not accept these credentials. Look at AWS_PROFILE or AWS_ACCESS_KEY_ID.",
    ),
    (
        r"NoSuchBucket|InvalidBucketName|Invalid bucket name|bucket is not valid",
        "there is no such bucket. Make it, or name another.",
    ),
    (  # it comes as a refusal, too
        r"RequestTimeTooSkewed",
        "this machine's clock and the store's differ too much. Set the clock and run again.",
    ),
    (
        r"AccessDenied|Access Denied|Forbidden|PermissionError|status code: 403|Status Code: 403",
        "permission is missing. docs/cloud.md lists what each bucket needs.",
    ),
    (
        r"EndpointConnection|ConnectTimeout|ReadTimeout|Connection refused|ConnectionClosed|ConnectionError|"
        r"Could not connect|error sending request|Unable to execute HTTP request|ServerTimeout|FSTimeout",
        "the object store does not answer. What was committed stays; run again when it does.",
    ),
)


def replace_text(file: Path, text: str) -> None:
    """As `replace_bytes`, in UTF-8."""
    replace_bytes(file, text.encode())


def replace_bytes(file: Path, content: bytes) -> None:
    """Write a file of this machine: a reader, and whoever comes after a kill, sees the old or the new, never a part.

    Until then it has a name with a dot before it, which engines that read a folder leave alone.
    """
    partial = file.with_name(f".{file.name}.partial")
    partial.write_bytes(content)
    partial.replace(file)


def explanation(error: str) -> str | None:
    """What an object store's error message means and what to do; None where it is something else."""
    return next((told for sign, told in _EXPLANATIONS if re.search(sign, error)), None)


def _place(uri: str) -> Any:
    try:
        import s3fs  # noqa: F401
        from fsspec.asyn import get_loop
        from upath import UPath

        # Whoever asked gets the error; what a connection says of it besides would only be printed.
        get_loop().set_exception_handler(lambda loop, context: None)
        # A cached listing would hide what arrived since.
        return UPath(uri, use_listings_cache=False)
    except ImportError:
        raise GmvError(
            f"{uri}: S3 needs a few more packages and jars. Get them once: make setup-s3"
        ) from None


def _tell_delta_rs() -> None:
    """delta-rs takes these from the environment only; the rest of AWS's variables it knows itself."""
    os.environ.setdefault("AWS_CONDITIONAL_PUT", "etag")
    # Else it looks for a profile or a role in AWS only, not for a store that AWS_ENDPOINT_URL names.
    os.environ.setdefault("AWS_FORCE_CREDENTIAL_LOAD", "true")
    if os.environ.get("AWS_ENDPOINT_URL", "").startswith("http://"):
        os.environ.setdefault("AWS_ALLOW_HTTP", "true")
