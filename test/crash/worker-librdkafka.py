"""Load from librdkafka (package confluent-kafka) for the kill tests; prints the same lines as worker-kafkajs."""
import sys, threading, time
from confluent_kafka import Consumer, KafkaException, Producer

bootstrap, topic, group = sys.argv[1:4]
stopping = threading.Event()
lock = threading.Lock()


def say(line):
    with lock:
        sys.stdout.write(line + "\n")
        sys.stdout.flush()


def produce(name, **config):
    producer = Producer({
        "bootstrap.servers": bootstrap, "linger.ms": 2, "reconnect.backoff.ms": 20, "reconnect.backoff.max.ms": 100,
        "retry.backoff.ms": 20, "message.timeout.ms": 60000, "log_level": 0, **config,
    })

    def report(error, message):
        if error is None:
            say(f"sent {message.partition()} {message.offset()} {message.value().decode()}")

    sequence = 0
    while not stopping.is_set():
        try:
            producer.produce(topic, f"{name}/{sequence}".encode(), partition=sequence % 6, on_delivery=report)
            sequence += 1
        except BufferError:
            pass
        producer.poll(0 if sequence % 50 else 0.02)
    producer.flush(5)


def consume():
    consumer = Consumer({
        "bootstrap.servers": bootstrap, "group.id": group + "-rd", "auto.offset.reset": "earliest", "enable.auto.commit": False,
        "reconnect.backoff.ms": 20, "reconnect.backoff.max.ms": 100, "session.timeout.ms": 10000, "log_level": 0,
        "fetch.wait.max.ms": 50,
    })
    consumer.subscribe([topic])
    while not stopping.is_set():
        for message in consumer.consume(500, 0.05):
            if message.error() is None:
                say(f"seen {message.partition()} {message.offset()} {message.value().decode()}")
        try:
            for partition in consumer.commit(asynchronous=False):
                if partition.error is None and partition.offset >= 0:
                    say(f"committed-rd {partition.partition} {partition.offset}")
        except KafkaException:
            pass
    consumer.close()


threads = [
    threading.Thread(target=produce, args=("rd-all",), kwargs={"acks": "all"}),
    threading.Thread(target=produce, args=("rd-one",), kwargs={"acks": "1"}),
    threading.Thread(target=produce, args=("rd-idem",), kwargs={"enable.idempotence": True}),
    threading.Thread(target=consume),
]
for thread in threads:
    thread.start()
sys.stdin.read()
stopping.set()
for thread in threads:
    thread.join()
