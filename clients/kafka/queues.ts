/**
 * Commands about queues, users, vhosts and policies to a Millrace broker, over its Kafka port: JSON in a tagged field of
 * AlterShareGroupOffsets, which the broker announces as feature `millrace.queues` (docs/queues.md). Commands and answers
 * are those of `broker/queue-commands.ts` and `broker/directory-commands.ts`.
 */
import { apis } from '../../protocol/kafka/apis.ts';
import { type ErrorCode, errors, MillraceError } from '../../protocol/errors.ts';
import type { KafkaCluster } from './cluster.ts';
import type { KafkaConnection } from './connection.ts';
import { throwOnError } from './errors.ts';

const FEATURE = 'millrace.queues';
const FEATURE_VERSION = 1;
/** May be asked again when an answer got lost. */
const REPEATABLE: ReadonlySet<string> = new Set([
  ...['list', 'describe', 'peek', 'jobs', 'job', 'alter', 'create'],
  ...['user.list', 'user.permissions', 'key.list', 'vhost.list', 'policy.list'],
]);

export interface BrokerCommand {
  readonly command: string;
  readonly [argument: string]: unknown;
}

/**
 * Runs the command and answers what the broker did. `Answer` is the caller's word for the shape, which the broker's
 * version of the feature vouches for. A `MillraceError` with the broker's code and words, UNSUPPORTED_VERSION from a
 * server that is no Millrace.
 */
export async function runBrokerCommand<Answer>(cluster: KafkaCluster, command: BrokerCommand): Promise<Answer> {
  const isRepeatable = REPEATABLE.has(command.command);
  const connection = await cluster.retry(() => cluster.any());
  const { answer, error } = isRepeatable
    ? await cluster.retry(async () => send<Answer>(await cluster.any(), command))
    : await send<Answer>(connection, command);
  if (answer !== undefined) return answer;
  // A later broker may have codes that this client does not know. No error of an answer is one that passes.
  const isKnown = error !== undefined && Object.hasOwn(errors, error.code);
  const code = isKnown ? (error.code as ErrorCode) : 'UNKNOWN_SERVER_ERROR';
  throw new MillraceError(code, error?.message ?? 'the broker did not say why');
}

interface Sent<Answer> {
  readonly answer?: Answer;
  readonly error?: { readonly code: string; readonly message: string };
}

async function send<Answer>(connection: KafkaConnection, command: BrokerCommand): Promise<Sent<Answer>> {
  const feature = connection.feature(FEATURE);
  if (feature === undefined || feature.minVersion > FEATURE_VERSION || feature.maxVersion < FEATURE_VERSION) {
    const { host, port } = connection.address;
    const offered =
      feature === undefined ? 'does not offer it' : `has versions ${feature.minVersion} to ${feature.maxVersion}`;
    throw new MillraceError(
      'UNSUPPORTED_VERSION',
      `${host}:${port} has no queues for this client: it ${offered} (feature ${FEATURE} ${FEATURE_VERSION}), as other Kafka servers do`,
    );
  }
  const response = await connection.send(apis.AlterShareGroupOffsets, () => ({
    groupId: '',
    topics: [],
    queueCommand: Buffer.from(JSON.stringify(command)),
  }));
  throwOnError(response.errorCode, `command ${command.command}`, response.errorMessage);
  if (response.queueAnswer === null) throw new MillraceError('UNSUPPORTED_VERSION', 'the answer has no queue answer');
  // The broker's own text, see above.
  return JSON.parse(response.queueAnswer.toString()) as Sent<Answer>;
}

/** A queue in one line, as `list` answers it. Times in ms. */
export interface QueueSummary {
  readonly name: string;
  readonly kind: 'owned' | 'attached';
  readonly topic: string;
  readonly partitionCount: number;
  /** Not finished: ready, in flight, delayed and blocked. */
  readonly depth: number;
  readonly ready: number;
  readonly inFlight: number;
  readonly delayed: number;
  /** Behind a message of their ordered group that is in flight. */
  readonly blocked: number;
  /** Since the broker started: went to a dead-letter target. */
  readonly deadLettered: number;
  readonly deadLetterQueue: string | null;
  readonly consumers: number;
  readonly oldestMs: number | null;
  readonly ageMs: number | null;
  /** Over the last minute; null: not known yet. */
  readonly ratePerSecond: { readonly in: number; readonly out: number } | null;
}

export interface QueueDescription extends QueueSummary {
  readonly topicId: string;
  readonly partitions: readonly {
    readonly partition: number;
    readonly start: number;
    readonly next: number;
    readonly end: number;
    readonly logStart: number;
    readonly sizeBytes: number;
    readonly ready: number;
    readonly inFlight: number;
    readonly delayed: number;
    readonly blocked: number;
  }[];
  readonly settings: readonly { readonly name: string; readonly value: string; readonly origin: string }[];
  readonly job: QueueJob | null;
}

export interface QueueJob {
  readonly id: number;
  readonly kind: 'redrive' | 'move' | 'replay';
  readonly source: string;
  readonly target: string | null;
  readonly filter: readonly string[];
  readonly ratePerSecond: number | null;
  readonly messagesMax: number | null;
  readonly isDryRun: boolean;
  readonly startedMs: number;
  readonly endedMs: number | null;
  readonly status: 'running' | 'done' | 'cancelled' | 'failed';
  readonly error: string | null;
  readonly scanned: number;
  readonly matched: number;
  readonly moved: Readonly<Record<string, number>>;
  readonly movedCount: number;
  readonly left: number;
  /** Offsets still to be looked at. */
  readonly remaining: number;
}

/** Text, or bytes that are not text; null if there is none. */
export type PeekedBytes = { readonly text: string } | { readonly base64: string } | null;

export interface PeekedMessage {
  readonly partition: number;
  readonly offset: number;
  readonly id: string;
  readonly timestamp: number;
  readonly epoch: number;
  readonly key: PeekedBytes;
  readonly value: PeekedBytes;
  readonly headers: readonly { readonly key: string; readonly text?: string; readonly base64?: string }[];
  readonly origin: { readonly topic: string; readonly partition: number; readonly offset: number } | null;
  readonly deaths: readonly { readonly queue: string; readonly reason: string; readonly count: number }[];
}
