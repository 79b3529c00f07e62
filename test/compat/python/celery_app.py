"""Celery with quorum queues: its native delayed delivery declares 28 exchanges and queues, each of which holds messages for
a power of two of seconds and passes them on as dead letters. `celery_app.py AMQP_URL` starts a worker, sends tasks now, with
a countdown and with an ETA, and prints what came back and after how many seconds."""

import datetime
import json
import os
import subprocess
import sys
import time

from celery import Celery

url = sys.argv[1] if len(sys.argv) > 1 and sys.argv[1].startswith("amqp") else os.environ["CELERY_BROKER"]
app = Celery("celery_app", broker=url, backend="rpc://")
app.conf.update(
    task_default_queue="celery-quorum",
    task_default_queue_type="quorum",
    task_default_exchange_type="topic",
    broker_native_delayed_delivery_queue_type="quorum",
    worker_detect_quorum_queues=True,
    broker_transport_options={"confirm_publish": True},
    broker_connection_retry_on_startup=True,
    task_acks_late=True,
    task_reject_on_worker_lost=True,
    worker_prefetch_multiplier=1,
    worker_send_task_events=True,
)


@app.task(name="add")
def add(a, b):
    return {"sum": a + b, "at": time.time()}


@app.task(name="again", bind=True, max_retries=2, default_retry_delay=1)
def again(self):
    if self.request.retries < 2:
        raise self.retry(countdown=1)
    return {"sum": self.request.retries, "at": time.time()}


def main():
    environment = {**os.environ, "CELERY_BROKER": url, "PYTHONPATH": os.path.dirname(os.path.abspath(__file__))}
    worker = subprocess.Popen(
        [sys.executable, "-m", "celery", "-A", "celery_app", "worker", "-P", "solo", "-l", "WARNING", "--without-mingle"],
        env=environment,
        stdout=sys.stderr,
    )
    try:
        # The worker declares the topology of delays; a publisher that is earlier would find no exchange.
        deadline = time.time() + 30
        while time.time() < deadline and not app.control.ping(timeout=0.5):
            pass
        start = time.time()
        soon = datetime.datetime.now(datetime.timezone.utc) + datetime.timedelta(seconds=3)
        sent = {
            "now": add.delay(1, 2),
            "countdown": add.apply_async((3, 4), countdown=2),
            "eta": add.apply_async((5, 6), eta=soon),
            "retries": again.delay(),
        }
        for name, result in sent.items():
            value = result.get(timeout=30)
            print(json.dumps({"task": name, "sum": value["sum"], "seconds": round(value["at"] - start, 2)}), flush=True)
    finally:
        worker.terminate()
        worker.wait(20)


if __name__ == "__main__":
    main()
