"""Spark sessions as docs/spark.md has them configured, each in a Java process of its own."""

import os
import re

from pyspark import SparkContext
from pyspark.sql import SparkSession

import tools

# What the page has in the places of a reader's own names.
JAR = "/opt/curvine/curvine-hadoop-0.1.0.jar"
MASTERS = "master-1:8995,master-2:8995,master-3:8995"


def blocks(page, language):
    """The code in a page of the documentation that is marked with a language."""
    text = (tools.PAGES / page).read_text()
    found = re.findall(rf"^```{language}\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
    assert found, f"docs/{page} has no code marked {language}"
    return found


def here(text, jar, masters):
    """What a page says, with the names of this place."""
    return text.replace(JAR, str(jar)).replace(MASTERS, masters)


def configuration(scratch, jar, masters):
    """Spark's directory of configuration, with what the page says and a log that does not drown the checks."""
    directory = scratch.path / f"spark-conf-{masters.replace(':', '-').replace(',', '-')}"
    directory.mkdir(exist_ok=True)
    defaults = here(blocks("spark.md", "properties")[0], jar, masters)
    (directory / "spark-defaults.conf").write_text(defaults)
    (directory / "log4j2.properties").write_text(
        "rootLogger.level = warn\nrootLogger.appenderRef.file.ref = file\nappender.file.type = File\nappender.file.name = file\n"
        f"appender.file.fileName = {scratch.path}/spark.log\nappender.file.layout.type = PatternLayout\n"
        "appender.file.layout.pattern = %d{HH:mm:ss} %p %c{1}: %m%n%ex\n"
    )
    return directory


class Session:
    """A Spark session on a cluster, until the block ends."""

    def __init__(self, scratch, jar, masters, master="local[2,2]", user=None, **options):
        self.scratch, self.jar, self.masters, self.master, self.user = scratch, jar, masters, master, user
        self.options = options

    def __enter__(self):
        environment = {
            "SPARK_CONF_DIR": str(configuration(self.scratch, self.jar, self.masters)),
            "SPARK_LOCAL_IP": "127.0.0.1",
            # Where Spark's Python workers find what they are to run.
            "PYTHONPATH": os.path.dirname(__file__),
        }
        # Of whoever calls the test.
        for name in ("SPARK_HOME", "HADOOP_CONF_DIR", "PYSPARK_SUBMIT_ARGS", "HADOOP_USER_NAME"):
            os.environ.pop(name, None)
        if self.user:
            environment["HADOOP_USER_NAME"] = self.user
        os.environ.update(environment)
        options = {
            "spark.ui.enabled": "false",
            "spark.ui.showConsoleProgress": "false",
            "spark.sql.shuffle.partitions": "2",
            "spark.local.dir": f"{self.scratch.path}/spark-local",
            # A session here does not live long enough for the second compiler.
            "spark.driver.extraJavaOptions": f"-XX:TieredStopAtLevel=1 -Dderby.system.home={self.scratch.path}",
            **self.options,
        }
        builder = SparkSession.builder.master(self.master)
        for name, value in options.items():
            builder = builder.config(name, value)
        self.spark = builder.getOrCreate()
        return self.spark

    def __exit__(self, *_):
        self.spark.stop()
        # The next one starts a Java process of its own, with its own class path.
        gateway = SparkContext._gateway
        gateway.shutdown()
        gateway.proc.stdin.close()
        gateway.proc.wait(timeout=60)
        SparkContext._gateway = SparkContext._jvm = None


class Files:
    """Hadoop's FileSystem, as the session sees it."""

    def __init__(self, spark, root):
        self.jvm, self.root = spark._jvm, root
        self.configuration = spark._jsc.hadoopConfiguration()
        self.path = self.jvm.org.apache.hadoop.fs.Path
        self.fs = self.path(root).getFileSystem(self.configuration)

    def below(self, directory):
        """The files below a directory, by their paths from there, and their lengths; none if it is not there."""
        where = self.path(directory)
        if not self.fs.exists(where):
            return {}
        found, files = {}, self.fs.listFiles(where, True)
        while files.hasNext():
            status = files.next()
            found[status.getPath().toString().split(f"{where.toUri().getPath()}/", 1)[1]] = status.getLen()
        return found

    def read(self, file):
        stream = self.fs.open(self.path(file))
        try:
            return bytes(self.jvm.org.apache.commons.io.IOUtils.toByteArray(stream)).decode()
        finally:
            stream.close()
