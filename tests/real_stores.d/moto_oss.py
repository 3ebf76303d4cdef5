"""moto, which takes OSS for S3: their requests are the same but for copies, metadata and signatures."""

import sys

from s3_store import S3Store

ALIKE = "moto takes the requests of OSS for those of S3, and does not know its copies, metadata and signatures"


class MotoOss(S3Store):
    name, scheme = "moto-oss", "oss"
    without = {
        # `cv put -f` renames, and a rename is a copy.
        "writing_in_parts": ALIKE,
        "overwriting": ALIKE,
        "renaming_a_file": ALIKE,
        "renaming_a_directory": ALIKE,
        "attributes": ALIKE,
        "wrong_credentials": ALIKE,
        "stopped_server": "moto forgets everything when it ends",
    }

    def launch(self):
        return self.scratch.start([sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", self.port], "moto.log")

    def own_options(self):
        keys = {"access_key_id": self.key, "access_key_secret": self.secret}
        return {"endpoint": self.endpoint, "addressing_style": "path", **keys}
