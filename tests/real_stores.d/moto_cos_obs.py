"""moto behind a few lines that make it speak as COS and OBS do; of their signatures it knows nothing."""

import random
import sys
from pathlib import Path

from s3_store import S3Store

UNSIGNED = "moto does not look at the signatures of COS and OBS"
BY_HOST = "the bucket is named by the host's name alone, and here there is one host"
FORGETS = "moto forgets everything when it ends"


class MotoDialect(S3Store):
    without = {"wrong_credentials": UNSIGNED, "missing_bucket": BY_HOST, "stopped_server": FORGETS}

    def launch(self):
        program = Path(__file__).with_name("moto_dialect.py")
        host = self.endpoint.removeprefix("http://").partition(":")[0]
        command = [sys.executable, "-B", program, host, self.port, self.BUCKET, self.scheme]
        return self.scratch.start(command, f"{self.name}.log")

    def uri(self, prefix, bucket=None):
        return super().uri(prefix, bucket or self.BUCKET)


class MotoCos(MotoDialect):
    name, scheme = "moto-cos", "cos"
    # COS has the bucket in front of the host's name: so this one is at 127.0.0.1.
    BUCKET = "127"

    def own_options(self):
        return {"endpoint": self.endpoint, "secret_id": self.key, "secret_key": self.secret}


class MotoObs(MotoDialect):
    name, scheme = "moto-obs", "obs"

    def place(self):
        # OpenDAL takes the host of an endpoint, and leaves out the port.
        return f"127.{random.randrange(1, 255)}.{random.randrange(255)}.{random.randrange(1, 255)}", 80

    def own_options(self):
        return {"endpoint": self.endpoint, "access_key_id": self.key, "secret_access_key": self.secret}
