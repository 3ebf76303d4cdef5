"""moto for COS and OBS: their requests are those of S3, with other names of headers, and the bucket in the host's name.

    python moto_dialect.py HOST PORT BUCKET DIALECT

What a client of S3 asks, which signs as AWS does, is left as it is.
"""

import sys

from moto.moto_server.werkzeug_app import DomainDispatcherApplication, MotoRequestHandler, create_backend_app
from werkzeug.serving import run_simple


class Dialect:
    def __init__(self, moto, bucket, name):
        self.moto, self.bucket, self.name = moto, f"/{bucket}", name

    def __call__(self, asked, begin):
        if asked.get("HTTP_AUTHORIZATION", "").startswith("AWS4"):
            return self.moto(asked, begin)
        own, theirs = f"HTTP_X_{self.name.upper()}_", "HTTP_X_AMZ_"
        asked = {name.replace(own, theirs): value for name, value in asked.items()}
        for path in ("PATH_INFO", "RAW_URI", "REQUEST_URI"):
            asked[path] = self.bucket + asked[path]
        # Otherwise moto looks for a bucket there, too.
        asked["HTTP_HOST"] = "localhost"
        # It cannot read this signature, and looks at none.
        asked["HTTP_AUTHORIZATION"] = "AWS somebody:unsigned"

        def begin_in_dialect(status, headers, *more):
            named = [(name.lower().replace("x-amz-", f"x-{self.name}-"), value) for name, value in headers]
            return begin(status, named, *more)

        return self.moto(asked, begin_in_dialect)


if __name__ == "__main__":
    host, port, bucket, name = sys.argv[1:]
    moto = DomainDispatcherApplication(create_backend_app)
    run_simple(host, int(port), Dialect(moto, bucket, name), threaded=True, request_handler=MotoRequestHandler)
