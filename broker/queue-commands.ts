/**
 * What operators ask of queues, as JSON: the command line sends it over the Kafka port (`broker/kafka/queue-command.ts`),
 * and every other door may. What is changed is durable when the answer comes.
 *
 *   list {}                                                                → { queues: Summary[] }
 *   create { name, topic?, from?, settings? }                              → { created, queue: Summary }
 *   alter { name, settings }                                               → { queue: Summary }
 *   describe { name }                                                      → { queue: Description }
 *   peek { name, partition?, offset?, count?, filter? }                    → { messages: Message[], isMore }
 *   purge { name, inFlight?, untilOffset? }                                → { purged }
 *   delete { name, ifEmpty?, ifUnused? }                                   → {}
 *   move | redrive { name, target?, filter?, rate?, limit?, dryRun? }      → { job }
 *   replay { name, partition?, fromOffset?, toOffset?, fromMs?, toMs?, append?, filter?, rate?, limit?, dryRun? }
 *                                                                          → { replayed } or { job }
 *   jobs { name? } → { jobs }     job { id } → { job }     cancel { id? , name? } → { job }
 */
import { MillraceError } from '../protocol/errors.ts';
import type { Clock } from '../storage/clock.ts';
import type { Operation } from './access.ts';
import {
  type Allows,
  type Answer,
  type Arguments,
  checkedCommand,
  flag,
  invalid,
  optionalText,
  requiredText,
  texts,
  wholeNumber,
} from './command-arguments.ts';
import type { Engine } from './engine.ts';
import { deathHistory, messageId, messageOrigin } from './queue-attributes.ts';
import { messageFilter } from './queue-filter.ts';
import { type Job, type JobRequest, QueueJobs } from './queue-jobs.ts';
import { QueueRates } from './queue-rates.ts';
import type { QueuedRecord, QueueReader } from './queue-reader.ts';
import { queueSettingTable } from './queue-settings.ts';
import type { Queue, QueuePartition, QueueRegistry } from './queues.ts';
import type { TopicRegistry } from './topics.ts';

export interface QueueCommandsParts {
  readonly engine: Engine;
  readonly clock: Clock;
  readonly topics: TopicRegistry;
  readonly queues: QueueRegistry;
  readonly reader: QueueReader;
  /** `journal.entry.bytes` */
  readonly entryBytes: number;
  /** A line for the operator. */
  readonly report: (message: string, error: unknown) => void;
}

/** Messages of one peek, and how many are looked at for a filter. */
const PEEK_MAX = 1000;
const PEEK_SCAN_MAX = 100_000;
const PEEK_BYTES_MAX = 4 * 1024 * 1024;
/** Messages read at a time. */
const SCAN_MESSAGES = 1000;
/** How long a command waits for a queue that reads its log after a start, and how often it looks. */
const LEARN_MS_MAX = 10_000;
const LEARN_LOOK_MS = 10;
export class QueueCommands {
  readonly #parts: QueueCommandsParts;
  readonly jobs: QueueJobs;
  readonly #rates: QueueRates;

  /** After the queues, before the engine discards what nobody opened. */
  constructor(parts: QueueCommandsParts, jobs = new QueueJobs(parts)) {
    this.#parts = parts;
    this.jobs = jobs;
    this.#rates = new QueueRates(parts.clock, () => parts.queues.all());
  }

  /** Goes on with the jobs that were running. */
  load(): Promise<void> {
    return this.jobs.load();
  }

  close(): void {
    this.jobs.close();
    this.#rates.close();
  }

  /** INVALID_REQUEST for a command that is not understood; QUEUE_NOT_FOUND, GROUP_AUTHORIZATION_FAILED and those of the registry. */
  async run(request: unknown, allows: Allows): Promise<Answer> {
    const { name, args } = checkedCommand(request, argumentsOf);
    switch (name) {
      case 'list':
        return this.#list(allows);
      case 'create':
        return this.#create(args, allows);
      case 'alter':
        return this.#alter(args, allows);
      case 'describe':
        return this.#describe(args, allows);
      case 'peek':
        return this.#peek(args, allows);
      case 'purge':
        return this.#purge(args, allows);
      case 'delete':
        return this.#delete(args, allows);
      case 'move':
      case 'redrive':
        return this.#move(name, args, allows);
      case 'replay':
        return this.#replay(args, allows);
      case 'jobs':
        return this.#listJobs(args, allows);
      case 'job':
        return this.#job(args, allows);
      case 'cancel':
        return this.#cancel(args, allows);
    }
  }

  // --- which queues there are ---

  async #list(allows: Allows): Promise<Answer> {
    await this.#durable();
    for (const queue of this.#parts.queues.all()) if (!queue.isDeleted) await this.#learned(queue).catch(isGone);
    const visible = this.#parts.queues.all().filter(({ name }) => allows('DESCRIBE', 'GROUP', name));
    const queues: Answer[] = [];
    for (const queue of visible) queues.push(await this.#summary(queue));
    return { queues };
  }

  async #create(args: Arguments, allows: Allows): Promise<Answer> {
    const { queues } = this.#parts;
    const name = requiredText(args, 'name');
    const topic = optionalText(args, 'topic');
    const from = optionalText(args, 'from');
    if (from !== undefined && from !== 'earliest' && from !== 'latest') {
      throw invalid(`from is earliest or latest, not '${from}'`);
    }
    if (from !== undefined && topic === undefined) throw invalid('from is for a queue over a topic that exists');
    check(allows, topic === undefined ? 'CREATE' : 'READ', 'TOPIC', topic ?? name);
    check(allows, 'READ', 'GROUP', name);
    const settings = new Map<string, string>();
    for (const [setting, value] of settingEntries(args)) {
      if (value === undefined) throw invalid(`setting '${setting}' of a new queue has no value`);
      settings.set(setting, value);
    }
    this.#checkTargets(settings, allows);
    const isNew = queues.get(name) === undefined;
    const queue = queues.declare({
      name,
      kind: topic === undefined ? 'owned' : 'attached',
      settings,
      family: 'millrace',
      ...(topic === undefined ? {} : { topic }),
      ...(from === undefined ? {} : { from }),
    });
    await this.#durable();
    return { created: isNew, queue: await this.#summary(queue) };
  }

  async #alter(args: Arguments, allows: Allows): Promise<Answer> {
    const queue = this.#queue(args, allows, 'ALTER_CONFIGS');
    const changes = settingEntries(args);
    if (changes.size === 0) throw invalid('alter has no settings to change');
    this.#checkTargets(changes, allows);
    this.#parts.queues.configure(queue, changes, 'millrace');
    await this.#durable();
    return { queue: await this.#summary(queue) };
  }

  /** Who names a dead-letter target lets the broker write there. */
  #checkTargets(settings: ReadonlyMap<string, string | undefined>, allows: Allows): void {
    for (const [setting, value] of settings) {
      if (setting.endsWith('dead.letter.queue') && value !== undefined && value !== '') {
        check(allows, 'WRITE', 'TOPIC', this.#parts.queues.get(value)?.topic.name ?? value);
      }
    }
  }

  async #describe(args: Arguments, allows: Allows): Promise<Answer> {
    const queue = this.#queue(args, allows, 'DESCRIBE');
    // What is shown has happened.
    await this.#durable();
    await this.#learned(queue);
    const { topic, settings, origins } = queue;
    const partitions = queue.partitions().map(({ index, log, state }) => ({
      partition: index,
      start: state.startOffset,
      next: state.nextOffset,
      end: state.endOffset,
      logStart: log.startOffset,
      sizeBytes: log.sizeBytes,
      ...state.counts,
    }));
    const shown = Object.entries(settings).map(([name, value]) => ({
      name,
      value: String(value),
      origin: origins.get(name) ?? 'default',
    }));
    const job = this.jobs.runningOn(queue.name);
    const description = {
      ...(await this.#summary(queue)),
      topicId: topic.id,
      partitions,
      settings: shown,
      job: job ?? null,
    };
    return { queue: description };
  }

  async #summary(queue: Queue): Promise<Answer> {
    const { ready, inFlight, delayed, blocked } = queue.counts();
    const rates = this.#rates.of(queue);
    const oldestMs = await queue.oldestMs();
    return {
      name: queue.name,
      kind: queue.kind,
      topic: queue.topic.name,
      partitionCount: queue.topic.partitions.length,
      /** What is not finished. */
      depth: ready + inFlight + delayed + blocked,
      ready,
      inFlight,
      delayed,
      blocked,
      /** Since the broker started: messages that left without being accepted, for a dead-letter target. */
      deadLettered: queue.deadLettered,
      deadLetterQueue: queue.settings['dead.letter.queue'] || null,
      consumers: queue.consumerCount,
      oldestMs: oldestMs ?? null,
      ageMs: oldestMs === undefined || oldestMs < 0 ? null : Math.max(0, this.#parts.clock.now() - oldestMs),
      ratePerSecond: rates ?? null,
    };
  }

  // --- what is in them ---

  async #peek(args: Arguments, allows: Allows): Promise<Answer> {
    const queue = this.#queue(args, allows, 'DESCRIBE');
    check(allows, 'READ', 'TOPIC', queue.topic.name);
    const countMax = wholeNumber(args, 'count', 1, PEEK_MAX) ?? 10;
    const index = wholeNumber(args, 'partition', 0, Number.MAX_SAFE_INTEGER);
    const fromOffset = wholeNumber(args, 'offset', 0, Number.MAX_SAFE_INTEGER) ?? 0;
    const filter = messageFilter(texts(args, 'filter') ?? []);
    await this.#learned(queue);
    const messages: Answer[] = [];
    const budget = { scans: PEEK_SCAN_MAX, bytes: PEEK_BYTES_MAX };
    for (const partition of queue.partitions()) {
      if (index !== undefined && partition.index !== index) continue;
      let next = fromOffset;
      while (messages.length < countMax && budget.scans > 0 && budget.bytes > 0) {
        const offsets = partition.state.waiting(next, Math.min(SCAN_MESSAGES, budget.scans));
        if (offsets.length === 0) break;
        next = offsets[offsets.length - 1] + 1;
        budget.scans -= offsets.length;
        const runs = offsets.map((offset) => ({ firstOffset: offset, lastOffset: offset }));
        const { records } = await this.#parts.reader.records(partition.log, runs);
        for (const record of records) {
          if (messages.length === countMax || budget.bytes <= 0) break;
          if (!filter.matches(record)) continue;
          messages.push(shownMessage(partition, record));
          budget.bytes -= (record.key?.length ?? 0) + (record.value?.length ?? 0);
        }
      }
    }
    const isMore = budget.scans <= 0 || budget.bytes <= 0 || messages.length === countMax;
    return { messages, isMore };
  }

  async #purge(args: Arguments, allows: Allows): Promise<Answer> {
    const queue = this.#queue(args, allows, 'READ');
    const untilOffset = wholeNumber(args, 'untilOffset', 0, Number.MAX_SAFE_INTEGER);
    await this.#learned(queue);
    const isInFlightToo = flag(args, 'inFlight');
    const purged = queue.purge({ isInFlightToo, ...(untilOffset === undefined ? {} : { untilOffset }) });
    await this.#durable();
    return { purged };
  }

  async #delete(args: Arguments, allows: Allows): Promise<Answer> {
    const queue = this.#queue(args, allows, 'DELETE');
    if (queue.kind === 'owned') check(allows, 'DELETE', 'TOPIC', queue.topic.name);
    if (flag(args, 'ifEmpty')) await this.#learned(queue);
    const { ready, inFlight, delayed, blocked } = queue.counts();
    const depth = ready + inFlight + delayed + blocked;
    if (flag(args, 'ifEmpty') && depth > 0) {
      throw new MillraceError('POLICY_VIOLATION', `queue '${queue.name}' is not empty: it has ${depth} messages`);
    }
    if (flag(args, 'ifUnused') && queue.consumerCount > 0) {
      throw new MillraceError('QUEUE_IN_USE', `queue '${queue.name}' has ${queue.consumerCount} consumers`);
    }
    this.#parts.queues.delete(queue);
    await this.#durable();
    return {};
  }

  // --- what goes elsewhere or comes back ---

  async #move(kind: 'move' | 'redrive', args: Arguments, allows: Allows): Promise<Answer> {
    const queue = this.#queue(args, allows, 'READ');
    check(allows, 'READ', 'TOPIC', queue.topic.name);
    const target = optionalText(args, 'target');
    if (target === undefined) {
      if (kind === 'move') throw invalid('move needs a target');
      // Where messages came from is known only on the way.
      if (!allows('ALTER', 'CLUSTER', 'kafka-cluster')) throw new MillraceError('CLUSTER_AUTHORIZATION_FAILED');
    } else check(allows, 'WRITE', 'TOPIC', this.#parts.queues.get(target)?.topic.name ?? target);
    return this.#start({ ...jobRequest(args), kind, source: queue.name, target });
  }

  async #replay(args: Arguments, allows: Allows): Promise<Answer> {
    const queue = this.#queue(args, allows, 'READ');
    check(allows, 'READ', 'TOPIC', queue.topic.name);
    await this.#learned(queue);
    const ranges = await this.#ranges(queue, args);
    if (flag(args, 'append')) {
      check(allows, 'WRITE', 'TOPIC', queue.topic.name);
      return this.#start({ ...jobRequest(args), kind: 'replay', source: queue.name, ranges });
    }
    for (const name of ['filter', 'rate', 'limit']) {
      if (args[name] !== undefined)
        throw invalid(`${name} is for a replay with append; in place a whole range comes back`);
    }
    if (flag(args, 'dryRun')) throw invalid('dryRun is for a replay with append');
    let replayed = 0;
    for (const { partition, start, end } of ranges) {
      if (start < end) replayed += await queue.replay(partition, start, end - 1);
    }
    await this.#durable();
    return { replayed };
  }

  /** Offsets by partition, the end exclusive: as given, or of the first record at or after a time. */
  async #ranges(queue: Queue, args: Arguments): Promise<{ partition: number; start: number; end: number }[]> {
    const index = wholeNumber(args, 'partition', 0, Number.MAX_SAFE_INTEGER);
    const whole = (name: string): number | undefined => wholeNumber(args, name, 0, Number.MAX_SAFE_INTEGER);
    const [fromOffset, toOffset, fromMs, toMs] = ['fromOffset', 'toOffset', 'fromMs', 'toMs'].map(whole);
    if (fromOffset === undefined && fromMs === undefined) throw invalid('replay needs fromOffset or fromMs');
    if (fromOffset !== undefined && fromMs !== undefined) throw invalid('replay takes fromOffset or fromMs, not both');
    if (toOffset !== undefined && toMs !== undefined) throw invalid('replay takes toOffset or toMs, not both');
    const partitions = queue.partitions().filter((partition) => index === undefined || partition.index === index);
    if (partitions.length === 0) {
      throw new MillraceError('UNKNOWN_TOPIC_OR_PARTITION', `queue '${queue.name}' has no partition ${index}`);
    }
    const hasOffsets = fromOffset !== undefined || toOffset !== undefined;
    if (hasOffsets && partitions.length > 1) {
      throw invalid(`queue '${queue.name}' has ${partitions.length} partitions: offsets need a partition`);
    }
    const ranges: { partition: number; start: number; end: number }[] = [];
    for (const { index: partition, log, state } of partitions) {
      const at = async (timeMs: number): Promise<number> =>
        (await log.offsetForTime(timeMs))?.offset ?? log.highWatermark;
      const start = fromOffset ?? (await at(fromMs ?? 0));
      const end = toOffset ?? (toMs === undefined ? state.endOffset : await at(toMs));
      ranges.push({ partition, start: Math.max(start, log.startOffset), end: Math.min(end, state.endOffset) });
    }
    return ranges;
  }

  async #start(request: JobRequest): Promise<Answer> {
    const job = this.jobs.start(request);
    await new Promise<void>((resolve) => this.jobs.whenDurable(resolve));
    return { job: shownJob(job) };
  }

  async #listJobs(args: Arguments, allows: Allows): Promise<Answer> {
    const name = optionalText(args, 'name');
    const jobs = this.jobs.all().filter(({ source }) => name === undefined || source === name);
    return { jobs: jobs.filter(({ source }) => allows('DESCRIBE', 'GROUP', source)).map(shownJob) };
  }

  async #job(args: Arguments, allows: Allows): Promise<Answer> {
    const id = wholeNumber(args, 'id', 1, Number.MAX_SAFE_INTEGER);
    const job = id === undefined ? undefined : this.jobs.get(id);
    if (job === undefined) throw new MillraceError('RESOURCE_NOT_FOUND', `there is no job ${id ?? 'without an id'}`);
    check(allows, 'DESCRIBE', 'GROUP', job.source);
    return { job: shownJob(job) };
  }

  async #cancel(args: Arguments, allows: Allows): Promise<Answer> {
    const name = optionalText(args, 'name');
    const id = wholeNumber(args, 'id', 1, Number.MAX_SAFE_INTEGER);
    if ((name === undefined) === (id === undefined))
      throw invalid('cancel takes the id of a job or the name of its queue');
    const job = name === undefined ? this.jobs.get(id ?? 0) : this.jobs.runningOn(name);
    if (job === undefined) {
      const what = name === undefined ? `there is no job ${id}` : `no job is running on queue '${name}'`;
      throw new MillraceError('RESOURCE_NOT_FOUND', what);
    }
    check(allows, 'READ', 'GROUP', job.source);
    this.jobs.cancel(job.id);
    await new Promise<void>((resolve) => this.jobs.whenDurable(resolve));
    return { job: shownJob(job) };
  }

  #queue(args: Arguments, allows: Allows, operation: Operation): Queue {
    const name = requiredText(args, 'name');
    check(allows, operation, 'GROUP', name);
    const queue = this.#parts.queues.get(name);
    if (queue !== undefined) return queue;
    const topic = this.#parts.topics.get(name);
    const hint =
      topic === undefined || topic.isInternal ? '' : `; there is a topic of that name, which a queue can be made over`;
    throw new MillraceError('QUEUE_NOT_FOUND', `there is no queue '${name}'${hint}`);
  }

  /** After a start a queue learns bit by bit what its log has: what is asked of it waits for that, but not for ever. */
  async #learned(queue: Queue): Promise<void> {
    const { clock } = this.#parts;
    const untilMs = clock.monotonic() + LEARN_MS_MAX;
    const isLearning = (): boolean => queue.partitions().some(({ isReady, log }) => !isReady && !log.isFenced);
    while (isLearning() && clock.monotonic() < untilMs) {
      await new Promise<void>((resolve) => clock.after(LEARN_LOOK_MS, resolve));
    }
    if (queue.isDeleted) throw new MillraceError('QUEUE_NOT_FOUND', `the queue '${queue.name}' was deleted`);
  }

  #durable(): Promise<void> {
    return new Promise((resolve) => this.#parts.queues.whenDurable(resolve));
  }
}

/** A queue that was deleted while the others were waited for is not in the list. */
function isGone(error: unknown): void {
  if (!(error instanceof MillraceError)) throw error;
}

const jobArguments = ['filter', 'rate', 'limit', 'dryRun'];
const argumentsOf = {
  list: [],
  create: ['name', 'topic', 'from', 'settings'],
  alter: ['name', 'settings'],
  describe: ['name'],
  peek: ['name', 'partition', 'offset', 'count', 'filter'],
  purge: ['name', 'inFlight', 'untilOffset'],
  delete: ['name', 'ifEmpty', 'ifUnused'],
  move: ['name', 'target', ...jobArguments],
  redrive: ['name', 'target', ...jobArguments],
  replay: ['name', 'partition', 'fromOffset', 'toOffset', 'fromMs', 'toMs', 'append', ...jobArguments],
  jobs: ['name'],
  job: ['id'],
  cancel: ['id', 'name'],
} as const satisfies Record<string, readonly string[]>;

function jobRequest(args: Arguments): Pick<JobRequest, 'filter' | 'ratePerSecond' | 'messagesMax' | 'isDryRun'> {
  return {
    filter: texts(args, 'filter'),
    ratePerSecond: wholeNumber(args, 'rate', 1, 10_000_000),
    messagesMax: wholeNumber(args, 'limit', 1, Number.MAX_SAFE_INTEGER),
    isDryRun: flag(args, 'dryRun'),
  };
}

/** A job with what is still to be looked at; without what only its next step needs. */
function shownJob(job: Job): Answer {
  const { ranges, sourceTopicId: _, ...shown } = job;
  let remaining = 0;
  for (const { next, end } of ranges) remaining += Math.max(0, end - next);
  return { ...shown, remaining };
}

function shownMessage({ index, queue, log, state }: QueuePartition, record: QueuedRecord): Answer {
  const place = { topicId: log.topicId, topic: queue.topic.name, partition: index, offset: record.offset };
  return {
    partition: index,
    offset: record.offset,
    id: messageId(place, record.headers),
    timestamp: record.timestamp,
    epoch: state.epochOf(record.offset),
    key: shownBytes(record.key),
    value: shownBytes(record.value),
    headers: record.headers.map(({ key, value }) => ({ key, ...shownBytes(value) })),
    origin: messageOrigin(record.headers) ?? null,
    deaths: deathHistory(record.headers)?.deaths ?? [],
  };
}

/** Text if it is, else base64. */
function shownBytes(bytes: Buffer | null): { text: string } | { base64: string } | null {
  if (bytes === null) return null;
  const text = bytes.toString();
  return Buffer.from(text).equals(bytes) ? { text } : { base64: bytes.toString('base64') };
}

function check(allows: Allows, operation: Operation, type: 'TOPIC' | 'GROUP', name: string): void {
  if (allows(operation, type, name)) return;
  throw new MillraceError(`${type}_AUTHORIZATION_FAILED`, `${operation} on ${type.toLowerCase()} '${name}' is denied`);
}

/** Names and values of settings; null: back to the default. */
function settingEntries(args: Arguments): Map<string, string | undefined> {
  const given = args.settings ?? {};
  if (typeof given !== 'object' || Array.isArray(given)) throw invalid('settings must be an object');
  const entries = new Map<string, string | undefined>();
  for (const [name, value] of Object.entries(given as Record<string, unknown>)) {
    if (!Object.hasOwn(queueSettingTable, name)) {
      throw new MillraceError(
        'INVALID_CONFIG',
        `there is no queue setting '${name}'; there are ${Object.keys(queueSettingTable).join(', ')}`,
      );
    }
    if (value === null) entries.set(name, undefined);
    else if (typeof value === 'object') throw invalid(`setting '${name}' must be text, a number or true or false`);
    else entries.set(name, String(value));
  }
  return entries;
}
