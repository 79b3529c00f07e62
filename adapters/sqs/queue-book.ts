/**
 * Queues as SQS sees them: which there are, their attributes and tags. Queues themselves are the broker's
 * (`broker/queues.ts`); one that another door declared is there, too, with what its settings say.
 *
 * Always true: what the door keeps of a queue is in the log of `facts.ts` before it is in memory; an answer that tells of it
 * waits for `whenDurable`. Facts of a queue whose topic is another one by now are not believed.
 */
import { invalidValue, SqsError } from '../../protocol/sqs/errors.ts';
import { limits } from '../../protocol/sqs/actions.ts';
import { FIFO_SUFFIX, isQueueName } from '../../protocol/sqs/text.ts';
import type { Clock } from '../../storage/clock.ts';
import type { Options } from '../../broker/config.ts';
import type { Engine } from '../../broker/engine.ts';
import type { Queue, QueueRegistry } from '../../broker/queues.ts';
import { StateLog } from '../../broker/state-log.ts';
import { stateLogConfig, type TopicRegistry } from '../../broker/topics.ts';
import { arnOf } from './addresses.ts';
import { type Fact, type QueueFacts, SqsFacts } from './facts.ts';
import {
  type Attributes,
  attributesOf,
  checkAttributes,
  checkTogether,
  dedupBy,
  keptAttributes,
  settingsOf,
  settingsOfNew,
} from './queue-attributes.ts';
import { parseRedriveAllow, parseRedrivePolicy } from './redrive.ts';

const TOPIC = '__millrace_sqs';
const TOPIC_ID = '00000000-0000-0000-0000-000000000006';
/** Of a batch: AMQP clients may send more to the same queue than SQS allows. */
const TOPIC_MESSAGE_BYTES_MAX = String(17 * 1024 * 1024);
const NO_TEXTS: ReadonlyMap<string, string> = new Map();
/** Of the quotas page: deleting and making a queue again. */
const RECREATE_MS = 60_000;

export interface QueueBookParts {
  readonly engine: Engine;
  readonly clock: Clock;
  readonly options: Options;
  readonly topics: TopicRegistry;
  readonly queues: QueueRegistry;
}

/** A queue with what every request asks of it. */
export interface SqsQueue {
  readonly queue: Queue;
  readonly isFifo: boolean;
  readonly isContentBased: boolean;
  readonly messageBytesMax: number;
  readonly waitSeconds: number;
  readonly facts: QueueFacts | undefined;
}

export class QueueBook {
  readonly #parts: QueueBookParts;
  readonly facts = new SqsFacts();
  readonly #log: StateLog<Fact>;
  readonly #known = new Map<string, SqsQueue>();
  /** Name → when it was deleted; only where the rules of time are kept. */
  readonly #deleted = new Map<string, number>();
  #startedMs: number;

  constructor(parts: QueueBookParts) {
    this.#parts = parts;
    const { engine, clock, options } = parts;
    this.#startedMs = clock.now();
    const partition = engine.openPartition({ topicId: TOPIC_ID, topic: TOPIC, index: 0, config: stateLogConfig });
    const commitBytesMax = Math.floor(options['journal.entry.bytes'] / 2);
    this.#log = new StateLog(engine, partition, this.facts, clock, commitBytesMax);
  }

  /** Once, after the queues are loaded. */
  async load(): Promise<void> {
    await this.#log.load();
    this.#parts.topics.watch({
      deleted: ({ id }) => {
        for (const { name, topicId } of this.facts.queues.values()) {
          if (topicId === id) this.commit([{ kind: 'queueGone', name }]);
        }
      },
      partitionsAdded: () => {},
    });
  }

  commit(facts: readonly Fact[]): void {
    if (facts.length > 0) this.#log.commit(facts);
  }
  /** Calls back when everything decided so far here and in the registry is durable. */
  whenDurable(callback: () => void): void {
    this.#parts.queues.whenDurable(() => this.#log.whenDurable(callback));
  }
  durable(): Promise<void> {
    return new Promise((resolve) => this.whenDurable(resolve));
  }

  // --- which queues there are ---

  /** QueueDoesNotExist. */
  get(name: string): SqsQueue {
    const found = this.find(name);
    if (found === undefined) throw new SqsError('QueueDoesNotExist', 'The specified queue does not exist.');
    return found;
  }

  find(name: string): SqsQueue | undefined {
    const known = this.#known.get(name);
    const facts = this.facts.queues.get(name);
    if (known !== undefined && !known.queue.isDeleted && known.facts === facts && isCurrent(known)) return known;
    const queue = this.#parts.queues.get(name);
    if (queue === undefined) {
      this.#known.delete(name);
      return undefined;
    }
    const made = sqsQueue(queue, facts?.topicId === queue.topic.id ? facts : undefined);
    this.#known.set(name, made);
    return made;
  }

  /** Names that a client of SQS may know, in order. */
  names(prefix = ''): string[] {
    return this.#parts.queues
      .all()
      .map(({ name }) => name)
      .filter((name) => name.startsWith(prefix) && isQueueName(name));
  }

  /** Queues whose dead letters go to this one, in order. */
  sourcesOf(name: string): string[] {
    return this.#parts.queues
      .all()
      .filter(({ settings }) => settings['receive.limit'] > 0 && settings['receive.dead.letter.queue'] === name)
      .map((queue) => queue.name);
  }

  // --- making and changing them ---

  create(name: string, attributes: Attributes, tags: ReadonlyMap<string, string>): SqsQueue {
    checkName(name, attributes);
    const isFifo = name.endsWith(FIFO_SUFFIX);
    if (attributes.has('FifoQueue') && !isFifo)
      throw new SqsError('InvalidAttributeName', 'Unknown Attribute FifoQueue.');
    const checked = checkAttributes(attributes, isFifo);
    checkTogether(checked, checked);
    checkTags(name, tags);
    const known = this.find(name);
    if (known !== undefined) return this.#same(known, checked);
    this.#checkRecent(name);
    this.#checkTarget(name, checked.get('RedrivePolicy'));
    const { queues, topics, clock } = this.#parts;
    const kind = topics.get(name) === undefined ? 'owned' : 'attached';
    const queue = queues.declare({
      name,
      kind,
      family: 'sqs',
      settings: settingsOfNew(checked, isFifo ? 'fifo' : kind === 'attached' ? 'attached' : 'standard'),
      topicConfigs: new Map([['max.message.bytes', TOPIC_MESSAGE_BYTES_MAX]]),
    });
    const nowMs = clock.now();
    const facts: QueueFacts = {
      name,
      topicId: queue.topic.id,
      attributes: keptAttributes(checked),
      tags,
      createdMs: nowMs,
      modifiedMs: nowMs,
    };
    this.commit([{ kind: 'queue', queue: facts }]);
    return this.get(name);
  }

  /** QueueNameExists if an attribute that is given is another one. */
  #same(known: SqsQueue, given: Attributes): SqsQueue {
    const inForce = this.#settable(known);
    for (const [name, value] of given) {
      const isSame =
        name === 'RedrivePolicy' && value !== ''
          ? sameRedrive(value, inForce.get(name))
          : (inForce.get(name) ?? '') === value;
      if (!isSame) {
        throw new SqsError(
          'QueueNameExists',
          `A queue already exists with the same name and a different value for attribute ${name}`,
        );
      }
    }
    known.queue.used();
    return known;
  }

  #checkRecent(name: string): void {
    const { clock, options } = this.#parts;
    const deletedMs = this.#deleted.get(name);
    if (deletedMs === undefined) return;
    if (options['sqs.strict'] && clock.now() - deletedMs < RECREATE_MS) {
      throw new SqsError(
        'QueueDeletedRecently',
        'You must wait 60 seconds after deleting a queue before you can create another with the same name.',
      );
    }
    this.#deleted.delete(name);
  }

  delete({ queue }: SqsQueue): void {
    const { queues, clock, options } = this.#parts;
    queues.delete(queue);
    this.#known.delete(queue.name);
    if (this.facts.queues.has(queue.name)) this.commit([{ kind: 'queueGone', name: queue.name }]);
    if (!options['sqs.strict']) return;
    const nowMs = clock.now();
    for (const [name, deletedMs] of this.#deleted) if (nowMs - deletedMs >= RECREATE_MS) this.#deleted.delete(name);
    this.#deleted.set(queue.name, nowMs);
  }

  setAttributes(known: SqsQueue, attributes: Attributes): void {
    const { queue, isFifo, facts } = known;
    if (attributes.has('FifoQueue') && attributes.get('FifoQueue') !== String(isFifo)) {
      throw new SqsError(
        'InvalidAttributeValue',
        'Invalid value for the parameter FifoQueue. Reason: Modifying queue type is not supported.',
      );
    }
    const checked = checkAttributes(attributes, isFifo);
    const all = new Map([...this.#settable(known), ...checked]);
    checkTogether(all, checked);
    this.#checkTarget(queue.name, checked.get('RedrivePolicy'));
    const settings = settingsOf(checked);
    if (isFifo) settings.set('dedup.by', dedupBy(all));
    if (settings.size > 0) this.#parts.queues.configure(queue, settings, 'sqs');
    const kept = new Map([...(facts?.attributes ?? []), ...keptAttributes(checked)]);
    // The two ways of encryption exclude each other: the one that is asked for last counts.
    if (checked.get('KmsMasterKeyId')) kept.delete('SqsManagedSseEnabled');
    if (checked.get('SqsManagedSseEnabled') === 'true') kept.delete('KmsMasterKeyId');
    this.#keep(known, { attributes: new Map([...kept].filter(([, value]) => value !== '')) });
  }

  /** The newest facts of a queue: what is not given stays. */
  #keep({ queue, facts }: SqsQueue, changed: Partial<Pick<QueueFacts, 'attributes' | 'tags'>>): void {
    const nowMs = this.#parts.clock.now();
    const before: QueueFacts = facts ?? {
      name: queue.name,
      topicId: queue.topic.id,
      attributes: NO_TEXTS,
      tags: NO_TEXTS,
      createdMs: this.#startedMs,
      modifiedMs: nowMs,
    };
    const modifiedMs = changed.attributes === undefined ? before.modifiedMs : nowMs;
    this.commit([{ kind: 'queue', queue: { ...before, ...changed, modifiedMs } }]);
  }

  /** A dead-letter queue must be there, be of the same type, and allow it. */
  #checkTarget(source: string, text: string | undefined): void {
    if (text === undefined || text === '') return;
    const { target } = parseRedrivePolicy(text);
    const refuse = (reason: string): SqsError => invalidValue('RedrivePolicy', text, reason);
    const known = this.find(target);
    if (known === undefined) throw refuse('Dead letter target does not exist.');
    if (known.isFifo !== source.endsWith(FIFO_SUFFIX)) {
      throw refuse('Dead-letter queue must be same type of queue as the source.');
    }
    const allow = known.facts?.attributes.get('RedriveAllowPolicy');
    if (allow === undefined || allow === '') return;
    const { permission, sources } = parseRedriveAllow(allow);
    const isAllowed = permission === 'allowAll' || (permission === 'byQueue' && sources.includes(source));
    if (!isAllowed) throw refuse('The dead-letter queue does not allow this source queue (RedriveAllowPolicy).');
  }

  #settable({ queue, isFifo, facts }: SqsQueue, region = '', account = ''): Map<string, string> {
    const target = queue.settings['receive.dead.letter.queue'] || queue.settings['dead.letter.queue'];
    return attributesOf({
      settings: queue.settings,
      isFifo,
      kept: facts?.attributes ?? NO_TEXTS,
      deadLetterArn: target === '' ? undefined : arnOf(target, region, account),
    });
  }

  /** All attributes, as they are now. */
  attributes(known: SqsQueue, { region, account }: { region: string; account: string }): Map<string, string> {
    const { queue, facts } = known;
    const attributes = this.#settable(known, region, account);
    const { ready, blocked, inFlight, delayed } = queue.counts();
    const seconds = (ms: number): string => String(Math.floor(ms / 1000));
    attributes.set('QueueArn', arnOf(queue.name, region, account));
    attributes.set('ApproximateNumberOfMessages', String(ready + blocked));
    attributes.set('ApproximateNumberOfMessagesNotVisible', String(inFlight));
    attributes.set('ApproximateNumberOfMessagesDelayed', String(delayed));
    attributes.set('CreatedTimestamp', seconds(facts?.createdMs ?? this.#startedMs));
    attributes.set('LastModifiedTimestamp', seconds(facts?.modifiedMs ?? this.#startedMs));
    return attributes;
  }

  // --- tags ---

  tag(known: SqsQueue, tags: ReadonlyMap<string, string>): void {
    const all = new Map([...(known.facts?.tags ?? []), ...tags]);
    checkTags(known.queue.name, all);
    this.#keep(known, { tags: all });
  }
  untag(known: SqsQueue, keys: readonly string[]): void {
    const all = new Map(known.facts?.tags ?? []);
    for (const key of keys) all.delete(key);
    this.#keep(known, { tags: all });
  }
}

function sqsQueue(queue: Queue, facts: QueueFacts | undefined): SqsQueue {
  const { settings, name } = queue;
  return {
    queue,
    facts,
    isFifo: settings.ordered && name.endsWith(FIFO_SUFFIX),
    isContentBased: isContentBased(queue),
    messageBytesMax: Number(facts?.attributes.get('MaximumMessageSize') ?? limits.messageBytesMax),
    waitSeconds: Number(facts?.attributes.get('ReceiveMessageWaitTimeSeconds') ?? 0),
  };
}

const isContentBased = ({ settings }: Queue): boolean => settings['dedup.by'].endsWith('content');
/** Settings may change through any door. */
const isCurrent = ({ queue, isContentBased: was }: SqsQueue): boolean => isContentBased(queue) === was;

function sameRedrive(given: string, inForce: string | undefined): boolean {
  if (inForce === undefined) return false;
  const one = parseRedrivePolicy(given);
  const other = parseRedrivePolicy(inForce);
  return one.target === other.target && one.maxReceiveCount === other.maxReceiveCount;
}

function checkName(name: string, attributes: Attributes): void {
  const wantsFifo = attributes.get('FifoQueue')?.toLowerCase() === 'true';
  if (isQueueName(name) && (!wantsFifo || name.endsWith(FIFO_SUFFIX))) {
    if (!name.endsWith(FIFO_SUFFIX) || wantsFifo) return;
  }
  throw new SqsError(
    'InvalidParameterValue',
    wantsFifo
      ? 'The name of a FIFO queue can only include alphanumeric characters, hyphens, or underscores, must end with .fifo suffix and be 1 to 80 in length.'
      : 'Can only include alphanumeric characters, hyphens, or underscores. 1 to 80 in length',
  );
}

function checkTags(queue: string, tags: ReadonlyMap<string, string>): void {
  if (tags.size > limits.tagsMax) {
    throw new SqsError('InvalidParameterValue', `Too many tags added for queue ${queue}.`);
  }
  for (const [key, value] of tags) {
    if (key === '' || key.length > 128) throw invalidValue('Tag.Key', key, 'Must be 1 to 128 characters.');
    if (value.length > 256) throw invalidValue('Tag.Value', value, 'Must be at most 256 characters.');
    if (/^aws:/i.test(key)) throw invalidValue('Tag.Key', key, 'The prefix aws: is reserved.');
  }
}
