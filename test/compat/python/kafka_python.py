"""kafka-python, a client in pure Python, as its users use it."""
import importlib.util

from kafka import KafkaAdminClient, KafkaConsumer, KafkaProducer, TopicPartition
from kafka.admin import ConfigResource, ConfigResourceType, NewPartitions, NewTopic
from kafka.errors import KafkaError, MessageSizeTooLargeError, NoOffsetForPartitionError, TopicAlreadyExistsError
from scenarios import BOOTSTRAP, equal, eventually, named, run_all, scenario

# What a codec needs beside kafka-python itself.
CODECS = {None: None, "gzip": None, "snappy": "snappy", "lz4": "lz4", "zstd": "zstandard"}


def admin():
    return KafkaAdminClient(bootstrap_servers=BOOTSTRAP)


def create(name, partitions=1, **configs):
    client = admin()
    settings = {key.replace("_", "."): str(value) for key, value in configs.items()}
    client.create_topics([NewTopic(name, partitions, 1, topic_configs=settings)])
    client.close()
    return name


def consumer(group, *topics, **settings):
    base = {"group_id": group, "auto_offset_reset": "earliest", "heartbeat_interval_ms": 200, "fetch_max_wait_ms": 100}
    return KafkaConsumer(*topics, bootstrap_servers=BOOTSTRAP, **{**base, **settings})


def take(reader, count, seconds=20):
    messages = []

    def poll():
        for batch in reader.poll(200, max_records=count - len(messages)).values():
            messages.extend(batch)
        return len(messages) >= count

    eventually(poll, seconds, 0)
    return messages


def produce(topic, values, **settings):
    producer = KafkaProducer(bootstrap_servers=BOOTSTRAP, **settings)
    futures = [producer.send(topic, value, key=b"k", headers=[("h", b"v")]) for value in values]
    producer.flush(30)
    results = [future.get(10) for future in futures]
    producer.close()
    return results


@scenario
def every_codec():
    topic = create(named("py-codecs"))
    sent = []
    for codec, package in CODECS.items():
        if package and importlib.util.find_spec(package) is None:
            continue
        for acks in ["all", 1]:
            for idempotent in [True, False] if acks == "all" else [False]:
                values = [f"{codec} {acks} {index} ".encode() + b"mill" * 100 for index in range(50)]
                produce(topic, values, compression_type=codec, acks=acks, enable_idempotence=idempotent)
                sent += values
    reader = consumer(None, topic)
    found = take(reader, len(sent))
    reader.close()
    equal([message.value for message in found], sent)
    equal(list(found[0].headers), [("h", b"v")])


@scenario
def group_carries_on():
    topic = create(named("py-group"), 4)
    producer = KafkaProducer(bootstrap_servers=BOOTSTRAP)
    for index in range(40):
        producer.send(topic, str(index).encode(), partition=index % 4)
    producer.flush()
    producer.close()
    # One member after the other: two at a time now and then wait for each other in this client, with Apache Kafka too.
    seen = []
    for count in [25, 15]:
        reader = consumer(named("py-group"), topic)
        seen += [message.value for message in take(reader, count)]
        equal(len(reader.assignment()), 4)
        reader.commit()
        reader.close()
    equal(sorted(int(value) for value in seen), list(range(40)))
    reader = consumer(named("py-group"))
    equal(sum(reader.committed(TopicPartition(topic, index)) for index in range(4)), 40)
    reader.close()


@scenario
def offsets_by_time_and_place():
    topic = create(named("py-times"))
    producer = KafkaProducer(bootstrap_servers=BOOTSTRAP)
    for index in range(10):
        producer.send(topic, str(index).encode(), timestamp_ms=1000 + index * 10).get(10)
    producer.close()
    part = TopicPartition(topic, 0)
    reader = consumer(None)
    reader.assign([part])
    equal((reader.beginning_offsets([part])[part], reader.end_offsets([part])[part]), (0, 10))
    equal(reader.offsets_for_times({part: 1041})[part].offset, 5)
    equal(reader.offsets_for_times({part: 5000})[part], None)
    reader.seek(part, 7)
    equal(take(reader, 1)[0].value, b"7")
    reader.seek(part, 1000)
    equal(take(reader, 1)[0].value, b"0")
    reader.close()
    strict = consumer(named("py-strict"), topic, auto_offset_reset="none")
    try:
        eventually(lambda: strict.poll(200), 10)
        raise AssertionError("no error without a committed offset")
    except NoOffsetForPartitionError:
        pass
    finally:
        strict.close(autocommit=False)


@scenario
def admin_calls():
    client = admin()
    topic = create(named("py-admin"), 2, retention_ms=100_000)
    try:
        create(topic)
        raise AssertionError("was created twice")
    except TopicAlreadyExistsError:
        pass
    client.create_partitions({topic: NewPartitions(3)})
    described = client.describe_topics([topic])
    equal(len(described[0]["partitions"]), 3)
    assert topic in client.list_topics()
    client.alter_configs([ConfigResource(ConfigResourceType.TOPIC, topic, {"retention.ms": "5000"})])
    assert "5000" in str(client.describe_configs([ConfigResource(ConfigResourceType.TOPIC, topic)]))
    produce(topic, [b"one", b"two"])
    client.delete_records({TopicPartition(topic, 0): 0})
    client.describe_log_dirs()
    client.describe_cluster()
    client.list_partition_reassignments()
    group = named("py-admin")
    reader = consumer(group, topic)
    take(reader, 2)
    reader.commit()
    assert "Stable" in str(client.describe_groups([group]))
    reader.close()
    assert group in str(client.list_groups())
    assert topic in str(client.list_group_offsets([group]))
    client.delete_groups([group])
    assert group not in str(client.list_groups())
    client.delete_topics([topic])
    client.close()


@scenario
def too_large_a_message():
    topic = create(named("py-size"), 1, max_message_bytes=10_000)
    try:
        produce(topic, [bytes(20_000)], max_request_size=5_000_000)
        raise AssertionError("was accepted")
    except MessageSizeTooLargeError:
        pass
    except KafkaError as error:
        raise AssertionError(f"another error: {error!r}") from error


run_all()
