/**
 * Every option of the broker: its name (Kafka's, where Kafka has it), type, default, range and the reason for the
 * default. `docs/options.md`, `millrace.yaml` and `--set` come from this table; nothing else defines a default.
 */
import { MillraceError } from '../protocol/errors.ts';

interface OptionBase {
  /** Why there is a limit and why this default. One or two sentences for docs/options.md. */
  readonly reason: string;
  /** Whether IncrementalAlterConfigs may change it while the broker runs. */
  readonly isDynamic?: boolean;
}
interface NumberOption extends OptionBase {
  readonly type: 'number';
  readonly default: number;
  readonly min: number;
  readonly max: number;
}
interface BooleanOption extends OptionBase {
  readonly type: 'boolean';
  readonly default: boolean;
}
interface StringOption extends OptionBase {
  readonly type: 'string';
  readonly default: string;
  /** If present, the only values allowed. */
  readonly values?: readonly string[];
}
export type Option = NumberOption | BooleanOption | StringOption;

const int = (value: number, min: number, max: number, reason: string, isDynamic = false): NumberOption => ({
  type: 'number',
  default: value,
  min,
  max,
  reason,
  isDynamic,
});
const flag = (value: boolean, reason: string, isDynamic = false): BooleanOption => ({
  type: 'boolean',
  default: value,
  reason,
  isDynamic,
});
const text = (value: string, reason: string, values?: readonly string[], isDynamic = false): StringOption => ({
  type: 'string',
  default: value,
  reason,
  isDynamic,
  ...(values ? { values } : {}),
});

const KIB = 1024;
const MIB = 1024 * KIB;
const GIB = 1024 * MIB;
const HOUR_MS = 3_600_000;
const DAY_MS = 24 * HOUR_MS;
const INT32_MAX = 2_147_483_647;
const SAFE_MAX = Number.MAX_SAFE_INTEGER;

export const options = {
  // Identity and addresses.
  'node.id': int(1, 0, INT32_MAX, 'The id clients see in Metadata; there is one node.'),
  'advertised.listeners': text(
    '',
    'HOST:PORT told to Kafka clients. Empty: the host of the Kafka door if it is not a wildcard, else the address the client connected to.',
  ),

  // Topics.
  'num.partitions': int(
    1,
    1,
    10_000,
    'Partitions of an auto-created topic; 1 keeps order, as Apache Kafka does.',
    true,
  ),
  'auto.create.topics.enable': flag(true, 'Kafka clients expect a topic to appear when they first produce to it.'),
  'delete.topic.enable': flag(true, 'Deleting topics is allowed, as in Apache Kafka.'),
  'default.replication.factor': int(1, 1, 1, 'There is one node.'),
  'topics.max': int(20_000, 1, 1_000_000, 'Bounds the memory of metadata and the size of a Metadata answer.'),
  'partitions.max': int(100_000, 1, 1_000_000, 'An open partition costs about 15 KiB of memory.'),
  'partitions.per.topic.max': int(10_000, 1, 100_000, 'Bounds what a single CreateTopics may cost.'),

  // The log: defaults of topic configs.
  'log.segment.bytes': int(GIB, 1 * MIB, INT32_MAX, 'As Apache Kafka: few files, retention by whole segments.', true),
  'log.roll.ms': int(7 * DAY_MS, 1, SAFE_MAX, 'As Apache Kafka (log.roll.hours 168).', true),
  'log.index.size.max.bytes': int(10 * MIB, 4, INT32_MAX, 'As Apache Kafka; a full index rolls the segment.', true),
  'log.index.interval.bytes': int(4 * KIB, 0, INT32_MAX, 'As Apache Kafka.', true),
  'log.retention.ms': int(7 * DAY_MS, -1, SAFE_MAX, 'As Apache Kafka (log.retention.hours 168); -1 keeps all.', true),
  'log.retention.bytes': int(-1, -1, SAFE_MAX, 'As Apache Kafka: no limit by size.', true),
  'log.retention.check.interval.ms': int(300_000, 1, SAFE_MAX, 'As Apache Kafka.'),
  'log.segment.delete.delay.ms': int(
    60_000,
    0,
    SAFE_MAX,
    'As Apache Kafka: files stay a minute after they left the log.',
    true,
  ),
  'log.message.timestamp.type': text('CreateTime', 'As Apache Kafka.', ['CreateTime', 'LogAppendTime'], true),
  'log.message.timestamp.before.max.ms': int(
    SAFE_MAX,
    0,
    SAFE_MAX,
    'As Apache Kafka: old timestamps are allowed.',
    true,
  ),
  'log.message.timestamp.after.max.ms': int(
    HOUR_MS,
    0,
    SAFE_MAX,
    'As Apache Kafka 4: a record from the future would keep segments alive.',
    true,
  ),
  'message.max.bytes': int(1_048_588, 0, INT32_MAX, 'As Apache Kafka: 1 MiB and the batch overhead.', true),
  'compression.type': text('producer', 'Batches are kept as the producer compressed them.', ['producer'], true),

  // Durability.
  'log.flush': text(
    'synced',
    'synced: answered after the bytes are on the platter. written: after write(), as Apache Kafka does by default; a power cut may lose what was acknowledged.',
    ['synced', 'written'],
  ),
  'log.flush.linger.ms': int(
    1,
    0,
    1000,
    'How long an append that nobody waits for may wait for others before a sync is started for it.',
  ),
  'journal.file.bytes': int(
    128 * MIB,
    1 * MIB,
    GIB,
    'Size of each of the journal files that are reused in turn; a full one asks for a checkpoint.',
  ),
  'journal.files': int(
    3,
    2,
    16,
    'Journal files: appends wait only when all of them are full and not yet checkpointed.',
  ),
  'journal.entry.bytes': int(
    32 * MIB,
    64 * KIB,
    256 * MIB,
    'Largest atomic commit. Half of it is what a transaction may publish: enough for the largest AMQP message.',
  ),
  'journal.group.bytes': int(
    4 * MIB,
    64 * KIB,
    64 * MIB,
    'Largest group written with one sync: bounds the latency of the first in it.',
  ),
  'journal.direct.bytes': int(
    1 * MIB,
    0,
    GIB,
    'A partition with this much in one group goes straight to its segment: one write instead of two.',
  ),
  'journal.segment.bytes': int(
    256 * KIB,
    4 * KIB,
    64 * MIB,
    'Journaled bytes of a partition reach its segment in writes of about this size.',
  ),
  'journal.segment.linger.ms': int(
    5_000,
    1,
    60_000,
    'Journaled bytes reach their segment after this long at the latest. Until then they are in the journal and in memory; the longer, the larger the writes of partitions that get little.',
  ),
  'journal.checkpoint.bytes': int(
    128 * MIB,
    1 * MIB,
    GIB,
    'Journal written between checkpoints: bounds the time of a restart. A checkpoint syncs every segment written since the last one, so half of this costs a broker with 1,000 busy partitions a fifth of its rate.',
  ),
  'log.tail.cache.bytes': int(
    32 * MIB,
    4 * MIB,
    16 * GIB,
    'Newest batches kept in memory for consumers at the end of the log and for the journal. Clients that do not read their answers may hold twice as much again; then those that take nothing are disconnected.',
  ),
  'log.transient.bytes.max': int(
    128 * MIB,
    1 * MIB,
    64 * GIB,
    'Messages of transient queues in memory, over all of them; more go to a scratch file. Where the disk cannot follow, sends are refused beyond twice as much.',
  ),
  'log.unwritten.bytes.max': int(
    16 * MIB,
    1 * MIB,
    GIB,
    'Appended bytes that are not yet in a segment or being synced; above it sockets are not read.',
  ),
  'log.open.files.max': int(1_000, 16, 1_000_000, 'Open segment files; sealed segments are opened when read.'),
  'log.disk.reserve.bytes': int(
    512 * MIB,
    0,
    SAFE_MAX,
    'Free space below which client appends are refused, so that commits and checkpoints always fit.',
    true,
  ),
  'producer.id.expiration.ms': int(DAY_MS, 1, SAFE_MAX, 'As Apache Kafka.', true),
  'producer.states.per.partition.max': int(
    100_000,
    5,
    10_000_000,
    'Idempotent producers remembered by a partition (about 200 bytes each); the oldest goes first.',
  ),

  // Compaction.
  'log.cleaner.backoff.ms': int(15_000, 1, SAFE_MAX, 'As Apache Kafka: how often logs are looked at for compaction.'),
  'log.cleaner.dedupe.buffer.size': int(
    128 * MIB,
    1 * MIB,
    2 * GIB,
    'As Apache Kafka: memory for the keys of one run (24 bytes each), taken while it runs and no larger than it needs.',
    true,
  ),
  'log.cleaner.io.max.bytes.per.second': int(
    64 * MIB,
    64 * KIB,
    SAFE_MAX,
    'What rewriting segments may read and write, so that syncs of appends find the disk free; Apache Kafka has no limit.',
    true,
  ),
  'log.cleaner.delete.retention.ms': int(
    DAY_MS,
    0,
    SAFE_MAX,
    'As Apache Kafka: consumers have a day to see a tombstone.',
    true,
  ),
  'log.cleaner.min.compaction.lag.ms': int(0, 0, SAFE_MAX, 'As Apache Kafka.', true),
  'log.cleaner.max.compaction.lag.ms': int(SAFE_MAX, 1, SAFE_MAX, 'As Apache Kafka: no limit.', true),

  // Groups.
  'group.initial.rebalance.delay.ms': int(
    0,
    0,
    INT32_MAX,
    'Apache Kafka waits 3 s for more members; one node with fast joins does not need to.',
  ),
  'group.min.session.timeout.ms': int(6_000, 1, INT32_MAX, 'As Apache Kafka.'),
  'group.max.session.timeout.ms': int(1_800_000, 1, INT32_MAX, 'As Apache Kafka.'),
  'group.max.size': int(INT32_MAX, 1, INT32_MAX, 'As Apache Kafka.'),
  'group.consumer.heartbeat.interval.ms': int(5_000, 1, INT32_MAX, 'As Apache Kafka: how often members report.'),
  'group.consumer.session.timeout.ms': int(
    45_000,
    1,
    INT32_MAX,
    'As Apache Kafka: a member of a consumer group that is silent for so long is put out.',
  ),
  'group.consumer.min.session.timeout.ms': int(45_000, 1, INT32_MAX, 'As Apache Kafka: for the config of a group.'),
  'group.consumer.max.session.timeout.ms': int(60_000, 1, INT32_MAX, 'As Apache Kafka: for the config of a group.'),
  'group.consumer.min.heartbeat.interval.ms': int(5_000, 1, INT32_MAX, 'As Apache Kafka: for the config of a group.'),
  'group.consumer.max.heartbeat.interval.ms': int(15_000, 1, INT32_MAX, 'As Apache Kafka: for the config of a group.'),
  'group.consumer.max.size': int(INT32_MAX, 1, INT32_MAX, 'As Apache Kafka.'),
  'group.consumer.assignors': text(
    'uniform,range',
    'As Apache Kafka: what members may ask for; the first is taken when none asks.',
  ),
  'group.consumer.assignment.interval.ms': int(
    1_000,
    0,
    INT32_MAX,
    'As Apache Kafka: who joins within this time of a new assignment waits for the next, so that many who start at once move partitions once.',
    true,
  ),
  'group.consumer.min.assignment.interval.ms': int(0, 0, INT32_MAX, 'As Apache Kafka: for the config of a group.'),
  'group.consumer.max.assignment.interval.ms': int(15_000, 0, INT32_MAX, 'As Apache Kafka: for the config of a group.'),
  'group.consumer.migration.policy': text(
    'bidirectional',
    'As Apache Kafka: whether a group with members may go over to the consumer protocol (upgrade), back (downgrade), both, or neither (disabled).',
    ['bidirectional', 'upgrade', 'downgrade', 'disabled'],
  ),
  'group.share.session.timeout.ms': int(
    45_000,
    1,
    INT32_MAX,
    'As Apache Kafka: a member of a share group that is silent for so long is put out.',
  ),
  'group.share.min.session.timeout.ms': int(45_000, 1, INT32_MAX, 'As Apache Kafka: for the config of a group.'),
  'group.share.max.session.timeout.ms': int(60_000, 1, INT32_MAX, 'As Apache Kafka: for the config of a group.'),
  'group.share.heartbeat.interval.ms': int(5_000, 1, INT32_MAX, 'As Apache Kafka: how often members report.'),
  'group.share.min.heartbeat.interval.ms': int(5_000, 1, INT32_MAX, 'As Apache Kafka: for the config of a group.'),
  'group.share.max.heartbeat.interval.ms': int(15_000, 1, INT32_MAX, 'As Apache Kafka: for the config of a group.'),
  'group.share.max.size': int(
    200,
    1,
    100_000,
    'As Apache Kafka: members of a share group; bounds memory and assigning.',
  ),
  'group.share.max.share.sessions': int(
    2_000,
    1,
    1_000_000,
    'As Apache Kafka: members that take from share groups at a time; bounds the memory of their sessions.',
  ),
  'group.share.assignment.interval.ms': int(
    1_000,
    0,
    INT32_MAX,
    'As Apache Kafka: shortest time between two assignments.',
    true,
  ),
  'group.share.min.assignment.interval.ms': int(0, 0, INT32_MAX, 'As Apache Kafka: for the config of a group.'),
  'group.share.max.assignment.interval.ms': int(15_000, 0, INT32_MAX, 'As Apache Kafka: for the config of a group.'),
  'group.share.record.lock.duration.ms': int(
    30_000,
    1_000,
    INT32_MAX,
    'As Apache Kafka: how long a record that was handed out stays with its member.',
  ),
  'group.share.min.record.lock.duration.ms': int(
    15_000,
    1_000,
    INT32_MAX,
    'As Apache Kafka: for the config of a group.',
  ),
  'group.share.max.record.lock.duration.ms': int(
    60_000,
    1_000,
    INT32_MAX,
    'As Apache Kafka: for the config of a group.',
  ),
  'group.share.delivery.count.limit': int(
    5,
    2,
    INT32_MAX,
    'As Apache Kafka: how often a record is handed out at most.',
  ),
  'group.share.min.delivery.count.limit': int(2, 2, INT32_MAX, 'As Apache Kafka: for the config of a group.'),
  'group.share.max.delivery.count.limit': int(10, 2, INT32_MAX, 'As Apache Kafka: for the config of a group.'),
  'group.share.partition.max.record.locks': int(
    2_000,
    100,
    INT32_MAX,
    'As Apache Kafka: how many records of a partition a share group may have handed out at a time.',
  ),
  'group.share.min.partition.max.record.locks': int(100, 100, INT32_MAX, 'As Apache Kafka: for the config of a group.'),
  'group.share.max.partition.max.record.locks': int(
    1_000_000,
    100,
    INT32_MAX,
    'For the config of a group. Apache Kafka allows 4,000; a record in flight costs at most 64 bytes here.',
  ),
  'queues.max': int(10_000, 1, 1_000_000, 'Bounds the memory of declared queues.'),
  'directory.facts.max': int(
    100_000,
    2,
    10_000_000,
    'Users, permissions, access keys, vhosts, policies and parameters together; bounds their memory.',
  ),
  'queue.lookahead.max': int(
    1_000_000,
    1_000,
    100_000_000,
    'Messages that one search of a queue may pass over (groups that are locked, tenants that have too much) before it gives up until the next turn; bounds how long it holds the event loop (about 0.04 µs a message).',
  ),
  'queue.leases': text(
    'accepted',
    'accepted: what is handed out under a lock that ends with its connection (Kafka, AMQP) leaves at once; if the broker crashes before that is written (queue.commit.linger.ms), the message is handed out again, told to be redelivered, and counted from the older number. synced: it leaves when it is on the platter that it was handed out; every delivery waits for a sync. Locks that outlive their connection (SQS) are always synced.',
    ['accepted', 'synced'],
  ),
  'queue.commit.linger.ms': int(
    5,
    0,
    1000,
    'How long what nobody waits for (basic.ack, what was handed out) may wait for more of it before it is written: one write for all queues.',
  ),
  'sqs.request.bytes.max': int(
    8 * MIB,
    1 * MIB,
    256 * MIB,
    'Largest request of an SQS client: 1 MiB of message may be six times as much in JSON.',
  ),
  'sqs.public.url': text(
    '',
    'What URLs of queues begin with, http://host:port, for clients behind a proxy. Empty: the host that the client used.',
  ),
  'sqs.region': text('us-east-1', 'Region in ARNs of queues where neither request nor signature name one.'),
  'sqs.account': text('000000000000', 'Account in URLs and ARNs of queues where the request names none.'),
  'sqs.strict': flag(
    false,
    "Keeps SQS's rules of time that only cost: a queue purged or deleted must wait for 60 seconds.",
  ),
  'queue.open.batches.bytes': int(
    32 * MIB,
    1 * MIB,
    16 * GIB,
    'Opened batches that the readers of queues share, so that a batch handed out message by message is opened once.',
  ),
  'queue.replay.total.bytes': int(
    10 * GIB,
    0,
    SAFE_MAX,
    'What all owned queues together keep of finished messages, for replay; beyond it the largest histories give up their oldest part. A full disk lowers it.',
  ),
  'queue.delay.memory.ms': int(
    600_000,
    0,
    SAFE_MAX,
    'Delays that end within this time are held in memory, 16 bytes each, beside the index of attributes (10 bytes); what is further off is looked for there when half of this time is over.',
  ),
  'queue.attributes.unsaved.bytes': int(
    8 * MIB,
    64 * KIB,
    16 * GIB,
    'What the records of a log say to queues (delay, TTL, priority, group) is kept in a file each time so many bytes of log wait in its queues: so much of each log is read again at a start.',
  ),
  'queue.dedup.max': int(
    10_000_000,
    1_000,
    1_000_000_000,
    'Ids of messages remembered for deduplication, over all queues, about 40 bytes each; beyond it sends are throttled.',
  ),
  'groups.max': int(100_000, 1, 10_000_000, 'Bounds the memory that joining under ever new group ids can take.'),
  'groups.members.bytes.max': int(
    256 * MIB,
    1 * MIB,
    64 * GIB,
    'Memory of the members of all groups, mostly what they tell each other; joining beyond it is refused.',
  ),
  'offsets.retention.minutes': int(10_080, 1, INT32_MAX, 'As Apache Kafka: a week after the group became empty.'),
  'offsets.retention.check.interval.ms': int(600_000, 1, SAFE_MAX, 'As Apache Kafka.'),
  'offset.metadata.max.bytes': int(4_096, 0, INT32_MAX, 'As Apache Kafka.'),

  // RabbitMQ's management API.
  'management.body.bytes.max': int(20_000_000, 1 * KIB, 1 * GIB, 'As RabbitMQ: a definitions file is one body.'),
  'management.bodies.bytes.max': int(
    64 * MIB,
    1 * KIB,
    64 * GIB,
    'Memory of the bodies that are being read or worked on; a request beyond it is told to come again.',
  ),
  'management.connections.max': int(1_000, 1, 1_000_000, 'Tools hold few; each may have one answer on its way.'),
  'management.request.ms': int(60_000, 1_000, SAFE_MAX, 'From the first byte of a request to its last.'),

  // Connections and requests.
  'socket.request.max.bytes': int(
    100 * MIB,
    1 * KIB,
    INT32_MAX,
    'As Apache Kafka: a longer request closes its connection.',
  ),
  'requests.in.flight.max': int(
    32,
    1,
    10_000,
    'Requests of one connection that may wait for their answer; then it is not read.',
  ),
  'connections.max': int(10_000, 1, 1_000_000, 'Kafka connections; an idle one costs up to 32 KiB.'),
  'connections.max.idle.ms': int(600_000, 1_000, SAFE_MAX, 'As Apache Kafka.'),
  'connection.unsent.bytes.max': int(
    1 * MIB,
    64 * KIB,
    GIB,
    'Response bytes held in memory for a connection; the rest is read from the log as the socket drains.',
  ),
  'amqp.memory.high.bytes': int(
    0,
    0,
    SAFE_MAX,
    'While the process holds more memory, AMQP connections are not read from their first publish on. 0: no alarm.',
  ),
  'amqp.consumer.timeout.ms': int(
    1_800_000,
    0,
    SAFE_MAX,
    'A channel that keeps a message unacked for longer is closed, as in RabbitMQ; queues may say another time. 0: never.',
  ),
  'amqp.parked.bytes.max': int(
    1 * MIB,
    64 * KIB,
    GIB,
    'Frames that wait for their channel, which waits for the disk; beyond it the connection is not read.',
  ),
  'requests.buffered.bytes.max': int(
    256 * MIB,
    1 * MIB,
    64 * GIB,
    'Bytes of requests that have not arrived completely or wait for their answer, over all connections; who would go above it is disconnected.',
  ),
  'fetch.max.bytes': int(55 * MIB, 1 * KIB, INT32_MAX, 'As Apache Kafka: upper limit of one fetch answer.'),
  'fetch.sessions.partitions.max': int(
    500_000,
    0,
    100_000_000,
    'Partitions that all fetch sessions together remember, about 250 bytes each; who would go above it reads without a session.',
  ),
  'fetch.sessions.max': int(1_000, 0, 1_000_000, 'As Apache Kafka (max.incremental.fetch.session.cache.slots).'),
  'decompressed.bytes.max': int(
    64 * MIB,
    1 * MIB,
    GIB,
    'A compressed batch that would open to more than this is refused.',
  ),
  'max.request.partition.size.limit': int(
    2_000,
    1,
    1_000_000,
    'As Apache Kafka: partitions in one DescribeTopicPartitions answer.',
  ),
  'shutdown.drain.ms': int(10_000, 0, 600_000, 'How long SIGTERM waits for requests in flight.'),
} as const satisfies Record<string, Option>;

export type OptionName = keyof typeof options;
type ValueOf<O> = O extends NumberOption ? number : O extends BooleanOption ? boolean : string;
export type Options = { [Name in OptionName]: ValueOf<(typeof options)[Name]> };

/** All defaults, with `values` (already typed, or text as from the command line) over them. Throws INVALID_OPTION. */
export function resolveOptions(values: Readonly<Record<string, string | number | boolean>> = {}): Options {
  const resolved: Record<string, string | number | boolean> = {};
  for (const [name, option] of Object.entries(options)) resolved[name] = option.default;
  for (const [name, value] of Object.entries(values)) resolved[name] = parseOption(name, value);
  // Built key by key from the table that the type comes from.
  return resolved as Options;
}

/** Checks one value against the table and answers it in its type. */
export function parseOption(name: string, value: string | number | boolean): string | number | boolean {
  const option: Option | undefined = Object.hasOwn(options, name) ? options[name as OptionName] : undefined;
  if (!option) throw new MillraceError('INVALID_OPTION', `there is no option '${name}'; docs/options.md lists them`);
  switch (option.type) {
    case 'number': {
      const number = typeof value === 'string' && value.trim() !== '' ? Number(value) : value;
      if (typeof number === 'number' && Number.isInteger(number) && number >= option.min && number <= option.max)
        return number;
      throw new MillraceError(
        'INVALID_OPTION',
        `${name} must be a whole number from ${option.min} to ${option.max}, not '${value}'`,
      );
    }
    case 'boolean':
      if (value === true || value === 'true') return true;
      if (value === false || value === 'false') return false;
      throw new MillraceError('INVALID_OPTION', `${name} must be true or false, not '${value}'`);
    case 'string': {
      const string = String(value);
      if (!option.values || option.values.includes(string)) return string;
      throw new MillraceError('INVALID_OPTION', `${name} must be one of ${option.values.join(', ')}, not '${value}'`);
    }
  }
}
