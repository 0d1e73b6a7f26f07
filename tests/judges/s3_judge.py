"""A store of others: moto's S3 on this machine, which checks each signature, and boto3 that looks into it.

    s3_judge.py

The first line is where it is and who may use it. Then each line of standard input is an order, and has an answer of one line:
list, get, put and delete an object, take all to a folder, or compare a folder's segments with what was taken.
"""

import base64
import gzip
import json
import os
import pathlib
import sys

# Nobody asks beyond this machine.
os.environ["AWS_EC2_METADATA_DISABLED"] = "true"
os.environ["INITIAL_NO_AUTH_ACTION_COUNT"] = "4"

import boto3
from botocore.config import Config
from moto.moto_server.threaded_moto_server import ThreadedMotoServer

BUCKET = "signet-archive"

server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
server.start()
host, port = server.get_host_and_port()
endpoint = f"http://{host}:{port}"


def client(service, **credentials):
    return boto3.client(service, endpoint_url=endpoint, region_name="us-east-1", config=Config(retries={"max_attempts": 1}), **credentials)


# These four are asked without a check; afterwards each request must be signed by somebody who may do that.
anybody = {"aws_access_key_id": "anybody", "aws_secret_access_key": "anybody"}
iam = client("iam", **anybody)
iam.create_user(UserName="signet")
allow = {"Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Action": "s3:*", "Resource": "*"}]}
iam.put_user_policy(UserName="signet", PolicyName="archive", PolicyDocument=json.dumps(allow))
key = iam.create_access_key(UserName="signet")["AccessKey"]
client("s3", **anybody).create_bucket(Bucket=BUCKET)
own = {"aws_access_key_id": key["AccessKeyId"], "aws_secret_access_key": key["SecretAccessKey"]}
s3 = client("s3", **own)
print(json.dumps({"endpoint": endpoint, "bucket": BUCKET, "id": key["AccessKeyId"], "secret": key["SecretAccessKey"]}), flush=True)


def names():
    pages = s3.get_paginator("list_objects_v2").paginate(Bucket=BUCKET)
    return [one["Key"] for page in pages for one in page.get("Contents", [])]


def obey(order):
    what, name = order["do"], order.get("key")
    if what == "list":
        return names()
    if what == "get":
        return base64.b64encode(s3.get_object(Bucket=BUCKET, Key=name)["Body"].read()).decode()
    if what == "put":
        s3.put_object(Bucket=BUCKET, Key=name, Body=base64.b64decode(order["body"]))
    if what == "delete":
        s3.delete_object(Bucket=BUCKET, Key=name)
    if what == "fetch":
        # As docs/audit.md tells somebody who has no signet: the objects, and all heads in one file.
        to = pathlib.Path(order["to"])
        heads = b""
        for key in sorted(names()):
            body = s3.get_object(Bucket=BUCKET, Key=key)["Body"].read()
            file = key.rsplit("/", 1)[-1]
            if file.startswith("heads-"):
                heads += gzip.decompress(body)
            else:
                (to / file).write_bytes(body)
        (to / "heads").write_bytes(heads)
    return None


for line in sys.stdin:
    print(json.dumps(obey(json.loads(line))), flush=True)
