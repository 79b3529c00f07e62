/** `millrace queue` move, redrive, replay and jobs: what the broker does in steps, while this waits and tells. */
import type { KafkaCluster } from '../kafka/cluster.ts';
import { type BrokerCommand, type QueueJob, runBrokerCommand } from '../kafka/queues.ts';
import { clusterFlags, withCluster } from './cluster-flags.ts';
import { type Args, type Command, CommandFailure, type Flag, UsageError, exitCodes, wholeNumber } from './command.ts';
import type { Io } from './io.ts';
import { jsonLine, plural, table, timeText } from './output.ts';
import { PLACE_HELP, parsePlace } from './places.ts';
import { isJson, onQueue, optionalNumber, outputFlag } from './queue-args.ts';

/** How often a job that is waited for is asked about: at first, and at most. */
const ASK_MIN_MS = 50;
const ASK_MAX_MS = 1000;
/** How often its progress is told. */
const TELL_MS = 5000;

const jobFlags = {
  filter: { value: 'FIELD=VALUE', short: 'f', isRepeatable: true, help: 'only messages for which all of these hold' },
  rate: { value: 'N', help: 'messages a second at most' },
  limit: { value: 'N', short: 'n', help: 'messages in all at most' },
  'dry-run': { help: 'counts what would be moved, and moves nothing' },
  detach: { help: "do not wait for the end; 'millrace queue jobs' shows how it goes" },
} as const satisfies Record<string, Flag>;

const JOB_DETAILS = `The broker does it in steps, each whole or not at all, and goes on after a restart. What consumers hold is left alone.
A filter is FIELD=VALUE or FIELD!=VALUE; fields are key, header.NAME, and of dead letters reason, queue (that they
died in) and origin (topic they came from).`;

const move: Command = {
  name: 'queue move',
  usage: 'NAME TARGET [flags]',
  summary: 'Moves the messages that wait in a queue to another queue or topic',
  details: JOB_DETAILS,
  arity: [2, 2],
  flags: { ...clusterFlags, ...outputFlag, ...jobFlags },
  run: (args, io) => runJob(args, io, { command: 'move', name: args.positionals[0], target: args.positionals[1] }),
};

const redrive: Command = {
  name: 'queue redrive',
  usage: 'NAME [flags]',
  summary: 'Sends dead letters back to where they came from, or elsewhere',
  details: `NAME is the queue that dead letters went to. Each goes back to the topic it was first appended to, as a new message.
${JOB_DETAILS}
Examples:
  millrace queue redrive orders.dead --dry-run
  millrace queue redrive orders.dead --filter reason=delivery_limit --rate 100`,
  arity: [1, 1],
  flags: {
    ...clusterFlags,
    ...outputFlag,
    ...jobFlags,
    to: { value: 'QUEUE', help: 'queue or topic to send them to (default: where each came from)' },
    cancel: { help: 'ends the job that is running on the queue' },
  },
  run: (args, io) => {
    const [name] = args.positionals;
    if (args.has('cancel')) return cancelJob(args, io, { name });
    return runJob(args, io, { command: 'redrive', name, target: args.text('to') });
  },
};

const replay: Command = {
  name: 'queue replay',
  usage: 'NAME --from PLACE [flags]',
  summary: 'Makes messages that a queue has finished available again',
  details: `Messages keep their offsets and are handed out again by this queue only; with --append they are sent once more, as new
messages, to everybody who reads the topic. What is in flight is not replayed. Kept is what the topic keeps
(replay.retention.ms, replay.retention.bytes). To look at messages without touching the queue, read its topic:
'millrace cat TOPIC --from PLACE'.
A place is ${PLACE_HELP}.`,
  arity: [1, 1],
  flags: {
    ...clusterFlags,
    ...outputFlag,
    from: { value: 'PLACE', help: 'where to begin' },
    to: { value: 'PLACE', help: 'where to stop, itself not included (default: the end)' },
    partition: { value: 'P', help: 'only this partition; needed for offsets if there are several' },
    append: { help: 'send them again instead of making them available again' },
    ...jobFlags,
  },
  async run(args, io) {
    const [name] = args.positionals;
    const text = args.text('from');
    if (text === undefined) throw new UsageError('replay needs --from PLACE');
    const partition = optionalNumber(args, 'partition', 0);
    const range = { ...bound(args, io, 'from'), ...bound(args, io, 'to') };
    if (args.has('append')) return runJob(args, io, { command: 'replay', name, partition, append: true, ...range });
    for (const flag of Object.keys(jobFlags)) {
      if (args.has(flag)) throw new UsageError(`--${flag} goes with --append; in place a whole range comes back`);
    }
    return withCluster(args, io, async (cluster) => {
      const isForPrograms = isJson(args);
      const answer = await onQueue(() =>
        runBrokerCommand<{ replayed: number }>(cluster, { command: 'replay', name, partition, ...range }),
      );
      if (isForPrograms) await io.write(jsonLine(answer));
      else io.note(`${plural(answer.replayed, 'message')} of queue ${name} can be taken again`);
    });
  },
};

/** `fromOffset` or `fromMs` of a place; likewise `to`. */
function bound(args: Args, io: Io, flag: 'from' | 'to'): Record<string, number> {
  const text = args.text(flag);
  if (text === undefined) return {};
  const place = parsePlace(`--${flag}`, text, io.clock.now());
  if (place.kind === 'offset') return { [`${flag}Offset`]: place.offset };
  if (place.kind === 'time') return { [`${flag}Ms`]: place.timestamp };
  if (place.kind === 'earliest' && flag === 'from') return { fromMs: 0 };
  if (place.kind === 'latest' && flag === 'to') return {};
  throw new UsageError(`--${flag} ${text} replays nothing here; give an offset or a time`);
}

const jobs: Command = {
  name: 'queue jobs',
  usage: '[NAME] [flags]',
  summary: 'Shows moves, redrives and replays, running and ended, or cancels one',
  arity: [0, 1],
  flags: { ...clusterFlags, ...outputFlag, cancel: { value: 'ID', help: 'ends the job after the step it is at' } },
  run(args, io) {
    const cancel = args.text('cancel');
    if (cancel !== undefined) return cancelJob(args, io, { id: wholeNumber('--cancel', cancel, 1) });
    return withCluster(args, io, async (cluster) => {
      const isForPrograms = isJson(args);
      const command = { command: 'jobs', name: args.positionals.at(0) };
      const { jobs: found } = await runBrokerCommand<{ jobs: QueueJob[] }>(cluster, command);
      if (isForPrograms) for (const job of found) await io.write(jsonLine(job));
      else if (found.length === 0) io.note('There are no jobs.');
      else await io.write(table(HEAD, found.map(jobRow)));
    });
  },
};

const HEAD = ['JOB', 'KIND', 'QUEUE', 'TO', 'STATUS', 'LOOKED AT', 'MOVED', 'LEFT', 'TO GO', 'STARTED'];

function jobRow(job: QueueJob): (string | number | null)[] {
  const kind = job.isDryRun ? `${job.kind} (dry)` : job.kind;
  const { id, source, target, status, scanned, movedCount, left, remaining, startedMs } = job;
  return [id, kind, source, target, status, scanned, movedCount, left, remaining, timeText(startedMs)];
}

/** One line for people. */
export function jobLine(job: QueueJob): string {
  const { id, kind, status, movedCount, remaining, target, isDryRun } = job;
  const moved = isDryRun ? `${movedCount} would be moved` : `${movedCount} moved`;
  const rest = status === 'running' ? `, about ${remaining} to go` : '';
  return `${id}: ${kind}${target === null ? '' : ` to ${target}`} ${status}, ${moved}${rest}`;
}

async function runJob(args: Args, io: Io, command: BrokerCommand & { readonly name: string }): Promise<number> {
  const isForPrograms = isJson(args);
  const request = {
    ...command,
    filter: args.texts('filter'),
    rate: optionalNumber(args, 'rate', 1),
    limit: optionalNumber(args, 'limit', 1),
    dryRun: args.has('dry-run'),
  };
  return withCluster(args, io, async (cluster) => {
    let { job } = await onQueue(() => runBrokerCommand<{ job: QueueJob }>(cluster, request));
    if (!args.has('detach')) job = await ended(cluster, job, io);
    if (isForPrograms) await io.write(jsonLine(job));
    else tell(job, io);
    if (job.status === 'failed') throw new CommandFailure(`job ${job.id} failed: ${job.error ?? 'it did not say why'}`);
    return job.status === 'cancelled' ? exitCodes.failed : exitCodes.ok;
  });
}

async function ended(cluster: KafkaCluster, started: QueueJob, io: Io): Promise<QueueJob> {
  let job = started;
  let waitMs = ASK_MIN_MS;
  let toldMs = io.clock.monotonic();
  while (job.status === 'running') {
    await new Promise<void>((resolve) => io.clock.after(waitMs, resolve));
    waitMs = Math.min(waitMs * 2, ASK_MAX_MS);
    ({ job } = await runBrokerCommand<{ job: QueueJob }>(cluster, { command: 'job', id: job.id }));
    if (job.status !== 'running' || io.clock.monotonic() - toldMs < TELL_MS) continue;
    toldMs = io.clock.monotonic();
    io.note(`job ${jobLine(job)}; it goes on without us ('millrace queue jobs --cancel ${job.id}' ends it)`);
  }
  return job;
}

function tell(job: QueueJob, io: Io): void {
  const { id, kind, source, status, isDryRun, moved, movedCount, scanned, left } = job;
  if (status === 'running') {
    io.note(`job ${id} is running; 'millrace queue jobs' shows it, 'millrace queue jobs --cancel ${id}' ends it`);
    return;
  }
  const places = Object.entries(moved).map(([topic, count]) => `${count} to ${topic}`);
  const did = isDryRun ? 'would move' : kind === 'replay' ? 'sent again' : 'moved';
  const where = places.length === 0 ? '' : `: ${places.join(', ')}`;
  io.note(`${kind} of ${source} ${did} ${plural(movedCount, 'message')} of ${scanned} looked at${where}`);
  if (left > 0)
    io.note(
      `${plural(left, 'message')} stayed: not known where they came from, or it is gone; --to QUEUE sends them elsewhere`,
    );
  if (status === 'cancelled') io.note(`job ${id} was cancelled before its end`);
}

function cancelJob(args: Args, io: Io, which: { id?: number; name?: string }): Promise<void> {
  return withCluster(args, io, async (cluster) => {
    const isForPrograms = isJson(args);
    const { job } = await runBrokerCommand<{ job: QueueJob }>(cluster, { command: 'cancel', ...which });
    if (isForPrograms) await io.write(jsonLine(job));
    else io.note(`job ${jobLine(job)}`);
  });
}

export const queueJobCommands: Readonly<Record<string, Command>> = { move, redrive, replay, jobs };
