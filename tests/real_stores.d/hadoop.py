"""How programs of Hadoop are configured and started."""

import shutil

import tools

LOG = """log4j.rootLogger=WARN, out
log4j.appender.out=org.apache.log4j.ConsoleAppender
log4j.appender.out.layout=org.apache.log4j.PatternLayout
log4j.appender.out.layout.ConversionPattern=%d %p %c: %m%n
"""
SMALL = {"dfs.replication": 1, "dfs.namenode.safemode.extension": 0, "dfs.datanode.du.reserved": 0}


def java(configuration):
    """The command that starts a class of Hadoop with this configuration."""
    # Its web server makes classes in ways that Java has closed since 17.
    opened = ["--add-opens", "java.base/java.lang=ALL-UNNAMED"]
    return [shutil.which("java"), *opened, "-Xmx512m", "-cp", f"{configuration}:{tools.hadoop()}"]


def configure(place, core, hdfs):
    """Makes a directory of configuration."""
    # Its jars are without the pages that it shows to people, and it does not start where there is no place for them.
    for page in ("hdfs", "datanode"):
        (place / "webapps" / page).mkdir(parents=True)
    (place / "log4j.properties").write_text(LOG)
    for name, values in {"core-site.xml": core, "hdfs-site.xml": hdfs}.items():
        rows = [f"<property><name>{key}</name><value>{value}</value></property>" for key, value in values.items()]
        (place / name).write_text(f"<configuration>{''.join(rows)}</configuration>\n")
