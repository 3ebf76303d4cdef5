"""A server that is asked by a client of S3, beside Curvine."""

import boto3
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError
from store import Store


class S3Store(Store):
    key, secret = "curvine-real-stores", "tOpSeCrEt-0f-real-stores/+="
    wrong_secret = "wr0ng-0f-real-stores"
    secrets = (secret, wrong_secret)

    def __init__(self, scratch):
        super().__init__(scratch)
        self.client = boto3.client(
            "s3",
            endpoint_url=self.endpoint,
            aws_access_key_id=self.key,
            aws_secret_access_key=self.secret,
            region_name="us-east-1",
            config=Config(s3={"addressing_style": "path"}, retries={"max_attempts": 2}, connect_timeout=5),
        )

    def answers(self):
        try:
            self.client.list_buckets()
            return True
        except (BotoCoreError, ClientError):
            return False

    def make_bucket(self):
        self.client.create_bucket(Bucket=self.BUCKET)

    def put(self, key, content):
        self.client.put_object(Bucket=self.BUCKET, Key=key, Body=content)

    def get(self, key):
        return self.client.get_object(Bucket=self.BUCKET, Key=key)["Body"].read()

    def delete(self, key):
        self.client.delete_object(Bucket=self.BUCKET, Key=key)

    def keys(self, prefix):
        pages = self.client.get_paginator("list_objects_v2").paginate(Bucket=self.BUCKET, Prefix=prefix)
        found = [item["Key"] for page in pages for item in page.get("Contents", [])]
        return sorted(key for key in found if not key.endswith("/"))
