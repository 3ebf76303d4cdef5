"""Azurite: Azure Blob Storage by the emulator of its vendor, which checks signatures."""

import base64
import logging

import tools
from azure.core.exceptions import AzureError
from azure.storage.blob import BlobServiceClient
from machines import clean_environment
from store import Store

logging.getLogger("azure").setLevel(logging.ERROR)


class Azurite(Store):
    name, scheme = "azurite", "az"
    account = "curvine"
    key = base64.b64encode(b"the key of an account to try").decode()
    wrong_key = base64.b64encode(b"another key, of nobody").decode()
    secrets = (key, wrong_key)
    # Azure says AuthenticationFailed here, and Azurite the same as where somebody may not.
    denied = "access was denied"

    def __init__(self, scratch):
        super().__init__(scratch)
        self.program = tools.azurite()
        self.endpoint += f"/{self.account}"
        account = {"account_name": self.account, "account_key": self.key}
        self.client = BlobServiceClient(self.endpoint, credential=account, retry_total=0, connection_timeout=5)
        self.container = self.client.get_container_client(self.BUCKET)

    def launch(self):
        options = ["--blobHost", "127.0.0.1", "--blobPort", self.port, "--location", self.data, "--silent"]
        options += ["--skipApiVersionCheck", "--disableTelemetry"]
        environment = clean_environment(AZURITE_ACCOUNTS=f"{self.account}:{self.key}")
        return self.scratch.start([*self.program, *options], "azurite.log", env=environment)

    def answers(self):
        try:
            self.client.get_service_properties()
            return True
        except AzureError:
            return False

    def own_options(self):
        return {"endpoint": self.endpoint, "account_name": self.account, "account_key": self.key}

    def wrong(self):
        return self.options(account_key=self.wrong_key)

    def make_bucket(self):
        self.container.create_container()

    def put(self, key, content):
        self.container.upload_blob(key, content, overwrite=True)

    def get(self, key):
        return self.container.download_blob(key).readall()

    def delete(self, key):
        self.container.delete_blob(key)

    def keys(self, prefix):
        found = self.container.list_blobs(name_starts_with=prefix)
        return sorted(blob.name for blob in found if not blob.name.endswith("/"))
