"""Ceph's object gateway, as Debian has it: a monitor, one OSD that keeps all in memory, and the gateway."""

import subprocess
import uuid

import tools
from machines import clean_environment, free_port
from s3_claims import conditional_writes, overtaken_uploads
from s3_store import S3Store

SETTINGS = """[global]
fsid = {fsid}
mon host = v2:127.0.0.1:{mon_port}
ms bind msgr1 = false
public network = 127.0.0.0/8
keyring = {data}/keyring
mon data = {data}/mon
osd data = {data}/osd
rgw data = {data}/rgw
run dir = {data}
log file = {data}/$name.log
admin socket =
plugin dir = {libraries}/ceph
erasure code dir = {libraries}/ceph/erasure-code
osd class dir = {libraries}/rados-classes
osd objectstore = memstore
memstore device bytes = 8589934592
mon allow pool size one = true
mon data avail crit = 0
osd pool default size = 1
osd pool default pg num = 4
osd pool default pgp num = 4
osd pool default pg autoscale mode = off
"""
MAY_ALL = ["--cap", "mon", "allow *", "--cap", "osd", "allow *"]


class Ceph(S3Store):
    name, scheme = "ceph", "s3"
    own_claims = (conditional_writes, overtaken_uploads)

    def __init__(self, scratch):
        super().__init__(scratch)
        self.root, libraries = tools.ceph()
        self.environment = clean_environment(
            CEPH_CONF=str(self.data / "ceph.conf"),
            LD_LIBRARY_PATH=f"{libraries}:{self.root}/lib/x86_64-linux-gnu:{libraries}/ceph",
            PYTHONPATH=f"{self.root}/usr/lib/python3/dist-packages",
        )
        for directory in ("mon", "osd", "rgw"):
            (self.data / directory).mkdir()
        self.make_cluster(str(uuid.uuid4()), libraries)

    def make_cluster(self, fsid, libraries):
        """The monitor and the OSD, which go on when the gateway is stopped."""
        data, mon_port = self.data, free_port()
        settings = SETTINGS.format(fsid=fsid, mon_port=mon_port, data=data, libraries=libraries)
        (data / "ceph.conf").write_text(settings)
        new = ["--create-keyring"]
        for name in ("mon.", "client.admin", "osd.0"):
            self.ran("ceph-authtool", data / "keyring", *new, "--gen-key", "-n", name, *MAY_ALL)
            new = []
        only = f"[v2:127.0.0.1:{mon_port}]"
        self.ran("monmaptool", "--create", "--fsid", fsid, "--addv", "a", only, data / "monmap")
        self.ran("ceph-mon", "--mkfs", "-i", "a", "--monmap", data / "monmap")
        self.started("ceph-mon", "-i", "a")
        osd = str(uuid.uuid4())
        # `ceph` is a program of Debian's Python, with a module for that.
        self.ran("ceph", "--connect-timeout", "60", "osd", "new", osd, "0", by=["/usr/bin/python3", "-B"])
        self.ran("ceph-osd", "--mkfs", "-i", "0", "--osd-uuid", osd)
        self.started("ceph-osd", "-i", "0")
        user = ["--uid", "curvine", "--display-name", "curvine"]
        self.ran("radosgw-admin", "user", "create", *user, "--access-key", self.key, "--secret-key", self.secret)

    def ran(self, program, *words, by=()):
        command = [*by, self.root / "usr" / "bin" / program, *words]
        ended = subprocess.run(command, env=self.environment, capture_output=True, text=True, timeout=120, check=False)
        assert ended.returncode == 0, f"{program}: exit code {ended.returncode}: {ended.stderr.strip()[-1000:]}"

    def started(self, program, *words):
        command = [self.root / "usr" / "bin" / program, "-f", *words]
        return self.scratch.start(command, f"{program}.log", env=self.environment)

    def launch(self):
        return self.started("radosgw", "-n", "client.admin", "--rgw-frontends", f"beast endpoint=127.0.0.1:{self.port}")

    def own_options(self):
        return {"endpoint": self.endpoint, "access_key_id": self.key, "secret_access_key": self.secret}

    def wrong(self):
        return self.options(secret_access_key=self.wrong_secret)
