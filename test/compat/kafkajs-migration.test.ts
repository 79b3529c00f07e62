/**
 * kafkajs members, which know only the classic protocol, in a group with a member of the consumer protocol (KIP-848): a
 * plain one made of this project's own wire client, so that nothing but Node is needed.
 */
import test from 'ava';
import kafkajs from 'kafkajs';
import { KafkaConnection } from '../../clients/kafka/connection.ts';
import { apis } from '../../protocol/kafka/apis.ts';
import { systemClock } from '../../storage/clock.ts';
import { startTestBroker, type TestBroker } from '../support/broker.ts';

const { Kafka, logLevel } = kafkajs;
const PARTITIONS = 6;
let broker: TestBroker;

test.before(async () => {
  broker = await startTestBroker({ 'group.min.session.timeout.ms': 1_000 });
});
test.after.always(async () => broker?.stop());

/** A member of the consumer protocol that takes what it is given and reads nothing. */
class Taker {
  readonly #connection: KafkaConnection;
  readonly #group: string;
  readonly #topic: string;
  #epoch = 0;
  #topicId = '';
  partitions: number[] = [];

  private constructor(connection: KafkaConnection, group: string, topic: string) {
    this.#connection = connection;
    this.#group = group;
    this.#topic = topic;
  }
  static async open(group: string, topic: string): Promise<Taker> {
    const [host, port] = broker.bootstrap.split(':');
    const options = { clock: systemClock, clientId: 'taker' };
    return new Taker(await KafkaConnection.open({ host, port: Number(port) }, options), group, topic);
  }

  async beat(memberEpoch = this.#epoch): Promise<void> {
    const isJoining = memberEpoch === 0;
    const answer = await this.#connection.send(apis.ConsumerGroupHeartbeat, () => ({
      groupId: this.#group,
      memberId: 'taker',
      memberEpoch,
      instanceId: null,
      rackId: null,
      rebalanceTimeoutMs: isJoining ? 10_000 : -1,
      subscribedTopicNames: isJoining ? [this.#topic] : null,
      subscribedTopicRegex: null,
      serverAssignor: null,
      topicPartitions: this.partitions.length === 0 ? [] : [{ topicId: this.#topicId, partitions: this.partitions }],
    }));
    if (answer.errorCode !== 0) throw new Error(`${answer.errorCode} ${answer.errorMessage}`);
    this.#epoch = answer.memberEpoch;
    for (const { topicId, partitions } of answer.assignment?.topicPartitions ?? []) {
      this.#topicId = topicId;
      this.partitions = partitions;
    }
  }
  async leave(): Promise<void> {
    await this.beat(-1);
    this.#connection.close();
  }
}

test('kafkajs shares a group with a member of the consumer protocol, and has it to itself again', async (t) => {
  const kafka = new Kafka({ brokers: [broker.bootstrap], logLevel: logLevel.NOTHING, retry: { initialRetryTime: 50 } });
  const admin = kafka.admin();
  await admin.connect();
  await admin.createTopics({ topics: [{ topic: 'shared', numPartitions: PARTITIONS }] });
  await admin.disconnect();
  const producer = kafka.producer();
  await producer.connect();
  const consumer = kafka.consumer({
    groupId: 'mixed',
    sessionTimeout: 6_000,
    heartbeatInterval: 100,
    maxWaitTimeInMs: 50,
  });
  const seen = new Set<string>();
  let wake = (): void => {};
  const until = async (holds: () => boolean): Promise<void> => {
    while (!holds()) {
      await new Promise<void>((resolve) => {
        wake = resolve;
      });
    }
  };
  let assigned: readonly number[] = [];
  consumer.on(consumer.events.GROUP_JOIN, ({ payload }) => {
    assigned = payload.memberAssignment['shared'] ?? [];
    wake();
  });
  await consumer.connect();
  await consumer.subscribe({ topic: 'shared', fromBeginning: true });
  const twice: string[] = [];
  await consumer.run({
    eachMessage: async ({ partition, message }) => {
      const key = `${partition}:${message.value?.toString()}`;
      if (seen.has(key)) twice.push(key);
      seen.add(key);
      wake();
    },
  });
  const produce = async (round: number): Promise<void> => {
    const messages = Array.from({ length: PARTITIONS }, (_value, partition) => ({ value: String(round), partition }));
    await producer.send({ topic: 'shared', messages });
  };
  const typeNow = (): string | undefined => broker.running.broker.groups.get('mixed')?.type;
  t.teardown(async () => {
    await consumer.disconnect();
    await producer.disconnect();
  });

  await produce(1);
  await until(() => assigned.length === PARTITIONS && seen.size === PARTITIONS);
  const taker = await Taker.open('mixed', 'shared');
  await taker.beat();
  t.is(typeNow(), 'consumer');
  await until(() => assigned.length === PARTITIONS / 2);
  await taker.beat();
  t.deepEqual(
    [...assigned, ...taker.partitions].toSorted((a, b) => a - b),
    [0, 1, 2, 3, 4, 5],
  );
  await produce(2);
  await until(() => seen.size === PARTITIONS + PARTITIONS / 2);
  await taker.leave();
  await until(() => assigned.length === PARTITIONS && typeNow() === 'classic');
  // What the other had and has committed nothing of.
  await until(() => seen.size === 2 * PARTITIONS);
  t.deepEqual(twice, []);
});
