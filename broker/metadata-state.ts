/**
 * What the broker knows about itself, as a state machine: topics with their ids, partition counts and configs, the
 * options that were changed while running, the configs of groups, and declared queues. Pure: no log, no clock, no dice.
 * `topics.ts` runs it on the metadata log.
 *
 * An event is one record without key; its value is msgpack of `[version, kind, ...fields]`. Events are facts that were
 * checked before they were written, so applying one never fails; an event of a later version ends the start of this
 * one, since skipping it would lose a topic or resurrect a deleted one.
 */
import { pack, unpack } from 'msgpackr';
import type { DecodedRecord, RecordInit } from '../protocol/record-batch.ts';
import { MillraceError } from '../protocol/errors.ts';
import type { StateMachine } from './state-log.ts';

/** Whose options a dynamic change concerns: this node's, or those of every node. */
export type OptionScope = 'node' | 'cluster';

export type ConfigValues = ReadonlyMap<string, string>;

export type MetadataEvent =
  | {
      readonly kind: 'topicCreated';
      readonly name: string;
      readonly id: string;
      readonly partitionCount: number;
      /** Visible and readable, but only the broker writes it. */
      readonly isInternal: boolean;
      readonly overrides: ConfigValues;
      /** It and its queue do not outlive the process: no event of theirs is in the log. */
      readonly isTransient?: boolean;
    }
  | { readonly kind: 'topicDeleted'; readonly id: string }
  /** `partitionCount` is the new total. */
  | { readonly kind: 'partitionsAdded'; readonly id: string; readonly partitionCount: number }
  /** `overrides` is everything the topic has of its own from now on. */
  | { readonly kind: 'topicConfigured'; readonly id: string; readonly overrides: ConfigValues }
  /** `values` is everything that is dynamic in this scope from now on. */
  | { readonly kind: 'optionsChanged'; readonly scope: OptionScope; readonly values: ConfigValues }
  /** `values` is everything the group has of its own from now on. */
  | { readonly kind: 'groupConfigured'; readonly group: string; readonly values: ConfigValues }
  /** Also of one that exists: everything it is from now on. The end of its topic ends it, too. */
  | ({ readonly kind: 'queueDeclared' } & QueueDeclaration)
  | { readonly kind: 'queueDeleted'; readonly name: string };

/** A queue that somebody declared. */
export interface QueueDeclaration {
  readonly name: string;
  /** Made with its topic and ends with it; else declared over a topic that was there. */
  readonly isOwned: boolean;
  readonly topicId: string;
  /** Canonical text by name. */
  readonly settings: ConfigValues;
  /** In whose words (`QueueFamily`) each setting came. */
  readonly origins: ConfigValues;
}

export interface TopicState {
  readonly name: string;
  readonly id: string;
  readonly isInternal: boolean;
  readonly partitionCount: number;
  readonly overrides: ConfigValues;
  readonly isTransient?: boolean;
}

const VERSION = 1;
const SCOPES: readonly OptionScope[] = ['node', 'cluster'];

export class MetadataState implements StateMachine<MetadataEvent> {
  readonly #topics = new Map<string, TopicState>();
  readonly #ids = new Map<string, string>();
  /** Name with '.' as '_' → the name that took it: Kafka's rule, so that metric names never collide. */
  readonly #flatNames = new Map<string, string>();
  readonly #options = new Map<OptionScope, ConfigValues>();
  readonly #groups = new Map<string, ConfigValues>();
  readonly #queues = new Map<string, QueueDeclaration>();
  #partitionCount = 0;

  get topicCount(): number {
    return this.#topics.size;
  }
  /** Over all topics. */
  get partitionCount(): number {
    return this.#partitionCount;
  }
  get(name: string): TopicState | undefined {
    return this.#topics.get(name);
  }
  byId(id: string): TopicState | undefined {
    const name = this.#ids.get(id);
    return name === undefined ? undefined : this.#topics.get(name);
  }
  topics(): IterableIterator<TopicState> {
    return this.#topics.values();
  }
  /** The topic whose name differs from this one only in '.' and '_'. */
  collision(name: string): string | undefined {
    const other = this.#flatNames.get(flat(name));
    return other === name ? undefined : other;
  }
  dynamicOptions(scope: OptionScope): ConfigValues {
    return this.#options.get(scope) ?? new Map();
  }
  /** Groups that have configs of their own, with these. */
  get groupConfigs(): ReadonlyMap<string, ConfigValues> {
    return this.#groups;
  }
  /** Declared queues by name. */
  get queues(): ReadonlyMap<string, QueueDeclaration> {
    return this.#queues;
  }

  apply(event: MetadataEvent): void {
    switch (event.kind) {
      case 'topicCreated': {
        const { kind: _, ...topic } = event;
        const { name, id, partitionCount } = topic;
        // A log that was being rewritten when the broker ended tells of a topic twice.
        this.#partitionCount -= this.byId(id)?.partitionCount ?? 0;
        this.#topics.set(name, topic);
        this.#ids.set(id, name);
        this.#flatNames.set(flat(name), name);
        this.#partitionCount += partitionCount;
        break;
      }
      case 'topicDeleted': {
        const topic = this.#known(event.id);
        this.#topics.delete(topic.name);
        this.#ids.delete(event.id);
        this.#flatNames.delete(flat(topic.name));
        this.#partitionCount -= topic.partitionCount;
        for (const { name, topicId } of this.#queues.values()) if (topicId === event.id) this.#queues.delete(name);
        break;
      }
      case 'partitionsAdded': {
        const topic = this.#known(event.id);
        this.#topics.set(topic.name, { ...topic, partitionCount: event.partitionCount });
        this.#partitionCount += event.partitionCount - topic.partitionCount;
        break;
      }
      case 'topicConfigured': {
        const topic = this.#known(event.id);
        this.#topics.set(topic.name, { ...topic, overrides: event.overrides });
        break;
      }
      case 'optionsChanged':
        this.#options.set(event.scope, event.values);
        break;
      case 'groupConfigured':
        if (event.values.size === 0) this.#groups.delete(event.group);
        else this.#groups.set(event.group, event.values);
        break;
      case 'queueDeclared': {
        const { name, isOwned, topicId, settings, origins } = event;
        this.#queues.set(name, { name, isOwned, topicId, settings, origins });
        break;
      }
      case 'queueDeleted':
        this.#queues.delete(event.name);
        break;
    }
  }

  *live(): Iterable<MetadataEvent> {
    for (const scope of SCOPES) {
      const values = this.#options.get(scope);
      if (values !== undefined && values.size > 0) yield { kind: 'optionsChanged', scope, values };
    }
    for (const [group, values] of this.#groups) yield { kind: 'groupConfigured', group, values };
    for (const topic of this.#topics.values()) if (topic.isTransient !== true) yield { kind: 'topicCreated', ...topic };
    for (const queue of this.#queues.values()) {
      if (this.byId(queue.topicId)?.isTransient !== true) yield { kind: 'queueDeclared', ...queue };
    }
  }

  encode(event: MetadataEvent, nowMs: number): RecordInit {
    return { key: null, value: pack([VERSION, event.kind, ...fieldsOf(event)]), timestamp: nowMs };
  }

  decode(record: DecodedRecord): MetadataEvent {
    const decoded: unknown = record.value === null ? undefined : unpack(record.value);
    const event = Array.isArray(decoded) && decoded[0] === VERSION ? eventOf(decoded[1], decoded.slice(2)) : undefined;
    if (event === undefined) {
      throw new MillraceError(
        'DATA_DIR_FORMAT',
        `the metadata log has an event at offset ${record.offset} that this version does not know`,
      );
    }
    return event;
  }

  #known(id: string): TopicState {
    const topic = this.byId(id);
    if (topic === undefined) throw new Error(`metadata event for topic id ${id}, which does not exist`);
    return topic;
  }
}

const flat = (name: string): string => name.replaceAll('.', '_');

function fieldsOf(event: MetadataEvent): unknown[] {
  switch (event.kind) {
    case 'topicCreated':
      return [event.name, event.id, event.partitionCount, event.isInternal, [...event.overrides]];
    case 'topicDeleted':
      return [event.id];
    case 'partitionsAdded':
      return [event.id, event.partitionCount];
    case 'topicConfigured':
      return [event.id, [...event.overrides]];
    case 'optionsChanged':
      return [event.scope, [...event.values]];
    case 'groupConfigured':
      return [event.group, [...event.values]];
    case 'queueDeclared':
      return [event.name, event.isOwned, event.topicId, [...event.settings], [...event.origins]];
    case 'queueDeleted':
      return [event.name];
  }
}

/** The reverse of `fieldsOf`. The shapes are ours: the record's checksum and version vouch for them. */
function eventOf(kind: unknown, fields: unknown[]): MetadataEvent | undefined {
  const values = (field: unknown): ConfigValues => new Map(field as [string, string][]);
  switch (kind as MetadataEvent['kind']) {
    case 'topicCreated': {
      const [name, id, partitionCount, isInternal, overrides] = fields as [string, string, number, boolean, unknown];
      return { kind: 'topicCreated', name, id, partitionCount, isInternal, overrides: values(overrides) };
    }
    case 'topicDeleted':
      return { kind: 'topicDeleted', id: fields[0] as string };
    case 'partitionsAdded':
      return { kind: 'partitionsAdded', id: fields[0] as string, partitionCount: fields[1] as number };
    case 'topicConfigured':
      return { kind: 'topicConfigured', id: fields[0] as string, overrides: values(fields[1]) };
    case 'optionsChanged':
      return { kind: 'optionsChanged', scope: fields[0] as OptionScope, values: values(fields[1]) };
    case 'groupConfigured':
      return { kind: 'groupConfigured', group: fields[0] as string, values: values(fields[1]) };
    case 'queueDeclared': {
      const [name, isOwned, topicId, settings, origins] = fields as [string, boolean, string, unknown, unknown];
      return { kind: 'queueDeclared', name, isOwned, topicId, settings: values(settings), origins: values(origins) };
    }
    case 'queueDeleted':
      return { kind: 'queueDeleted', name: fields[0] as string };
    default:
      return undefined;
  }
}
