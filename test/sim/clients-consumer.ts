/**
 * A simulated consumer that reads whole topics from their start, through a fetch session (KIP-227) with long polls or
 * request by request, and checks everything it is given.
 */
import { errors } from '../../protocol/errors.ts';
import { nameOf, type TopicModel } from './broker-oracle.ts';
import { type RequestOf, type ResponseOf, SimClient, type World } from './clients.ts';

const BY_ID_VERSION = 13;
const SESSION_MIN_VERSION = 7;
/** After producers have ended, consumers have this long for each step on. */
const CATCH_UP_MS = 40_000;

interface Place {
  readonly partition: number;
  position: number;
  /** As the session knows it. */
  toldPosition: number;
}

type FetchAnswer = ResponseOf<'Fetch'>;
type PartitionAnswer = FetchAnswer['responses'][number]['partitions'][number];

export class SimConsumer {
  readonly #world: World;
  readonly #client: SimClient;
  readonly #topic: TopicModel;
  readonly #version: number;
  readonly #isById: boolean;
  #places: Place[] = [];
  #session: { id: number; epoch: number } | undefined;
  #isDone = false;
  #isHurried = false;
  #hasProgress = false;

  constructor(world: World, name: string, topic: TopicModel) {
    this.#world = world;
    this.#client = new SimClient(world, name);
    this.#topic = topic;
    const { random } = this.#client;
    this.#isById = topic.name.startsWith('churn') || random.chance(0.5);
    this.#version = this.#isById ? random.between(BY_ID_VERSION, 18) : random.between(4, BY_ID_VERSION - 1);
  }

  /** Until `isDrained` says that no more comes and everything was read. */
  async run(isDrained: () => boolean): Promise<void> {
    let deadlineMs = Number.POSITIVE_INFINITY;
    while (!this.#isDone) {
      if (isDrained()) {
        const now = this.#world.clock.monotonic();
        if (!this.#isHurried || this.#hasProgress) deadlineMs = now + CATCH_UP_MS;
        this.#hasProgress = false;
        this.#isHurried = true;
        const behind = this.#behind();
        if (behind === undefined) break;
        if (now > deadlineMs) this.#world.fail(`${this.#client.name} never reads on in ${behind}`);
      }
      this.#takePartitions();
      await this.#client.connect();
      await this.#poll();
      if (this.#client.random.chance(0.2)) await this.#world.sleep(this.#client.random.below(300));
    }
    this.#client.close();
  }

  #behind(): string | undefined {
    for (const { partition, position } of this.#places) {
      const { knownEnd } = this.#world.log.partition(this.#topic, partition);
      if (position < knownEnd) return `${nameOf(this.#topic, partition)}: at ${position} of ${knownEnd}`;
    }
    return undefined;
  }

  #takePartitions(): void {
    for (let partition = this.#places.length; partition < this.#topic.partitionsMin; partition++) {
      this.#places.push({ partition, position: 0, toldPosition: -1 });
    }
  }

  async #poll(): Promise<void> {
    const { random, name } = this.#client;
    const { log } = this.#world;
    const version = this.#version;
    const hasSession = version >= SESSION_MIN_VERSION && this.#session !== undefined;
    const asked = hasSession ? this.#places.filter((place) => place.position !== place.toldPosition) : this.#places;
    const maxWaitMs = random.pick([0, 50, 500, 3000]);
    const request: RequestOf<'Fetch'> = {
      replicaId: -1,
      maxWaitMs,
      minBytes: this.#isHurried ? 1 : random.pick([0, 1, 1, 1, 3000]),
      maxBytes: this.#isHurried ? 50_000_000 : random.pick([300, 20_000, 50_000_000]),
      isolationLevel: random.below(2),
      ...(version >= SESSION_MIN_VERSION
        ? { sessionId: this.#session?.id ?? 0, sessionEpoch: this.#session?.epoch ?? 0 }
        : {}),
      topics:
        asked.length === 0
          ? []
          : [
              {
                ...(this.#isById ? { topicId: this.#topic.id } : { topic: this.#topic.name }),
                partitions: asked.map(({ partition, position }) => ({
                  partition,
                  fetchOffset: position,
                  partitionMaxBytes: this.#isHurried ? 1_000_000 : random.pick([300, 10_000, 1_000_000]),
                })),
              },
            ],
    };
    for (const place of asked) place.toldPosition = place.position;
    const promised = this.#places.map(({ partition }) => log.partition(this.#topic, partition).knownEnd);
    const startMins = this.#places.map(({ partition }) => log.partition(this.#topic, partition).startMin);
    const fetching = this.#client.ask('Fetch', version, request, maxWaitMs);
    // Asked while the fetch waits: its answer comes after that of the fetch.
    const asking = random.chance(0.2) ? this.#askEnd(random.pick(this.#places)) : undefined;
    const answer = await fetching;
    await asking;
    if (answer === undefined) {
      this.#session = undefined;
      return;
    }
    if (answer.errorCode !== 0) {
      const isSessionGone =
        answer.errorCode === errors.FETCH_SESSION_ID_NOT_FOUND.kafka ||
        answer.errorCode === errors.INVALID_FETCH_SESSION_EPOCH.kafka;
      if (!isSessionGone || this.#session === undefined) this.#world.fail(`${name}: Fetch answers ${answer.errorCode}`);
      this.#session = undefined;
      return;
    }
    this.#session =
      answer.sessionId === 0 ? undefined : { id: answer.sessionId, epoch: (this.#session?.epoch ?? 0) + 1 };
    for (const { partitions } of answer.responses) {
      for (const partition of partitions) await this.#take(partition, promised, startMins);
    }
  }

  async #askEnd({ partition }: Place): Promise<void> {
    const { log } = this.#world;
    const topic = this.#topic;
    const promised = log.partition(topic, partition).knownEnd;
    const answer = await this.#client.ask('ListOffsets', 6, {
      replicaId: -1,
      topics: [{ name: topic.name, partitions: [{ partitionIndex: partition, timestamp: -1 }] }],
    });
    const found = answer?.topics[0]?.partitions[0];
    // By name: meanwhile another topic may be there.
    if (found === undefined || found.errorCode !== 0 || !topic.name.startsWith('stable')) return;
    log.checkEnd(topic, partition, found.offset, this.#world.isLossy ? 0 : promised);
  }

  async #take(answer: PartitionAnswer, promised: readonly number[], startMins: readonly number[]): Promise<void> {
    const { log } = this.#world;
    const topic = this.#topic;
    const index = answer.partitionIndex;
    const place = this.#places[index];
    const name = `${this.#client.name}: ${nameOf(topic, index)}`;
    switch (answer.errorCode) {
      case 0:
        break;
      case errors.UNKNOWN_TOPIC_ID.kafka:
      case errors.UNKNOWN_TOPIC_OR_PARTITION.kafka:
        if (topic.status === 'live') this.#world.fail(`${name} is unknown (${answer.errorCode})`);
        this.#isDone = true;
        return;
      case errors.OFFSET_OUT_OF_RANGE.kafka:
        return this.#reset(place);
      case errors.KAFKA_STORAGE_ERROR.kafka:
        if (this.#world.diskTroubleMs < 0) this.#world.fail(`${name} is fenced although the disk is well`);
        await this.#world.sleep(200);
        return;
      default:
        this.#world.fail(`${name}: Fetch answers ${answer.errorCode}`);
        return;
    }
    const { highWatermark, logStartOffset } = answer;
    if (topic.status === 'live') {
      log.checkEnd(topic, index, highWatermark, this.#world.isLossy ? 0 : promised[index]);
      if (this.#version >= 5) log.checkStart(topic, index, logStartOffset, this.#world.isLossy ? 0 : startMins[index]);
    }
    const bytes = answer.records;
    if (bytes === null || bytes.length === 0) return;
    this.#hasProgress = true;
    place.position = log.read({ topic, partition: index, from: place.position, highWatermark, bytes });
  }

  /** The position is outside the log: only because the log was cut at its start. */
  async #reset(place: Place): Promise<void> {
    const topic = this.#topic;
    const { log } = this.#world;
    const { startMin } = log.partition(topic, place.partition);
    if (topic.status !== 'live') {
      this.#isDone = true;
      return;
    }
    const answer = await this.#client.ask('ListOffsets', 7, {
      replicaId: -1,
      topics: [{ name: topic.name, partitions: [{ partitionIndex: place.partition, timestamp: -2 }] }],
    });
    const found = answer?.topics[0]?.partitions[0];
    // By name: meanwhile another topic may be there.
    if (found === undefined || found.errorCode !== 0 || topic.status !== 'live') return;
    log.checkStart(topic, place.partition, found.offset, this.#world.isLossy ? 0 : startMin);
    if (found.offset <= place.position && !this.#world.isLossy) {
      const name = `${this.#client.name}: ${nameOf(topic, place.partition)}`;
      this.#world.fail(`${name}: position ${place.position} is out of range, the log starts at ${found.offset}`);
    }
    place.position = found.offset;
    place.toldPosition = -1;
  }
}

/** Reads every partition of a topic from start to end, request by request, and checks content and order. */
export async function verifyTopic(world: World, client: SimClient, topic: TopicModel): Promise<boolean> {
  for (let index = 0; index < topic.partitionsMin; index++) {
    if (!(await verifyPartition(world, client, topic, index))) return false;
  }
  return true;
}

/** False if the connection ended or the topic went away meanwhile. */
async function verifyPartition(world: World, client: SimClient, topic: TopicModel, index: number): Promise<boolean> {
  const { log } = world;
  const model = log.partition(topic, index);
  const promised = { end: model.knownEnd, startMin: model.startMin };
  const askOffset = async (timestamp: number): Promise<number | undefined> => {
    const answer = await client.ask('ListOffsets', 7, {
      replicaId: -1,
      topics: [{ name: topic.name, partitions: [{ partitionIndex: index, timestamp }] }],
    });
    const found = answer?.topics[0]?.partitions[0];
    if (found === undefined || topic.status !== 'live') return undefined;
    if (found.errorCode !== 0) {
      if (!world.isLossy) world.fail(`${nameOf(topic, index)}: ListOffsets answers ${found.errorCode}`);
      return undefined;
    }
    return found.offset;
  };
  const start = await askOffset(-2);
  if (start === undefined) return false;
  const end = await askOffset(-1);
  if (end === undefined) return false;
  log.checkStart(topic, index, start, world.isLossy ? 0 : promised.startMin);
  log.checkEnd(topic, index, end, world.isLossy ? 0 : promised.end);
  const order = new Map<number, number>();
  let position = start;
  while (position < end) {
    const answer = await client.ask('Fetch', 13, {
      replicaId: -1,
      maxWaitMs: 100,
      minBytes: 1,
      topics: [
        { topicId: topic.id, partitions: [{ partition: index, fetchOffset: position, partitionMaxBytes: 200_000 }] },
      ],
    });
    const found = answer?.responses[0]?.partitions[0];
    if (found === undefined || topic.status !== 'live') return false;
    if (found.errorCode !== 0) {
      if (world.isLossy) return true;
      if (found.errorCode === errors.OFFSET_OUT_OF_RANGE.kafka && model.startMax > start) return true;
      if (found.errorCode === errors.OFFSET_OUT_OF_RANGE.kafka && topic.isRetained) return true;
      if (found.errorCode === errors.KAFKA_STORAGE_ERROR.kafka && world.diskTroubleMs >= 0) return false;
      world.fail(`${nameOf(topic, index)}: reading ${position} of ${start} to ${end} answers ${found.errorCode}`);
      return false;
    }
    const bytes = found.records ?? Buffer.alloc(0);
    const next = log.read(
      { topic, partition: index, from: position, highWatermark: found.highWatermark, bytes },
      world.isLossy ? undefined : order,
    );
    if (next === position) {
      world.fail(`${nameOf(topic, index)}: nothing comes at ${position}, the log ends at ${end}`);
      return false;
    }
    position = next;
  }
  return true;
}
