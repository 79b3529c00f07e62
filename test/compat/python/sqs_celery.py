"""Celery over SQS: `sqs_celery.py ENDPOINT [predefined]` starts a worker on the SQS transport, sends tasks, and prints what
the worker has written of them. With `predefined` the queue is named by its URL and nothing is listed or made."""

import json
import os
import subprocess
import sys
import tempfile
import time

import boto3
from celery import Celery

endpoint = os.environ.get("SQS_ENDPOINT") or sys.argv[1]
is_predefined = os.environ.get("SQS_PREDEFINED", "yes" if "predefined" in sys.argv else "") == "yes"
results = os.environ.get("SQS_RESULTS", "")
name = "celery-predefined" if is_predefined else "celery-found"
account = {"access_key_id": "any", "secret_access_key": "any"}
options = {"region": "us-east-1", "visibility_timeout": 60, "wait_time_seconds": 2, "polling_interval": 0.1}
if is_predefined:
    options["predefined_queues"] = {name: {"url": f"{endpoint}/000000000000/{name}", **account}}
app = Celery("sqs_celery", broker=endpoint.replace("http://", "sqs://any:any@"))
app.conf.update(
    task_default_queue=name,
    broker_transport_options={**options, "is_secure": False},
    task_ignore_result=True,
    worker_enable_remote_control=False,
    broker_connection_retry_on_startup=True,
)


@app.task(name="write", bind=True, max_retries=1)
def write(self, number):
    if number == 3 and self.request.retries == 0:
        raise self.retry(countdown=1)
    with open(results, "a", encoding="utf-8") as file:
        file.write(f"{number}\n")


def main():
    if is_predefined:
        client = boto3.client(
            "sqs", endpoint_url=endpoint, region_name="us-east-1", aws_access_key_id="any", aws_secret_access_key="any"
        )
        client.create_queue(QueueName=name)
    with tempfile.NamedTemporaryFile("r", suffix=".txt") as file:
        environment = {
            **os.environ,
            "SQS_ENDPOINT": endpoint,
            "SQS_PREDEFINED": "yes" if is_predefined else "no",
            "SQS_RESULTS": file.name,
            "PYTHONPATH": os.path.dirname(os.path.abspath(__file__)),
            "AWS_DEFAULT_REGION": "us-east-1",
        }
        worker = subprocess.Popen(
            [sys.executable, "-m", "celery", "-A", "sqs_celery", "worker", "-P", "solo", "-l", "WARNING"],
            env=environment,
            stdout=sys.stderr,
        )
        try:
            for number in range(5):
                write.apply_async((number,), countdown=1 if number == 4 else None)
            deadline = time.time() + 40
            lines = []
            while time.time() < deadline and len(lines) < 5:
                with open(file.name, encoding="utf-8") as found:
                    lines = found.read().split()
                time.sleep(0.2)
            print(json.dumps(sorted(lines)), flush=True)
        finally:
            worker.terminate()
            worker.wait(20)


if __name__ == "__main__":
    main()
