/** The flags that every command about a running cluster has, and the client they ask for. */
import { KafkaCluster, parseAddresses } from '../kafka/cluster.ts';
import { type Args, type Flag, UsageError, wholeNumber } from './command.ts';
import type { Io } from './io.ts';

export const clusterFlags = {
  bootstrap: {
    value: 'HOST:PORT,…',
    short: 'b',
    help: 'brokers to ask first (default: $MILLRACE_BOOTSTRAP, or 127.0.0.1:9092)',
  },
  timeout: { value: 'MS', help: 'how long to go on trying (default 30000)' },
} as const satisfies Record<string, Flag>;

export const jsonFlag = { json: { help: 'one JSON object a line' } } as const satisfies Record<string, Flag>;

/** Runs `work` with a client of the cluster that the flags name, and closes it. */
export async function withCluster<T>(args: Args, io: Io, work: (cluster: KafkaCluster) => Promise<T>): Promise<T> {
  const list = args.text('bootstrap') ?? io.env.MILLRACE_BOOTSTRAP ?? '127.0.0.1:9092';
  const timeoutMs = wholeNumber('--timeout', args.text('timeout') ?? '30000', 1);
  const cluster = new KafkaCluster({
    bootstrap: addresses(list),
    clock: io.clock,
    clientId: 'millrace-cli',
    connectTimeoutMs: Math.min(timeoutMs, 10_000),
    requestTimeoutMs: timeoutMs,
    retryTimeoutMs: timeoutMs,
  });
  try {
    return await work(cluster);
  } finally {
    cluster.close();
  }
}

function addresses(list: string): ReturnType<typeof parseAddresses> {
  try {
    const found = parseAddresses(list);
    if (found.length > 0) return found;
  } catch (error) {
    if (error instanceof RangeError) throw new UsageError(`--bootstrap: ${error.message}`);
    throw error;
  }
  throw new UsageError('--bootstrap names no broker; it takes HOST:PORT,…');
}

/** `NAME` or `NAME:PARTITION`. Topic names have no colon. */
export function topicAndPartition(text: string): { topic: string; partition: number | undefined } {
  const at = text.lastIndexOf(':');
  if (at < 0) return { topic: text, partition: undefined };
  return { topic: text.slice(0, at), partition: wholeNumber('a partition', text.slice(at + 1)) };
}
