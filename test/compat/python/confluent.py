"""confluent-kafka, which is librdkafka: as its users use it."""
import threading

from confluent_kafka import (
    OFFSET_BEGINNING,
    AcknowledgeType,
    Consumer,
    ConsumerGroupState,
    ConsumerGroupTopicPartitions,
    IsolationLevel,
    KafkaError,
    KafkaException,
    Producer,
    ShareConsumer,
    TopicPartition,
)
from confluent_kafka.admin import (
    AdminClient,
    AlterConfigOpType,
    ConfigEntry,
    ConfigResource,
    NewPartitions,
    NewTopic,
    OffsetSpec,
    ResourceType,
)
from scenarios import BOOTSTRAP, equal, eventually, full, named, run_all, scenario

CODECS = ["none", "gzip", "snappy", "lz4", "zstd"]


# One for all: the futures of a client that is let go end with an error.
ADMIN = AdminClient({"bootstrap.servers": BOOTSTRAP})


def admin():
    return ADMIN


def create(name, partitions=1, **config):
    settings = {key.replace("_", "."): str(value) for key, value in config.items()}
    for future in admin().create_topics([NewTopic(name, partitions, 1, config=settings)]).values():
        future.result()
    return name


def producer(**config):
    settings = {key.replace("_", "."): value for key, value in config.items()}
    return Producer({"bootstrap.servers": BOOTSTRAP, "linger.ms": 1, **settings})


def consumer(group, **config):
    settings = {key.replace("_", "."): value for key, value in config.items()}
    base = {"bootstrap.servers": BOOTSTRAP, "group.id": group, "auto.offset.reset": "earliest"}
    return Consumer({**base, "fetch.wait.max.ms": 100, **settings})


def produce(topic, values, key=None, sender=None, **config):
    """Sends all, answers the offsets by partition."""
    errors, offsets = [], {}

    def delivered(error, message):
        if error is not None:
            errors.append(error)
        else:
            offsets.setdefault(message.partition(), []).append(message.offset())

    sender = sender or producer(**config)
    for value in values:
        while True:
            try:
                sender.produce(topic, value, key=key(value) if key else None, on_delivery=delivered)
                break
            except BufferError:
                sender.poll(0.1)
        sender.poll(0)
    equal(sender.flush(30), 0, "unsent")
    if errors:
        raise KafkaException(errors[0])
    return offsets


def assigned(members):
    return sum(len(member.assignment()) for member in members)


def take(reader, count, seconds=20):
    """The next messages; errors are raised."""
    messages = []

    def poll():
        for message in reader.consume(min(count - len(messages), 1000), 0.2):
            if message.error():
                raise KafkaException(message.error())
            messages.append(message)
        return len(messages) >= count

    eventually(poll, seconds, 0)
    return messages


@scenario
def every_codec():
    topic = create(named("codecs"))
    sent = []
    for codec in CODECS:
        for acks in ["all", 1, 0]:
            values = [f"{codec} {acks} {index} ".encode() + b"mill" * 200 for index in range(100)]
            produce(topic, values, compression_type=codec, acks=acks)
            sent += values
    reader = consumer(named("codecs"))
    reader.subscribe([topic])
    found = take(reader, len(sent))
    reader.close()
    equal([message.value() for message in found], sent, "values")
    equal([message.offset() for message in found], list(range(len(sent))), "offsets")


@scenario
def keys_headers_and_timestamps():
    topic = create(named("headers"))
    sender = producer()
    headers = [("h", b"v"), ("h", b"again"), ("none", None), ("empty", b"")]
    sender.produce(topic, None, key=b"tombstone", headers=headers, timestamp=1_700_000_000_000)
    sender.produce(topic, b"", key=b"")
    sender.flush(10)
    reader = consumer(named("headers"))
    reader.subscribe([topic])
    first, second = take(reader, 2)
    reader.close()
    equal((first.key(), first.value(), first.timestamp()[1]), (b"tombstone", None, 1_700_000_000_000))
    equal(first.headers(), headers)
    equal((second.key(), second.value(), second.headers()), (b"", b"", None))


@scenario
def idempotent_producer():
    topic = create(named("idempotent"), 3)
    sender = producer(enable_idempotence=True, linger_ms=0)
    numbers = [str(index).encode() for index in range(3000)]
    produce(topic, numbers, key=lambda value: str(int(value) % 7).encode(), sender=sender)
    reader = consumer(named("idempotent"))
    reader.subscribe([topic])
    found = take(reader, len(numbers))
    reader.close()
    by_key = {}
    for message in found:
        by_key.setdefault(message.key(), []).append(int(message.value()))
    for key, values in by_key.items():
        equal(values, sorted(values), f"order of {key}")
    equal(sorted(int(message.value()) for message in found), list(range(len(numbers))))


@scenario
def large_batches():
    topic = create(named("large"), 6)
    values = [index.to_bytes(4, "big") + bytes(96) for index in range(100_000)]
    produce(topic, values, linger_ms=50, batch_size=1_000_000, compression_type="lz4", enable_idempotence=True)
    reader = consumer(named("large"), fetch_max_bytes=10_000_000)
    reader.subscribe([topic])
    found = take(reader, len(values), 60)
    reader.close()
    equal(sorted(int.from_bytes(message.value()[:4], "big") for message in found), list(range(len(values))))


@scenario
def too_large_a_message():
    topic = create(named("size"), 1, max_message_bytes=10_000)
    try:
        produce(topic, [bytes(20_000)], message_max_bytes=5_000_000)
        raise AssertionError("was accepted")
    except KafkaException as error:
        equal(error.args[0].code(), KafkaError.MSG_SIZE_TOO_LARGE)
    equal(produce(topic, [b"small"]), {0: [0]})


@scenario
def group_is_shared_and_carries_on():
    topic = create(named("group"), 6)
    for strategy in ["range", "roundrobin", "cooperative-sticky"]:
        group = named(f"group-{strategy}")
        settings = {"partition_assignment_strategy": strategy, "heartbeat_interval_ms": 200, "enable_auto_commit": False}
        members = [consumer(group, **settings) for _ in range(3)]
        for member in members:
            member.subscribe([topic])

        def settled():
            for member in members:
                member.consume(1, 0.05)
            return assigned(members) == 6 and all(len(member.assignment()) == 2 for member in members)

        eventually(settled)
        described = admin().describe_consumer_groups([group])[group].result()
        equal((described.state, len(described.members)), (ConsumerGroupState.STABLE, 3))
        equal(described.partition_assignor, strategy)
        members.pop().close()
        eventually(lambda: [member.consume(1, 0.05) for member in members] and assigned(members) == 6)
        for member in members:
            member.close()
        eventually(lambda: admin().describe_consumer_groups([group])[group].result().state == ConsumerGroupState.EMPTY)


@scenario
def committed_offsets():
    topic = create(named("commits"), 2)
    produce(topic, [str(index).encode() for index in range(40)], key=lambda value: value)
    reader = consumer(named("commits"), enable_auto_commit=False)
    reader.subscribe([topic])
    first = take(reader, 15)
    committed = reader.commit(asynchronous=False)
    equal(sum(entry.offset for entry in committed if entry.offset > 0), 15)
    reader.close()
    reader = consumer(named("commits"), enable_auto_commit=True, auto_commit_interval_ms=100)
    reader.subscribe([topic])
    second = take(reader, 25)
    reader.close()
    equal(sorted(int(message.value()) for message in first + second), list(range(40)))
    reader = consumer(named("commits"))
    parts = [TopicPartition(topic, 0), TopicPartition(topic, 1)]
    equal(sum(entry.offset for entry in reader.committed(parts, 10)), 40)
    with_text = TopicPartition(topic, 0, 7, "a note")
    reader.commit(offsets=[with_text], asynchronous=False)
    entry = reader.committed([TopicPartition(topic, 0)], 10)[0]
    equal((entry.offset, entry.metadata), (7, "a note"))
    reader.close()


@scenario
def static_member_comes_back():
    topic = create(named("static"), 2)
    settings = {"group_instance_id": "one", "session_timeout_ms": 6000}
    first = consumer(named("static"), **settings)
    first.subscribe([topic])
    eventually(lambda: first.consume(1, 0.1) or len(first.assignment()) == 2)
    before = admin().describe_consumer_groups([named("static")])[named("static")].result().members[0]
    first.close()
    second = consumer(named("static"), **settings)
    second.subscribe([topic])
    eventually(lambda: second.consume(1, 0.1) or len(second.assignment()) == 2)
    after = admin().describe_consumer_groups([named("static")])[named("static")].result().members
    equal((len(after), after[0].group_instance_id), (1, before.group_instance_id))
    second.close()


@scenario
def offsets_by_time_and_place():
    topic = create(named("times"))
    sender = producer()
    for index in range(10):
        sender.produce(topic, str(index).encode(), timestamp=1000 + index * 10)
        sender.flush(10)
    reader = consumer(named("times"))
    equal(reader.get_watermark_offsets(TopicPartition(topic, 0), 10), (0, 10))
    times = {5: 0, 1000: 0, 1041: 5, 1090: 9}
    for time, offset in times.items():
        equal(reader.offsets_for_times([TopicPartition(topic, 0, time)], 10)[0].offset, offset, time)
    reader.assign([TopicPartition(topic, 0, 4)])
    equal(take(reader, 1)[0].value(), b"4")
    reader.seek(TopicPartition(topic, 0, OFFSET_BEGINNING))
    equal([message.value() for message in take(reader, 10)], [str(index).encode() for index in range(10)])
    reader.close()


@scenario
def offset_out_of_range():
    topic = create(named("range"))
    produce(topic, [str(index).encode() for index in range(10)])
    admin().delete_records([TopicPartition(topic, 0, 3)])[TopicPartition(topic, 0, 3)].result()
    for reset, expected in [("earliest", b"3"), ("latest", b"new")]:
        for offset in [1, 1000]:
            reader = consumer(named(f"range-{reset}"), auto_offset_reset=reset)
            reader.assign([TopicPartition(topic, 0, offset)])
            found = []

            def poll():
                message = reader.poll(0.2)
                if message is None and reset == "latest":
                    produce(topic, [b"new"])
                if message is not None and not message.error():
                    found.append(message.value())
                return found

            equal(eventually(poll)[0], expected, (reset, offset))
            reader.close()
    reader = consumer(named("range-error"), auto_offset_reset="error")
    reader.assign([TopicPartition(topic, 0, 1000)])
    message = eventually(lambda: reader.poll(0.2))
    equal(message.error().code(), KafkaError._AUTO_OFFSET_RESET)
    reader.close()


@scenario
def admin_calls():
    client = admin()
    topic = create(named("admin"), 2, retention_ms=100_000)
    try:
        create(topic)
        raise AssertionError("was created twice")
    except KafkaException as error:
        equal(error.args[0].code(), KafkaError.TOPIC_ALREADY_EXISTS)
    client.create_partitions([NewPartitions(topic, 4)])[topic].result()
    equal(len(client.list_topics(topic, 10).topics[topic].partitions), 4)
    from confluent_kafka import TopicCollection

    description = client.describe_topics(TopicCollection([topic]))[topic].result()
    equal((description.name, len(description.partitions)), (topic, 4))
    cluster = client.describe_cluster().result()
    equal([f"{node.host}:{node.port}" for node in cluster.nodes], [BOOTSTRAP])
    resource = ConfigResource(ResourceType.TOPIC, topic)
    equal(client.describe_configs([resource])[resource].result()["retention.ms"].value, "100000")
    entry = ConfigEntry("retention.ms", "200000", incremental_operation=AlterConfigOpType.SET)
    change = ConfigResource(ResourceType.TOPIC, topic, incremental_configs=[entry])
    client.incremental_alter_configs([change])[change].result()
    equal(client.describe_configs([resource])[resource].result()["retention.ms"].value, "200000")
    broker = ConfigResource(ResourceType.BROKER, "1")
    assert "message.max.bytes" in client.describe_configs([broker])[broker].result()
    produce(topic, [str(index).encode() for index in range(20)], key=lambda value: value)
    part = TopicPartition(topic, 0)
    listed = client.list_offsets({part: OffsetSpec.latest()}, isolation_level=IsolationLevel.READ_COMMITTED)
    end = listed[part].result().offset
    assert end > 0
    equal(client.list_offsets({part: OffsetSpec.earliest()})[part].result().offset, 0)
    assert client.list_offsets({part: OffsetSpec.max_timestamp()})[part].result().offset >= 0
    assert client.list_offsets({part: OffsetSpec.for_timestamp(1000)})[part].result().offset == 0
    deleted = client.delete_records([TopicPartition(topic, 0, 1)])
    equal(next(iter(deleted.values())).result().low_watermark, 1)
    equal(client.list_offsets({part: OffsetSpec.earliest()})[part].result().offset, 1)

    group = named("admin-group")
    reader = consumer(group)
    reader.subscribe([topic])
    take(reader, 5)
    reader.commit(asynchronous=False)
    reader.close()
    groups = client.list_consumer_groups().result()
    assert group in [entry.group_id for entry in groups.valid], groups.valid
    wanted = ConsumerGroupTopicPartitions(group, [TopicPartition(topic, 0, 1)])
    client.alter_consumer_group_offsets([wanted])[group].result()
    found = client.list_consumer_group_offsets([ConsumerGroupTopicPartitions(group)])[group].result()
    assert (0, 1) in [(entry.partition, entry.offset) for entry in found.topic_partitions], found
    client.delete_consumer_groups([group])[group].result()
    assert group not in [entry.group_id for entry in client.list_consumer_groups().result().valid]
    client.delete_topics([topic])[topic].result()
    eventually(lambda: topic not in client.list_topics(timeout=10).topics)


@scenario
def topic_deleted_while_it_is_read():
    topic = create(named("deleted"))
    produce(topic, [b"before"])
    reader = consumer(named("deleted"), topic_metadata_refresh_interval_ms=200, allow_auto_create_topics=False)
    reader.subscribe([topic])
    equal(take(reader, 1)[0].value(), b"before")
    admin().delete_topics([topic])[topic].result()

    def told():
        message = reader.poll(0.1)
        return message is not None and message.error() and message.error().code()

    equal(eventually(told), KafkaError.UNKNOWN_TOPIC_OR_PART)
    create(topic)

    def after():
        # The reader may still look for what comes after its old position.
        produce(topic, [b"after"])
        message = reader.poll(0.2)
        return message is not None and not message.error() and message.value()

    equal(eventually(after, 30), b"after")
    reader.close()


@scenario
def unknown_topics():
    reader = consumer(named("unknown"), allow_auto_create_topics=False)
    reader.subscribe([named("not-there")])
    message = eventually(lambda: reader.poll(0.2))
    equal(message.error().code(), KafkaError.UNKNOWN_TOPIC_OR_PART)
    reader.close()
    assert named("not-there") not in admin().list_topics(timeout=10).topics
    equal(produce(named("auto"), [b"one"]), {0: [0]})


@scenario
def transactions_are_refused():
    sender = producer(transactional_id=named("tx"), transaction_timeout_ms=5000)
    try:
        sender.init_transactions(1)
    except KafkaException as error:
        print(f"init_transactions: {error}")


@scenario
def hundreds_of_partitions():
    topic = create(named("wide"), 1000)
    sender = producer(linger_ms=20)
    for index in range(3000):
        sender.produce(topic, str(index).encode(), partition=index % 1000)
    equal(sender.flush(30), 0)
    reader = consumer(named("wide"))
    reader.subscribe([topic])
    equal(sorted(int(message.value()) for message in take(reader, 3000, 60)), list(range(3000)))
    equal(len(reader.assignment()), 1000)
    reader.commit(asynchronous=False)
    equal(sum(entry.offset for entry in reader.committed(reader.assignment(), 20)), 3000)
    reader.close()


@scenario
def a_member_that_does_not_poll_loses_its_partitions():
    topic = create(named("slow"))
    settings = {"max_poll_interval_ms": 2000, "session_timeout_ms": 2000, "heartbeat_interval_ms": 200}
    slow = consumer(named("slow"), **settings)
    slow.subscribe([topic])
    eventually(lambda: slow.consume(1, 0.1) or slow.assignment())
    quick = consumer(named("slow"), **settings)
    quick.subscribe([topic])
    eventually(lambda: quick.consume(1, 0.1) or quick.assignment())
    quick.close()
    # Coming back is enough to have them again.
    eventually(lambda: [slow.consume(1, 0.1)] and slow.assignment())
    slow.close()


@scenario
def the_new_group_protocol():
    topic = create(named("new"), 6)
    produce(topic, [str(index).encode() for index in range(60)], key=lambda value: value)
    group = named("new")
    settings = {"group_protocol": "consumer", "group_remote_assignor": "uniform", "enable_auto_commit": False}
    members = [consumer(group, **settings) for _ in range(3)]
    for member in members:
        member.subscribe([topic])
    seen = set()

    def settled():
        for member in members:
            seen.update(message.value() for message in member.consume(20, 0.05) if not message.error())
        return assigned(members) == 6 and all(len(member.assignment()) == 2 for member in members)

    eventually(settled, 40)
    described = admin().describe_consumer_groups([group])[group].result()
    equal((described.state, len(described.members)), (ConsumerGroupState.STABLE, 3))
    eventually(lambda: settled() and len(seen) == 60)
    for member in members:
        try:
            member.commit(asynchronous=False)
        except KafkaException as error:
            # Whoever lost its partitions to the others before it read anything.
            equal(error.args[0].code(), KafkaError._NO_OFFSET)
    members.pop().close()
    eventually(lambda: [member.consume(1, 0.05) for member in members] and assigned(members) == 6, 40)
    for member in members:
        member.close()
    eventually(lambda: admin().describe_consumer_groups([group])[group].result().state == ConsumerGroupState.EMPTY)


@scenario
def a_share_group_takes_and_gives_back():
    topic = create(named("share"), 2)
    group = named("share")
    earliest = ConfigEntry("share.auto.offset.reset", "earliest", incremental_operation=AlterConfigOpType.SET)
    resource = ConfigResource(ResourceType.GROUP, group, incremental_configs=[earliest])
    for future in admin().incremental_alter_configs([resource]).values():
        future.result()
    produce(topic, [str(index).encode() for index in range(40)], key=lambda value: value)
    settings = {"bootstrap.servers": BOOTSTRAP, "group.id": group}
    seen = {}
    member = ShareConsumer({**settings, "share.acknowledgement.mode": "explicit"})
    member.subscribe([topic])

    def took_all():
        for message in member.poll(0.2):
            if message.error():
                raise KafkaException(message.error())
            number = int(message.value())
            seen.setdefault(number, []).append(message.delivery_count())
            # One of four comes again, one of four never; the others are done.
            is_first = len(seen[number]) == 1
            kind = AcknowledgeType.RELEASE if is_first and number % 4 == 0 else AcknowledgeType.ACCEPT
            member.acknowledge(message, AcknowledgeType.REJECT if number % 4 == 1 else kind)
        return len(seen) == 40 and all(len(seen[number]) == 2 for number in range(0, 40, 4))

    eventually(took_all, 30)
    equal([error for error in member.commit_sync(10).values() if error is not None], [])
    member.close()
    equal({number: counts for number, counts in seen.items() if number % 4 == 0}, {n: [1, 2] for n in range(0, 40, 4)})
    equal([counts for number, counts in seen.items() if number % 4 != 0], [[1]] * 30)
    # Everything is done: the next member gets only what comes.
    late = ShareConsumer(settings)
    late.subscribe([topic])
    produce(topic, [b"new"])
    values = []
    eventually(lambda: values.extend(message.value() for message in late.poll(0.2)) or values, 30)
    equal(values, [b"new"])
    late.close()


class Member(threading.Thread):
    """A consumer on a thread of its own: a commit may have to wait until the others have joined again."""

    def __init__(self, group, topic, seen, refused, **settings):
        super().__init__()
        self.consumer = consumer(group, enable_auto_commit=False, **settings)
        self.consumer.subscribe([topic])
        self.seen, self.refused = seen, refused
        self.share, self.failure, self.is_over = 0, None, False
        self.start()

    def run(self):
        try:
            while not self.is_over:
                message = self.consumer.poll(0.1)
                self.share = len(self.consumer.assignment())
                if message is not None and not message.error():
                    self.handle(message)
            self.consumer.close()
        except BaseException as error:  # pylint: disable=broad-except
            self.failure = error

    def handle(self, message):
        self.seen.append(message.value())
        try:
            self.consumer.commit(message, asynchronous=False)
        except KafkaException as error:
            # Between two rounds; if another member has the partition then it reads the message again.
            self.refused.add(message.value())
            codes = (KafkaError.REBALANCE_IN_PROGRESS, KafkaError.ILLEGAL_GENERATION, KafkaError.STALE_MEMBER_EPOCH)
            equal(error.args[0].code() in codes, True)

    def leave(self):
        self.is_over = True
        self.join(30)
        if self.failure is not None:
            raise self.failure


def migrates(strategy):
    """A group goes to the new protocol and back, member by member; nothing is missed, or read again once committed."""
    topic = create(named(f"migrates-{strategy}"), 6)
    seen, refused, members, number = [], set(), {}, 0

    def start(name, **settings):
        members[name] = Member(topic, topic, seen, refused, **settings)

    def classic(name):
        start(name, partition_assignment_strategy=strategy, session_timeout_ms=6000, heartbeat_interval_ms=200)

    def shared():
        nonlocal number
        produce(topic, [str(number + index).encode() for index in range(12)], key=lambda value: value)
        number += 12

        def settled():
            shares = [member.share for member in members.values()]
            return sum(shares) == 6 and max(shares) - min(shares) <= 1 and len(set(seen)) == number

        eventually(settled, 40)

    def leave(name):
        members.pop(name).leave()
        shared()

    try:
        classic("one")
        classic("two")
        shared()
        start("three", group_protocol="consumer")
        shared()
        leave("one")
        start("four", group_protocol="consumer")
        shared()
        leave("two")
        classic("five")
        shared()
        leave("three")
        leave("four")
        equal([value for value in set(seen) if seen.count(value) > 1 and value not in refused], [])
    finally:
        for member in members.values():
            member.leave()


@full
def a_group_changes_its_protocol_cooperative():
    migrates("cooperative-sticky")


@full
def a_group_changes_its_protocol_eager():
    migrates("range")


@full
def many_clients():
    topic = create(named("many"), 8)
    senders = [producer() for _ in range(50)]
    for index, sender in enumerate(senders):
        for number in range(20):
            sender.produce(topic, f"{index} {number}".encode())
    for sender in senders:
        equal(sender.flush(30), 0)
    readers = [consumer(named(f"many-{index}")) for index in range(30)]
    for reader in readers:
        reader.subscribe([topic])
    for reader in readers:
        equal(len(take(reader, 1000, 60)), 1000)
    for reader in readers:
        reader.close()


run_all()
