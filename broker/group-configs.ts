/**
 * The configs that groups have of their own (KIP-848, KIP-932, KIP-1191): the names that Apache Kafka 4.4 knows for
 * consumer and share groups with type, default and range, and what each group was given. A default comes from the broker
 * option that Kafka names as the synonym; the options `group.*.min.*` and `group.*.max.*` bound what may be set, and cut
 * what was set before they were.
 *
 * For coordinators: `broker.topics.groupConfigs.get(groupId)` answers typed values in force and is cheap enough for
 * every request; `onChange` tells when those of a group, or of all groups, have become others. Setting is for the admin
 * APIs: `checkGroupConfigs`, then `TopicRegistry.configureGroup`, which makes it durable.
 */
import { MillraceError } from '../protocol/errors.ts';
import type { OptionName, Options } from './config.ts';
import type { ConfigValues } from './metadata-state.ts';

interface GroupConfigBase {
  readonly documentation: string;
}
interface IntConfig extends GroupConfigBase {
  readonly type: 'int';
  /** The broker option that gives the default. */
  readonly synonym: OptionName;
  /** Below it nothing is a value at all; the options of `range` narrow it further. */
  readonly min: number;
  readonly range: readonly [min: OptionName, max: OptionName];
}
interface OwnConfig extends GroupConfigBase {
  readonly type: 'boolean' | 'string';
  readonly default: string;
  /** The only values allowed. */
  readonly values?: readonly string[];
  /** What is wrong with a value, as Kafka words it. */
  readonly check?: (value: string, name: string) => string | undefined;
}
export type GroupConfig = IntConfig | OwnConfig;

const RESET_CONFIG = 'share.auto.offset.reset';
const DEAD_LETTER_CONFIG = 'errors.deadletterqueue.topic.name';

export const groupConfigs = {
  'consumer.session.timeout.ms': {
    type: 'int',
    synonym: 'group.consumer.session.timeout.ms',
    min: 1,
    range: ['group.consumer.min.session.timeout.ms', 'group.consumer.max.session.timeout.ms'],
    documentation: 'How long a member of a consumer group may be silent before it is put out.',
  },
  'consumer.heartbeat.interval.ms': {
    type: 'int',
    synonym: 'group.consumer.heartbeat.interval.ms',
    min: 1,
    range: ['group.consumer.min.heartbeat.interval.ms', 'group.consumer.max.heartbeat.interval.ms'],
    documentation: 'How often members of a consumer group report.',
  },
  'consumer.assignment.interval.ms': {
    type: 'int',
    synonym: 'group.consumer.assignment.interval.ms',
    min: 0,
    range: ['group.consumer.min.assignment.interval.ms', 'group.consumer.max.assignment.interval.ms'],
    documentation: 'Shortest time between two assignments of a consumer group.',
  },
  'share.session.timeout.ms': {
    type: 'int',
    synonym: 'group.share.session.timeout.ms',
    min: 1,
    range: ['group.share.min.session.timeout.ms', 'group.share.max.session.timeout.ms'],
    documentation: 'How long a member of a share group may be silent before it is put out.',
  },
  'share.heartbeat.interval.ms': {
    type: 'int',
    synonym: 'group.share.heartbeat.interval.ms',
    min: 1,
    range: ['group.share.min.heartbeat.interval.ms', 'group.share.max.heartbeat.interval.ms'],
    documentation: 'How often members of a share group report.',
  },
  'share.record.lock.duration.ms': {
    type: 'int',
    synonym: 'group.share.record.lock.duration.ms',
    min: 1_000,
    range: ['group.share.min.record.lock.duration.ms', 'group.share.max.record.lock.duration.ms'],
    documentation: 'How long a record that was handed out stays with its member.',
  },
  'share.delivery.count.limit': {
    type: 'int',
    synonym: 'group.share.delivery.count.limit',
    min: 2,
    range: ['group.share.min.delivery.count.limit', 'group.share.max.delivery.count.limit'],
    documentation: 'How often a record is handed out at most.',
  },
  'share.partition.max.record.locks': {
    type: 'int',
    synonym: 'group.share.partition.max.record.locks',
    min: 100,
    range: ['group.share.min.partition.max.record.locks', 'group.share.max.partition.max.record.locks'],
    documentation: 'How many records of a partition may be handed out at a time.',
  },
  [RESET_CONFIG]: {
    type: 'string',
    default: 'latest',
    check: (value, name) =>
      parseReset(value) === undefined
        ? `Invalid value \`${value}\` for configuration ${name}. The value must be either 'earliest', 'latest' or of the format 'by_duration:<PnDTnHnMn.nS>'.`
        : undefined,
    documentation: 'Where a share group begins: earliest, latest, or by_duration:<ISO 8601 duration> before now.',
  },
  'share.isolation.level': {
    type: 'string',
    default: 'read_uncommitted',
    values: ['read_committed', 'read_uncommitted'],
    documentation: 'Whether a share group sees records of transactions that are open or were aborted.',
  },
  'share.renew.acknowledge.enable': {
    type: 'boolean',
    default: 'true',
    documentation: 'Whether members of a share group may renew the lock of a record.',
  },
  'share.assignment.interval.ms': {
    type: 'int',
    synonym: 'group.share.assignment.interval.ms',
    min: 0,
    range: ['group.share.min.assignment.interval.ms', 'group.share.max.assignment.interval.ms'],
    documentation: 'Shortest time between two assignments of a share group.',
  },
  [DEAD_LETTER_CONFIG]: {
    type: 'string',
    default: '',
    documentation: 'Where a share group puts records that it gave up; empty: nowhere.',
  },
  'errors.deadletterqueue.copy.record.enable': {
    type: 'boolean',
    default: 'false',
    documentation: 'Whether key and value of a record go with it to the dead letters, or only headers that tell of it.',
  },
} as const satisfies Record<string, GroupConfig>;

export type GroupConfigName = keyof typeof groupConfigs;

/** Where a share group begins on a partition that it does not know yet. */
export type OffsetReset = 'earliest' | 'latest' | { readonly beforeMs: number };

/** A group's configs in force. */
export interface GroupSettings {
  readonly consumerSessionTimeoutMs: number;
  readonly consumerHeartbeatIntervalMs: number;
  readonly consumerAssignmentIntervalMs: number;
  readonly shareSessionTimeoutMs: number;
  readonly shareHeartbeatIntervalMs: number;
  readonly shareAssignmentIntervalMs: number;
  readonly shareRecordLockDurationMs: number;
  readonly shareDeliveryCountLimit: number;
  readonly sharePartitionMaxRecordLocks: number;
  readonly shareAutoOffsetReset: OffsetReset;
  readonly shareIsolationLevel: 'read_committed' | 'read_uncommitted';
  readonly canRenewAcknowledge: boolean;
  /** Null: records that are given up are dropped. */
  readonly deadLetterTopic: string | null;
  readonly copiesDeadLetters: boolean;
}

/** As for any string Kafka stores. */
const LENGTH_MAX = 32_767;
const INT_MAX = 2_147_483_647;
const invalid = (message: string): MillraceError => new MillraceError('INVALID_CONFIG', message);
const invalidValue = (value: string, name: string, problem: string): MillraceError =>
  invalid(`Invalid value ${value} for configuration ${name}: ${problem}`);

const isGroupConfig = (name: string): name is GroupConfigName => Object.hasOwn(groupConfigs, name);

/** The table's row; INVALID_CONFIG for a name that is not in it. */
export function groupConfig(name: string): GroupConfig {
  if (!isGroupConfig(name)) throw invalid(`Unknown group config name: ${name}`);
  return groupConfigs[name];
}

/** Checks all that a group is to have and answers it in canonical text. INVALID_CONFIG, in Kafka's words. */
export function checkGroupConfigs(values: ConfigValues, options: Options): Map<string, string> {
  for (const name of values.keys()) groupConfig(name);
  const checked = new Map<string, string>();
  for (const [name, value] of values) {
    if (value.length > LENGTH_MAX) throw invalid(`The value of ${name} is longer than ${LENGTH_MAX} characters`);
    checked.set(name, parse(groupConfig(name), name, value.trim()));
  }
  for (const [name, value] of checked) {
    const config = groupConfig(name);
    if (config.type !== 'int') continue;
    const [min, max] = rangeOf(config, options);
    if (Number(value) < min || Number(value) > max) {
      throw invalid(`${name} must be in the range ${min} to ${max} inclusive.`);
    }
  }
  for (const kind of ['consumer', 'share'] as const) {
    const [session, heartbeat] = [`${kind}.session.timeout.ms`, `${kind}.heartbeat.interval.ms`] as const;
    if (!checked.has(session) && !checked.has(heartbeat)) continue;
    if (intOf(session, checked, options) <= intOf(heartbeat, checked, options)) {
      throw invalid(`${session} must be greater than ${heartbeat}`);
    }
  }
  if (checked.get(DEAD_LETTER_CONFIG)?.startsWith('__')) {
    throw invalid(`${DEAD_LETTER_CONFIG}: DLQ topic name must not start with '__'`);
  }
  return checked;
}

function parse(config: GroupConfig, name: string, text: string): string {
  switch (config.type) {
    case 'int': {
      const number = /^[+-]?\d{1,10}$/.test(text) ? Number(text) : Number.NaN;
      if (!(number >= -INT_MAX - 1 && number <= INT_MAX)) throw invalidValue(text, name, 'Not a number of type INT');
      if (number < config.min) throw invalidValue(String(number), name, `Value must be at least ${config.min}`);
      return String(number);
    }
    case 'boolean': {
      const lower = text.toLowerCase();
      if (lower === 'true' || lower === 'false') return lower;
      throw invalidValue(text, name, 'Expected value to be either true or false');
    }
    case 'string': {
      if (config.values && !config.values.includes(text)) {
        throw invalidValue(text, name, `String must be one of: ${config.values.join(', ')}`);
      }
      const problem = config.check?.(text, name);
      if (problem !== undefined) throw invalidValue(text, name, problem);
      return text;
    }
  }
}

function rangeOf({ range }: IntConfig, options: Options): [min: number, max: number] {
  const [min, max] = range;
  return [Number(options[min]), Number(options[max])];
}

type IntConfigName = {
  [Name in GroupConfigName]: (typeof groupConfigs)[Name] extends IntConfig ? Name : never;
}[GroupConfigName];

function intOf(name: IntConfigName, values: ConfigValues, options: Options): number {
  const config: IntConfig = groupConfigs[name];
  const own = values.get(name);
  if (own === undefined) return Number(options[config.synonym]);
  const [min, max] = rangeOf(config, options);
  return Math.max(min, Math.min(max, Number(own)));
}

/** The value in canonical text: the group's own, cut to the range of now, or the default. */
export function groupConfigValue(name: string, values: ConfigValues, options: Options): string {
  const config = groupConfig(name);
  // The row says that its name is one of the numbers.
  if (config.type === 'int') return String(intOf(name as IntConfigName, values, options));
  return values.get(name) ?? config.default;
}

/** Java's form of ISO 8601: days, then hours, minutes and seconds after a T; each may have a sign. */
const DURATION = /^([+-])?P(?:([+-]?\d+)D)?(T(?:([+-]?\d+)H)?(?:([+-]?\d+)M)?(?:([+-]?)(\d+)(?:[.,](\d{0,9}))?S)?)?$/i;
const BY_DURATION = 'by_duration:';

function parseReset(value: string): OffsetReset | undefined {
  if (value === 'earliest' || value === 'latest') return value;
  if (!value.startsWith(BY_DURATION)) return undefined;
  const found = DURATION.exec(value.slice(BY_DURATION.length));
  if (found === null) return undefined;
  const [, sign, days, time, hours, minutes, secondsSign, seconds, fraction = ''] = found;
  if (time?.length === 1 || (days === undefined && time === undefined)) return undefined;
  const partMs = Number(`${secondsSign ?? ''}1`) * Number(`${seconds ?? 0}.${fraction || 0}`) * 1000;
  const totalMs =
    Number(days ?? 0) * 86_400_000 + Number(hours ?? 0) * 3_600_000 + Number(minutes ?? 0) * 60_000 + partMs;
  const beforeMs = sign === '-' ? -totalMs : totalMs;
  return beforeMs < 0 || !Number.isSafeInteger(Math.floor(beforeMs)) ? undefined : { beforeMs: Math.floor(beforeMs) };
}

const NO_VALUES: ConfigValues = new Map();

export class GroupConfigs {
  readonly #options: Options;
  readonly #values = new Map<string, ConfigValues>();
  /** Typed values of groups with configs of their own, as far as they were asked for. */
  readonly #settings = new Map<string, GroupSettings>();
  #defaults: GroupSettings | undefined;
  readonly #listeners: ((groupId: string | undefined) => void)[] = [];

  constructor(options: Options) {
    this.#options = options;
  }

  /** What holds for the group, whether it exists or not. */
  get(groupId: string): GroupSettings {
    const values = this.#values.get(groupId);
    if (values === undefined) {
      this.#defaults ??= this.#typed(NO_VALUES);
      return this.#defaults;
    }
    let settings = this.#settings.get(groupId);
    if (settings === undefined) {
      settings = this.#typed(values);
      this.#settings.set(groupId, settings);
    }
    return settings;
  }

  /** What was set for the group itself, in canonical text. */
  valuesOf(groupId: string): ConfigValues {
    return this.#values.get(groupId) ?? NO_VALUES;
  }
  /** Groups that have configs of their own. */
  groupIds(): IterableIterator<string> {
    return this.#values.keys();
  }
  get size(): number {
    return this.#values.size;
  }

  /** Calls back after the values of a group have changed; with undefined: perhaps those of all groups. */
  onChange(listener: (groupId: string | undefined) => void): void {
    this.#listeners.push(listener);
  }

  /** For the owner of the metadata log: all that the group has of its own from now on. */
  set(groupId: string, values: ConfigValues): void {
    if (values.size === 0) this.#values.delete(groupId);
    else this.#values.set(groupId, values);
    this.#settings.delete(groupId);
    for (const listener of this.#listeners) listener(groupId);
  }
  /** For the owner of the options: one of them has changed. */
  optionsChanged(): void {
    this.#settings.clear();
    this.#defaults = undefined;
    for (const listener of this.#listeners) listener(undefined);
  }

  #typed(values: ConfigValues): GroupSettings {
    const int = (name: IntConfigName): number => intOf(name, values, this.#options);
    const text = (name: GroupConfigName): string => groupConfigValue(name, values, this.#options);
    return {
      consumerSessionTimeoutMs: int('consumer.session.timeout.ms'),
      consumerHeartbeatIntervalMs: int('consumer.heartbeat.interval.ms'),
      consumerAssignmentIntervalMs: int('consumer.assignment.interval.ms'),
      shareSessionTimeoutMs: int('share.session.timeout.ms'),
      shareHeartbeatIntervalMs: int('share.heartbeat.interval.ms'),
      shareAssignmentIntervalMs: int('share.assignment.interval.ms'),
      shareRecordLockDurationMs: int('share.record.lock.duration.ms'),
      shareDeliveryCountLimit: int('share.delivery.count.limit'),
      sharePartitionMaxRecordLocks: int('share.partition.max.record.locks'),
      shareAutoOffsetReset: parseReset(text(RESET_CONFIG)) ?? 'latest',
      shareIsolationLevel: text('share.isolation.level') === 'read_committed' ? 'read_committed' : 'read_uncommitted',
      canRenewAcknowledge: text('share.renew.acknowledge.enable') === 'true',
      deadLetterTopic: text(DEAD_LETTER_CONFIG) || null,
      copiesDeadLetters: text('errors.deadletterqueue.copy.record.enable') === 'true',
    };
  }
}
