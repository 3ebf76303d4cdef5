"""HDFS with two name nodes, of which one is active: a name service."""

import signal

from hadoop import SMALL, configure, java
from machines import clean_environment, free_port
from report import equal, until

NAME = "pair"
IDS = ("one", "two")


class Pair:
    """Two name nodes that share a log, and a data node that tells both."""

    def __init__(self, scratch, user):
        self.scratch, self.user = scratch, user
        self.data = scratch.path / "hdfs-pair"
        self.ports = {name: free_port() for name in IDS}
        everywhere = {
            "dfs.nameservices": NAME,
            f"dfs.ha.namenodes.{NAME}": ",".join(IDS),
            **{f"dfs.namenode.rpc-address.{NAME}.{name}": f"127.0.0.1:{port}" for name, port in self.ports.items()},
            **{f"dfs.namenode.http-address.{NAME}.{name}": f"127.0.0.1:{free_port()}" for name in IDS},
            f"dfs.client.failover.proxy.provider.{NAME}":
                "org.apache.hadoop.hdfs.server.namenode.ha.ConfiguredFailoverProxyProvider",
            "dfs.namenode.shared.edits.dir": f"file://{self.data}/edits",
            "dfs.ha.fencing.methods": "shell(true)",
            "dfs.ha.tail-edits.period": "1s",
            "dfs.datanode.data.dir": self.data / "blocks",
            "dfs.datanode.address": f"127.0.0.1:{free_port()}",
            "dfs.datanode.http.address": f"127.0.0.1:{free_port()}",
            "dfs.datanode.ipc.address": f"127.0.0.1:{free_port()}",
            "dfs.datanode.hostname": "127.0.0.1",
            **SMALL,
        }
        core = {"fs.defaultFS": f"hdfs://{NAME}", "ipc.client.connect.max.retries": 1, "ipc.client.rpc-timeout.ms": 5_000}
        for name in IDS:
            own = {"dfs.ha.namenode.id": name, "dfs.namenode.name.dir": self.data / name}
            configure(self.data / f"conf-{name}", {**core, "hadoop.tmp.dir": self.data / "tmp"}, {**everywhere, **own})
        self.processes = {}

    def begin(self, name, program, *words):
        command = [*java(self.data / f"conf-{name}"), f"org.apache.hadoop.hdfs.{program}", *words]
        log = f"hdfs-pair-{name}-{program.rsplit('.', 1)[1]}.log"
        return self.scratch.start(command, log, env=clean_environment(HADOOP_USER_NAME=self.user))

    def name_node(self, name, *words):
        return self.begin(name, "server.namenode.NameNode", *words)

    def start(self):
        assert self.name_node("one", "-format", "-nonInteractive").wait() == 0, "not formatted"
        self.processes["one"] = self.name_node("one")
        until(lambda: self.name_node("two", "-bootstrapStandby", "-nonInteractive", "-force").wait() == 0, "a second one", 60)
        self.processes["two"] = self.name_node("two")
        self.processes["data"] = self.begin("one", "server.datanode.DataNode")
        for name in IDS:
            until(lambda name=name: self.admin("-checkHealth", name), f"{name} serves", 60)

    def admin(self, *words):
        """What `hdfs haadmin` does."""
        return self.begin("two", "tools.DFSHAAdmin", *words).wait() == 0

    def become(self, state, name, *more):
        until(lambda: self.admin(f"-transitionTo{state}", *more, name), f"{name} is {state}", 60)

    def options(self, ids=IDS):
        pairs = {f"dfs.ha.namenodes.{NAME}": ",".join(ids), "user_name": self.user}
        pairs |= {f"dfs.namenode.rpc-address.{NAME}.{name}": f"127.0.0.1:{self.ports[name]}" for name in ids}
        return [word for name, value in pairs.items() for word in ("-o", f"{name}={value}")]

    def end(self):
        for process in self.processes.values():
            process.kill()
            process.wait()


def several_name_nodes(trial):
    """A name service is mounted by the keys of hdfs-site.xml, and goes on when another name node is active"""
    cv, pair, top = trial.cv, Pair(trial.scratch, trial.store.user), "/pair"
    uri = f"hdfs://{NAME}/data"
    # Alone they would name no name service.
    by_file = ["-o", f"config_dir={pair.data}/conf-one", "-o", f"user_name={pair.user}"]

    def writes(name):
        """Whether a new file is written, and read by a mount that knows nothing of it."""
        code, *_ = cv.run("put", "-f", "-", f"{top}/{name}", stdin=name.encode())
        return code == 0 and cv.run("cat", f"{top}/{name}")[:2] == (0, name.encode())

    try:
        with trial.check("two name nodes and a data node serve"):
            pair.start()
        with trial.check("while no name node is active, a mount is refused in these words"):
            cv.refused("mount", uri, top, *pair.options(), "--write", says=[uri, "no name node", "haadmin"], code=4)
        with trial.check("by the keys of hdfs-site.xml as options, the active one is found, whichever it is"):
            pair.become("Active", "two")
            until(lambda: cv.run("mount", uri, top, *pair.options(), "--write", "--staleness", "0s")[0] == 0, "a mount", 60)
            until(lambda: writes("first"), "a file", 60)
        with trial.check("by hdfs-site.xml itself, too"):
            cv("mount", uri, "/pair-by-file", *by_file)
            equal(cv("cat", "/pair-by-file/first"), b"first")
            cv("umount", "/pair-by-file")
        with trial.check("when the active one dies and the other one takes over, all goes on"):
            pair.processes["two"].kill()
            pair.processes["two"].wait()
            pair.become("Active", "one", "--forceactive")
            until(lambda: writes("second"), "a file", 60)
            equal(cv("cat", f"{top}/first"), b"first")
        with trial.check("when the active one falls silent and the other one takes over, all goes on"):
            pair.processes["two"] = pair.name_node("two")
            until(lambda: pair.admin("-checkHealth", "two"), "the other one is back", 60)
            pair.processes["one"].send_signal(signal.SIGSTOP)
            pair.become("Active", "two", "--forceactive")
            until(lambda: writes("third"), "a file", 180)
            equal(cv("cat", f"{top}/second"), b"second")
        cv("umount", "--force", top)
    finally:
        pair.end()
