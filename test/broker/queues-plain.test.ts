/** Share groups that nobody declared, and queues over topics that were there. */
import test from 'ava';
import { PullDoor, PushDoor, QueueWorld, type WorldKind } from '../support/queue-world.ts';

const kinds: readonly WorldKind[] = ['memory', 'embedded'];
const values = (messages: readonly { value: string }[]): string[] => messages.map(({ value }) => value);

for (const kind of kinds) {
  const open = (options = {}) => QueueWorld.open({ kind, options });
  const configure = (world: QueueWorld, group: string, configs: Record<string, string>): void =>
    world.topics.configureGroup(group, new Map(Object.entries(configs)));

  test(`${kind}: a plain group begins at the end, or where its configs say`, async (t) => {
    const world = await open();
    const topic = world.topic('log');
    await world.publish('log', ['old1', 'old2']);
    await world.run(10_000);
    await world.publish('log', ['new']);
    configure(world, 'earliest', { 'share.auto.offset.reset': 'earliest' });
    configure(world, 'recent', { 'share.auto.offset.reset': 'by_duration:PT5S' });
    const doors = ['latest', 'earliest', 'recent'].map(
      (group) => new PushDoor(world, world.queues.shareQueue(group, topic)),
    );
    await world.run(20);
    await world.publish('log', ['after']);
    await world.run(20);
    t.deepEqual(
      doors.map((door) => door.take()),
      [['after'], ['old1', 'old2', 'new', 'after'], ['new', 'after']],
    );
    t.deepEqual(world.queues.all(), []);
    await world.restart('kill');
    const again = world.topics.get('log') ?? topic;
    t.is(world.queues.findShareQueue('latest', again.id)?.partition(0)?.startOffset, 3);
    t.is(world.queues.findShareQueue('recent', again.id)?.partition(0)?.startOffset, 2);
    t.is(world.queues.findShareQueue('never', again.id), undefined);
    await world.close();
  });

  test(`${kind}: a dead letter of a group carries Kafka's headers, over those of an earlier one`, async (t) => {
    const world = await open();
    const topic = world.topic('work', 2);
    world.topic('dlq.work', 3);
    configure(world, 'group', {
      'share.auto.offset.reset': 'earliest',
      'share.delivery.count.limit': '2',
      'errors.deadletterqueue.topic.name': 'dlq.work',
      'errors.deadletterqueue.copy.record.enable': 'true',
    });
    await world.publish('work', [{ value: 'a', headers: { own: 'x', '__dlq.errors.topic': 'other' } }, 'b'], 1);
    const door = new PushDoor(world, world.queues.shareQueue('group', topic));
    await world.run(20);
    const [a, b] = door.arrived.splice(0);
    door.nack(a, { requeue: false });
    door.nack(b, { requeue: true });
    await world.run(20);
    door.nack(door.arrived.splice(0)[0], { requeue: true });
    await world.run(50);
    const log = world.topics.get('dlq.work')?.partitions[1] ?? t.fail();
    const { records } = await world.queues.reader.records(log, [{ firstOffset: 0, lastOffset: 1 }]);
    const told = records.map(({ value, headers }) => [
      value?.toString(),
      ...headers
        .filter(({ key }) => !key.startsWith('millrace.'))
        .map(({ key, value: text }) => `${key.replace('__dlq.errors.', '')} ${text}`),
    ]);
    const place = ['topic work', 'partition 1'];
    t.deepEqual(told, [
      ['a', 'own x', ...place, 'offset 0', 'group group', 'delivery.count 1', 'message Offset rejected by client.'],
      [
        'b',
        ...place,
        'offset 1',
        'group group',
        'delivery.count 2',
        'message Offset delivery count exceeded the threshold.',
      ],
    ]);
    await world.close();
  });

  test(`${kind}: counts of deliveries outlive a restart that ends the locks, and the limit drops`, async (t) => {
    const world = await open();
    let topic = world.topic('log');
    configure(world, 'g', { 'share.auto.offset.reset': 'earliest', 'share.delivery.count.limit': '3' });
    await world.publish('log', ['x']);
    for (let delivery = 1; delivery <= 3; delivery++) {
      topic = world.topics.get('log') ?? topic;
      const door = new PushDoor(world, world.queues.shareQueue('g', topic));
      await world.run(20);
      t.deepEqual(
        door.arrived.map(({ acquiredCount }) => acquiredCount),
        [delivery],
      );
      if (delivery < 3) await world.restart('kill');
      else door.nack(door.arrived[0], { requeue: true });
    }
    await world.run(20);
    const queue = world.queues.findShareQueue('g', topic.id);
    t.deepEqual(queue?.counts(), { ready: 0, inFlight: 0, delayed: 0, blocked: 0 });
    t.like(world.queues.totals, { dropped: 1 });
    await world.close();
  });

  test(`${kind}: no more records of a partition are locked than the group may have`, async (t) => {
    const world = await open();
    const topic = world.topic('log');
    configure(world, 'g', { 'share.auto.offset.reset': 'earliest', 'share.partition.max.record.locks': '100' });
    await world.publish(
      'log',
      Array.from({ length: 150 }, (_, index) => String(index)),
    );
    const door = new PushDoor(world, world.queues.shareQueue('g', topic), { prefetch: 1000 });
    await world.run(20);
    t.is(door.take().length, 100);
    door.ackAll();
    await world.run(20);
    t.is(door.take().length, 50);
    await world.close();
  });

  test(`${kind}: an attached queue reads all partitions, also new ones, and leaves the topic when it goes`, async (t) => {
    const world = await open();
    const topic = world.topic('log', 2);
    await world.publish('log', ['a'], 0);
    await world.publish('log', ['b'], 1);
    const declare = (name: string, from: 'earliest' | 'latest') =>
      world.queues.declare({ name, kind: 'attached', topic: 'log', from, family: 'millrace' });
    const queue = declare('tap', 'earliest');
    const late = declare('late', 'latest');
    t.deepEqual(values(await new PullDoor(world, queue).receive()).toSorted(), ['a', 'b']);
    world.topics.addPartitions(topic, 3);
    await world.publish('log', ['c'], 2);
    t.deepEqual(values(await new PullDoor(world, queue).receive()), ['c']);
    await world.restart('kill');
    t.deepEqual(values(await new PullDoor(world, world.queues.get('late') ?? late).receive()), ['c']);
    world.queues.delete(world.queues.get('tap') ?? queue);
    await world.durable();
    t.is(world.queues.get('tap'), undefined);
    t.truthy(world.topics.get('log'));
    await world.restart('kill');
    t.is(world.queues.get('tap'), undefined);
    t.is(world.queues.findShareQueue('tap', topic.id), undefined);
    t.throws(() => world.queues.declare({ name: 'x', kind: 'attached', topic: 'none', family: 'millrace' }), {
      code: 'UNKNOWN_TOPIC_OR_PARTITION',
    });
    await world.close();
  });

  test(`${kind}: the end of a topic is the end of its queues and of who waits at them`, async (t) => {
    const world = await open();
    const queue = world.queue('gone');
    const door = new PushDoor(world, queue);
    const pulling = new PullDoor(world, queue).receiving({ waitMs: 60_000 });
    await world.publish('gone', ['1']);
    await world.run(20);
    world.topics.delete(queue.topic);
    t.true(door.isEnded);
    t.deepEqual(values(await world.clock.settle(pulling)), []);
    t.is(world.queues.get('gone'), undefined);
    t.throws(() => door.ack(door.arrived[0]));
    await world.run(1000);
    const again = world.queue('gone');
    t.deepEqual(await new PullDoor(world, again).receive(), []);
    await world.restart('kill');
    t.like(world.queues.get('gone')?.counts(), { ready: 0, inFlight: 0 });
    t.deepEqual(world.reports, []);
    await world.close();
  });

  test(`${kind}: a plain group that is declared keeps its place; what was acquired too`, async (t) => {
    const world = await open();
    const topic = world.topic('log');
    configure(world, 'g', { 'share.auto.offset.reset': 'earliest' });
    await world.publish('log', ['1', '2', '3']);
    const plain = new PullDoor(world, world.queues.shareQueue('g', topic));
    await plain.delete(await plain.receive({ max: 1 }));
    const held = await plain.receive({ max: 1 });
    const queue = world.queues.declare({ name: 'g', kind: 'attached', topic: 'log', family: 'sqs' });
    t.like(queue.counts(), { ready: 1, inFlight: 1 });
    const door = new PullDoor(world, queue);
    await door.delete(held);
    t.deepEqual(values(await door.receive()), ['3']);
    await world.restart('kill');
    t.like(world.queues.get('g')?.counts(), { ready: 0, inFlight: 1 });
    await world.close();
  });

  test(`${kind}: a redeclaration is compared in the words of its family`, async (t) => {
    const world = await open();
    const declare = (family: 'amqp' | 'sqs', settings: Record<string, string>) =>
      world.queues.declare({ name: 'q', kind: 'owned', family, settings: new Map(Object.entries(settings)) });
    const queue = declare('amqp', { 'max.messages': '5' });
    t.is(declare('amqp', { 'max.messages': '5' }), queue);
    t.is(declare('sqs', {}), queue);
    t.throws(() => declare('amqp', {}), { code: 'QUEUE_DIFFERS' });
    t.throws(() => declare('amqp', { 'max.messages': '6' }), { code: 'QUEUE_DIFFERS' });
    world.queues.configure(queue, new Map([['delay.ms', '5']]), 'sqs');
    t.is(declare('amqp', { 'max.messages': '5' }), queue);
    t.is(declare('sqs', { 'delay.ms': '5' }), queue);
    t.throws(() => declare('sqs', {}), { code: 'QUEUE_DIFFERS' });
    t.throws(() => world.queues.configure(queue, new Map([['ordered', 'true']]), 'sqs'), { code: 'INVALID_CONFIG' });
    t.throws(() => declare('amqp', { nonsense: '1' }), { code: 'INVALID_CONFIG' });
    await world.durable();
    await world.restart('kill');
    t.is(world.queues.get('q')?.settings['delay.ms'], 5);
    t.deepEqual(
      [...(world.queues.get('q')?.origins ?? [])],
      [
        ['max.messages', 'amqp'],
        ['delay.ms', 'sqs'],
      ],
    );
    await world.close();
  });

  test(`${kind}: configs of a group reach the declared queue of its name`, async (t) => {
    const world = await open();
    const queue = world.queue('g', { 'delivery.limit': 7 });
    configure(world, 'g', { 'share.record.lock.duration.ms': '20000' });
    t.is(queue.settings['lock.duration.ms'], 20_000);
    t.is(queue.settings['delivery.limit'], 7);
    configure(world, 'g', {});
    t.is(queue.settings['lock.duration.ms'], 30_000);
    await world.close();
  });

  test(`${kind}: what DeleteRecords takes is gone from queues`, async (t) => {
    const world = await open();
    const queue = world.queue('q');
    await world.publish('q', ['1', '2', '3', '4']);
    const door = new PullDoor(world, queue);
    await door.receive({ max: 1 });
    world.topics.trim(queue.topic.partitions[0], 3);
    t.deepEqual(values(await door.receive()), ['4']);
    t.like(queue.counts(), { ready: 0, inFlight: 1 });
    await world.close();
  });

  test(`${kind}: a purge also ends what the queue has not seen yet`, async (t) => {
    const world = await open();
    world.topic('log');
    await world.publish('log', ['1', '2', '3']);
    const queue = world.queues.declare({ name: 'tap', kind: 'attached', topic: 'log', family: 'millrace' });
    t.false(queue.partition(0)?.isReady);
    queue.purge();
    await world.run(20);
    await world.publish('log', ['4']);
    t.deepEqual(values(await new PullDoor(world, queue).receive()), ['4']);
    await world.close();
  });
}
