"""boto3 against the SQS door, which is all its endpoint: `sqs_boto3.py ENDPOINT`. Prints one line of JSON for each check."""

import json
import sys

import boto3
from botocore.config import Config
from botocore.exceptions import ClientError

endpoint = sys.argv[1]
session = boto3.Session(aws_access_key_id="any", aws_secret_access_key="any", region_name="us-east-1")
sqs = session.client("sqs", endpoint_url=endpoint, config=Config(retries={"max_attempts": 1}))
resource = session.resource("sqs", endpoint_url=endpoint)


def say(check, value):
    print(json.dumps({"check": check, "value": value}), flush=True)


def code(call, **arguments):
    try:
        call(**arguments)
        return "no error"
    except ClientError as error:
        return [error.response["Error"]["Code"], error.response["ResponseMetadata"]["HTTPStatusCode"]]


url = sqs.create_queue(QueueName="boto", Attributes={"VisibilityTimeout": "40"}, tags={"a": "b"})["QueueUrl"]
say("url", url.rsplit("/", 2)[1:])
sqs.send_message(
    QueueUrl=url,
    MessageBody="hällo",
    MessageAttributes={"n": {"DataType": "Number", "StringValue": "1"}, "b": {"DataType": "Binary", "BinaryValue": b"\x00\xff"}},
)
message = sqs.receive_message(
    QueueUrl=url, WaitTimeSeconds=5, MessageAttributeNames=["All"], MessageSystemAttributeNames=["All"]
)["Messages"][0]
say("body", message["Body"])
say("attributes", [message["MessageAttributes"]["n"]["StringValue"], list(message["MessageAttributes"]["b"]["BinaryValue"])])
say("count", message["Attributes"]["ApproximateReceiveCount"])
sqs.change_message_visibility(QueueUrl=url, ReceiptHandle=message["ReceiptHandle"], VisibilityTimeout=0)
again = sqs.receive_message(QueueUrl=url, WaitTimeSeconds=5, AttributeNames=["All"])["Messages"][0]
say("again", again["Attributes"]["ApproximateReceiveCount"])
sqs.delete_message(QueueUrl=url, ReceiptHandle=again["ReceiptHandle"])
queue = resource.get_queue_by_name(QueueName="boto")
queue.send_messages(Entries=[{"Id": str(i), "MessageBody": f"m{i}"} for i in range(10)])
bodies = []
while len(bodies) < 10:
    for each in queue.receive_messages(MaxNumberOfMessages=10, WaitTimeSeconds=5):
        bodies.append(each.body)
        each.delete()
say("batch", sorted(bodies))
say("attributes of the queue", {k: queue.attributes[k] for k in ["VisibilityTimeout", "ApproximateNumberOfMessages"]})
say("tags", sqs.list_queue_tags(QueueUrl=url)["Tags"])
say("no queue", code(sqs.get_queue_url, QueueName="none"))
say("no handle", code(sqs.delete_message, QueueUrl=url, ReceiptHandle="x"))
say("empty batch", code(sqs.send_message_batch, QueueUrl=url, Entries=[]))
say("wrong attribute", code(sqs.set_queue_attributes, QueueUrl=url, Attributes={"DelaySeconds": "901"}))
fifo = sqs.create_queue(QueueName="boto.fifo", Attributes={"FifoQueue": "true", "ContentBasedDeduplication": "true"})["QueueUrl"]
first = sqs.send_message(QueueUrl=fifo, MessageBody="x", MessageGroupId="g")
second = sqs.send_message(QueueUrl=fifo, MessageBody="x", MessageGroupId="g")
say("duplicate", first["MessageId"] == second["MessageId"])
presigned = sqs.generate_presigned_url("send_message", Params={"QueueUrl": url, "MessageBody": "signed"}, HttpMethod="GET")
say("presigned", presigned.startswith(endpoint))
for page in sqs.get_paginator("list_queues").paginate(QueueNamePrefix="boto", PaginationConfig={"PageSize": 1}):
    say("page", [each.rsplit("/", 1)[1] for each in page.get("QueueUrls", [])])
sqs.delete_queue(QueueUrl=url)
say("deleted", code(sqs.send_message, QueueUrl=url, MessageBody="x"))
