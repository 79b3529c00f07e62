"""aiokafka: kafka-python's protocol on asyncio."""
import asyncio
import importlib.util

from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient, NewPartitions, NewTopic
from aiokafka.errors import OffsetOutOfRangeError, TopicAlreadyExistsError
from scenarios import BOOTSTRAP, equal, named, run_all, scenario

CODECS = [None, "gzip"] + (["snappy", "lz4", "zstd"] if importlib.util.find_spec("cramjam") else [])


async def create(name, partitions=1):
    admin = AIOKafkaAdminClient(bootstrap_servers=BOOTSTRAP)
    await admin.start()
    await admin.create_topics([NewTopic(name, partitions, 1)])
    await admin.close()
    return name


async def produce(topic, values, **settings):
    producer = AIOKafkaProducer(bootstrap_servers=BOOTSTRAP, **settings)
    await producer.start()
    try:
        await asyncio.gather(*[await producer.send(topic, value, key=b"k", headers=[("h", b"v")]) for value in values])
    finally:
        await producer.stop()


async def take(reader, count, seconds=20):
    async def all_of_them():
        messages = []
        while len(messages) < count:
            for batch in (await reader.getmany(timeout_ms=200, max_records=count - len(messages))).values():
                messages.extend(batch)
        return messages

    return await asyncio.wait_for(all_of_them(), seconds)


async def codecs():
    topic = await create(named("aio-codecs"))
    sent = []
    for codec in CODECS:
        for settings in [{"acks": "all"}, {"acks": 1}, {"enable_idempotence": True}]:
            values = [f"{codec} {settings} {index} ".encode() + b"mill" * 100 for index in range(50)]
            await produce(topic, values, compression_type=codec, **settings)
            sent += values
    reader = AIOKafkaConsumer(topic, bootstrap_servers=BOOTSTRAP, auto_offset_reset="earliest")
    await reader.start()
    found = await take(reader, len(sent))
    await reader.stop()
    equal([message.value for message in found], sent)


async def group():
    topic = await create(named("aio-group"), 2)
    await produce(topic, [str(index).encode() for index in range(20)])
    for part in [range(8), range(8, 20)]:
        settings = {"group_id": named("aio-group"), "auto_offset_reset": "earliest", "enable_auto_commit": False}
        reader = AIOKafkaConsumer(topic, bootstrap_servers=BOOTSTRAP, **settings)
        await reader.start()
        equal([int(message.value) for message in await take(reader, len(part))], list(part))
        await reader.commit()
        await reader.stop()


async def places():
    topic = await create(named("aio-places"))
    await produce(topic, [str(index).encode() for index in range(10)])
    part = TopicPartition(topic, 0)
    reader = AIOKafkaConsumer(bootstrap_servers=BOOTSTRAP, auto_offset_reset="none")
    await reader.start()
    reader.assign([part])
    equal((await reader.beginning_offsets([part]))[part], 0)
    equal((await reader.end_offsets([part]))[part], 10)
    equal((await reader.offsets_for_times({part: 1000}))[part].offset, 0)
    reader.seek(part, 4)
    equal((await take(reader, 1))[0].value, b"4")
    reader.seek(part, 1000)
    try:
        await take(reader, 1)
        raise AssertionError("no error")
    except OffsetOutOfRangeError:
        pass
    await reader.stop()


async def admin():
    client = AIOKafkaAdminClient(bootstrap_servers=BOOTSTRAP)
    await client.start()
    topic = named("aio-admin")
    await client.create_topics([NewTopic(topic, 2, 1, topic_configs={"retention.ms": "100000"})])
    answer = await client.create_topics([NewTopic(topic, 2, 1)])
    equal(answer.topic_errors[0][1], TopicAlreadyExistsError.errno)
    await client.create_partitions({topic: NewPartitions(3)})
    equal(len((await client.describe_topics([topic]))[0]["partitions"]), 3)
    await client.describe_cluster()
    await client.list_consumer_groups()
    await client.delete_topics([topic])
    assert topic not in await client.list_topics()
    await client.close()


@scenario
def every_codec():
    asyncio.run(codecs())


@scenario
def group_carries_on():
    asyncio.run(group())


@scenario
def offsets_by_time_and_place():
    asyncio.run(places())


@scenario
def admin_calls():
    asyncio.run(admin())


run_all()
