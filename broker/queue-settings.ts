/**
 * Settings of queues: one table for all families, with type, default, range and meaning. Values are kept as canonical
 * text, as topic configs are; `queueSettings` types them. `docs/queues.md` lists them.
 */
import { MillraceError } from '../protocol/errors.ts';
import type { Options } from './config.ts';
import type { GroupSettings } from './group-configs.ts';
import type { LeaveReason, QueueDoor } from './queue.ts';
import type { AttemptLimit, QueueStateSettings } from './queue-state.ts';

/** Whose words a setting came in; each door compares only its own on redeclare. */
export type QueueFamily = 'millrace' | 'kafka' | 'amqp' | 'sqs';
export type SettingValues = ReadonlyMap<string, string>;

interface SettingBase {
  readonly documentation: string;
}
export type QueueSetting =
  | (SettingBase & { readonly type: 'number'; readonly default: number; readonly min: number; readonly max: number })
  | (SettingBase & { readonly type: 'boolean'; readonly default: boolean })
  | (SettingBase & { readonly type: 'string'; readonly default: string; readonly values?: readonly string[] });

const SAFE_MAX = Number.MAX_SAFE_INTEGER;
const INT32_MAX = 2_147_483_647;
const number = (value: number, min: number, max: number, documentation: string) =>
  ({ type: 'number', default: value, min, max, documentation }) as const;
const flag = (value: boolean, documentation: string) => ({ type: 'boolean', default: value, documentation }) as const;
const text = (value: string, documentation: string, values?: readonly string[]) =>
  ({ type: 'string', default: value, documentation, ...(values ? { values } : {}) }) as const;

export const queueSettingTable = {
  'lock.duration.ms': number(
    30_000,
    0,
    INT32_MAX,
    'How long a message that was handed out stays locked, for doors that do not say it themselves.',
  ),
  'delivery.limit': number(
    0,
    0,
    INT32_MAX,
    'A message handed out so often leaves when it is released (Kafka share groups). 0: no limit.',
  ),
  'failed.limit': number(
    -1,
    -1,
    INT32_MAX,
    'A message that came back as a failure more often than this leaves at its return (AMQP x-delivery-limit). -1: no limit.',
  ),
  'receive.limit': number(
    0,
    0,
    INT32_MAX,
    'A message leaves at the receive that would exceed this count (SQS maxReceiveCount). 0: no limit.',
  ),
  'dead.letter.queue': text('', 'Queue or topic for messages that leave without being accepted. Empty: nowhere.'),
  'failed.dead.letter.queue': text('', 'As dead.letter.queue, for messages over failed.limit. Empty: that one.'),
  'receive.dead.letter.queue': text('', 'As dead.letter.queue, for messages over receive.limit. Empty: that one.'),
  'dead.letter.exchange': text(
    '',
    'AMQP exchange to which messages that leave without being accepted are published; before dead.letter.queue. amq.default: the default exchange. Empty: none.',
  ),
  'dead.letter.routing.key': text('', 'Routing key for dead.letter.exchange. Not set: the keys that a message has.'),
  'delay.ms': number(0, 0, SAFE_MAX, 'Messages become available so long after their append.'),
  'ttl.ms': number(-1, -1, SAFE_MAX, 'Messages leave as expired so long after their append. -1: never.'),
  'priority.max': number(
    0,
    0,
    255,
    'Messages of higher priority are handed out first; higher ones count as this. 0: off.',
  ),
  ordered: flag(false, 'Messages of a group are handed out one after the other.'),
  fair: flag(false, 'Groups are served in turn, quiet ones first, without locking each other.'),
  'dedup.window.ms': number(0, 0, SAFE_MAX, 'A message whose id was seen within this time is not taken again. 0: off.'),
  'dedup.by': text(
    'id',
    'What makes a duplicate: the id that the producer gave, or without one the content; group-…: within its group.',
    ['id', 'content', 'group-id', 'group-content'],
  ),
  'max.messages': number(-1, -1, SAFE_MAX, 'Messages that may be waiting. -1: no limit.'),
  'max.bytes': number(-1, -1, SAFE_MAX, 'Bytes of messages that may be waiting, by average size. -1: no limit.'),
  overflow: text(
    'drop-oldest',
    'What happens beyond these limits: the oldest leave, or new ones are refused (refuse-dead-letter: and are dead letters).',
    ['drop-oldest', 'refuse', 'refuse-dead-letter'],
  ),
  'single.active.consumer': flag(false, 'Only one consumer is served; the next when it goes.'),
  'consumer.timeout.ms': number(
    -1,
    -1,
    SAFE_MAX,
    'How long an AMQP consumer may keep a message unacked. 0: for ever; -1: as the broker says.',
  ),
  'expires.ms': number(-1, -1, SAFE_MAX, 'A queue unused for so long is deleted. -1: never.'),
  'replay.retention.ms': number(86_400_000, 0, SAFE_MAX, 'Finished messages can be replayed for so long.'),
  'replay.retention.bytes': number(1024 ** 3, 0, SAFE_MAX, 'Finished messages that are kept for replay, in bytes.'),
  transient: flag(false, 'The queue and its messages do not outlive the broker.'),
} as const satisfies Record<string, QueueSetting>;

export type QueueSettingName = keyof typeof queueSettingTable;
type ValueOf<S extends QueueSetting> = S['type'] extends 'number'
  ? number
  : S['type'] extends 'boolean'
    ? boolean
    : string;
export type QueueSettings = { readonly [Name in QueueSettingName]: ValueOf<(typeof queueSettingTable)[Name]> };

const invalid = (message: string): MillraceError => new MillraceError('INVALID_CONFIG', message);

function settingOf(name: string): QueueSetting {
  if (!Object.hasOwn(queueSettingTable, name)) throw invalid(`there is no queue setting '${name}'`);
  // A key of the table, by the check before it.
  return queueSettingTable[name as QueueSettingName];
}

/** The value in its type. INVALID_CONFIG. */
function parse(name: string, value: string): number | boolean | string {
  const setting = settingOf(name);
  const trimmed = value.trim();
  switch (setting.type) {
    case 'number': {
      const parsed = trimmed === '' ? Number.NaN : Number(trimmed);
      if (Number.isInteger(parsed) && parsed >= setting.min && parsed <= setting.max) return parsed;
      throw invalid(`${name} must be a whole number from ${setting.min} to ${setting.max}, not '${value}'`);
    }
    case 'boolean':
      if (trimmed === 'true' || trimmed === 'false') return trimmed === 'true';
      throw invalid(`${name} must be true or false, not '${value}'`);
    case 'string':
      // Names and routing keys count as they are.
      if (setting.values === undefined) return value;
      if (setting.values.includes(trimmed)) return trimmed;
      throw invalid(`${name} must be one of ${setting.values.join(', ')}, not '${value}'`);
  }
}

/** Checks settings, alone and against each other, and answers them in canonical text. INVALID_CONFIG. */
export function checkQueueSettings(values: SettingValues): Map<string, string> {
  const checked = new Map<string, string>();
  for (const [name, value] of values) checked.set(name, String(parse(name, value)));
  const settings = queueSettings(checked);
  if (settings.ordered && settings.fair) throw invalid('a queue is ordered or fair, not both');
  return checked;
}

/** All settings in their types: those given (checked) over the defaults. */
export function queueSettings(values: SettingValues): QueueSettings {
  const settings: Record<string, number | boolean | string> = {};
  for (const [name, setting] of Object.entries(queueSettingTable)) settings[name] = setting.default;
  for (const [name, value] of values) settings[name] = parse(name, value);
  // Built key by key from the table that the type comes from.
  return settings as QueueSettings;
}

/** What the state machine goes by. */
export function stateSettings(
  settings: QueueSettings,
  options: Pick<Options, 'queue.lookahead.max' | 'queue.delay.memory.ms'>,
): QueueStateSettings {
  const limits: AttemptLimit[] = [];
  if (settings['delivery.limit'] > 0) {
    limits.push({ door: 'kafka', counter: 'acquired', max: settings['delivery.limit'] });
  }
  if (settings['failed.limit'] >= 0) limits.push({ door: 'amqp', counter: 'failed', max: settings['failed.limit'] });
  if (settings['receive.limit'] > 0) limits.push({ door: 'sqs', counter: 'acquired', max: settings['receive.limit'] });
  return {
    isOrdered: settings.ordered,
    isFair: settings.fair,
    priorityMax: settings['priority.max'],
    ttlMs: settings['ttl.ms'],
    delayMs: settings['delay.ms'],
    limits,
    lookaheadMax: options['queue.lookahead.max'],
    delayMemoryMs: options['queue.delay.memory.ms'],
  };
}

/** Where a dead letter goes; undefined: nowhere. */
export type DeadLetterTarget = { readonly kind: 'queue' | 'exchange'; readonly name: string } | undefined;

/** For a message that leaves for this reason: what the family whose limit struck says, else the exchange, else the queue. */
export function deadLetterTarget(
  settings: QueueSettings,
  { reason, limitDoor }: { reason: LeaveReason; limitDoor: QueueDoor | undefined },
): DeadLetterTarget {
  const door = reason === 'delivery_limit' ? limitDoor : undefined;
  let own = '';
  if (door === 'sqs') own = settings['receive.dead.letter.queue'];
  if (door === 'amqp') own = settings['failed.dead.letter.queue'];
  const exchange = own === '' ? settings['dead.letter.exchange'] : '';
  if (exchange !== '') return { kind: 'exchange', name: exchange };
  const name = own || settings['dead.letter.queue'];
  return name === '' ? undefined : { kind: 'queue', name };
}

/** Whether any message that leaves has somewhere to go. */
export function hasDeadLetterTarget(settings: QueueSettings): boolean {
  return (
    settings['dead.letter.exchange'] !== '' ||
    settings['dead.letter.queue'] !== '' ||
    settings['failed.dead.letter.queue'] !== '' ||
    settings['receive.dead.letter.queue'] !== ''
  );
}

/** A group's configs as the settings of a queue: those of a plain share group. */
export function groupSettings(group: GroupSettings): QueueSettings {
  return {
    ...queueSettings(new Map()),
    'lock.duration.ms': group.shareRecordLockDurationMs,
    'delivery.limit': group.shareDeliveryCountLimit,
    'dead.letter.queue': group.deadLetterTopic ?? '',
  };
}

/** Configs of a group → settings of a declared queue of that name. */
const SETTING_OF_GROUP_CONFIG: Readonly<Record<string, QueueSettingName>> = {
  'share.record.lock.duration.ms': 'lock.duration.ms',
  'share.delivery.count.limit': 'delivery.limit',
  'errors.deadletterqueue.topic.name': 'dead.letter.queue',
};
export function settingsOfGroupConfigs(values: SettingValues): Map<string, string> {
  const settings = new Map<string, string>();
  for (const [name, value] of values) {
    const setting = SETTING_OF_GROUP_CONFIG[name];
    if (setting !== undefined) settings.set(setting, value);
  }
  return settings;
}

/** Small segments, so that what is finished can go; times of the append, so that delays and TTLs survive a restart. */
const OWNED_TOPIC_CONFIGS = [
  ['segment.bytes', String(32 * 1024 * 1024)],
  ['message.timestamp.type', 'LogAppendTime'],
] as const;

/** Configs of the topic that an owned queue makes: its history is kept as the queue says. */
export function ownedTopicConfigs(settings: QueueSettings): Map<string, string> {
  return new Map([
    ...OWNED_TOPIC_CONFIGS,
    ['retention.ms', String(settings['replay.retention.ms'])],
    ['retention.bytes', String(settings['replay.retention.bytes'])],
  ]);
}
