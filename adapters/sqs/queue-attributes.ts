/**
 * Attributes of queues in SQS's words: which there are, what they may be, and what they are as settings of the broker's
 * queues (docs/queues.md). Ranges from the API reference (CreateQueue, SetQueueAttributes); texts of refusals as SQS words
 * them where that is known.
 */
import { SqsError } from '../../protocol/sqs/errors.ts';
import type { QueueSettings } from '../../broker/queue-settings.ts';
import { parseRedriveAllow, parseRedrivePolicy } from './redrive.ts';

interface NumberRule {
  readonly kind: 'number';
  readonly min: number;
  readonly max: number;
  readonly default: number;
  /** Setting of the queue that it is, in milliseconds. */
  readonly setting?: keyof QueueSettings;
}
type Rule =
  | NumberRule
  | { readonly kind: 'flag'; readonly default?: string; readonly isFifo?: true }
  | { readonly kind: 'choice'; readonly values: readonly string[]; readonly default: string; readonly isFifo: true }
  /** Empty takes it away. */
  | { readonly kind: 'text'; readonly check?: (text: string) => unknown };

const seconds = (min: number, max: number, value: number, setting?: keyof QueueSettings): NumberRule => ({
  kind: 'number',
  min,
  max,
  default: value,
  ...(setting === undefined ? {} : { setting }),
});

const RULES = {
  DelaySeconds: seconds(0, 900, 0, 'delay.ms'),
  MaximumMessageSize: { kind: 'number', min: 1024, max: 1_048_576, default: 1_048_576 },
  MessageRetentionPeriod: seconds(60, 1_209_600, 345_600, 'ttl.ms'),
  ReceiveMessageWaitTimeSeconds: seconds(0, 20, 0),
  VisibilityTimeout: seconds(0, 43_200, 30, 'lock.duration.ms'),
  Policy: { kind: 'text', check: parsePolicy },
  RedrivePolicy: { kind: 'text', check: parseRedrivePolicy },
  RedriveAllowPolicy: { kind: 'text', check: parseRedriveAllow },
  FifoQueue: { kind: 'flag', isFifo: true },
  ContentBasedDeduplication: { kind: 'flag', default: 'false', isFifo: true },
  DeduplicationScope: { kind: 'choice', values: ['queue', 'messageGroup'], default: 'queue', isFifo: true },
  FifoThroughputLimit: { kind: 'choice', values: ['perQueue', 'perMessageGroupId'], default: 'perQueue', isFifo: true },
  KmsMasterKeyId: { kind: 'text' },
  KmsDataKeyReusePeriodSeconds: { kind: 'number', min: 60, max: 86_400, default: 300 },
  SqsManagedSseEnabled: { kind: 'flag', default: 'true' },
} as const satisfies Record<string, Rule>;

export type AttributeName = keyof typeof RULES;
export type Attributes = ReadonlyMap<string, string>;

const READ_ONLY = [
  'ApproximateNumberOfMessages',
  'ApproximateNumberOfMessagesDelayed',
  'ApproximateNumberOfMessagesNotVisible',
  'CreatedTimestamp',
  'LastModifiedTimestamp',
  'QueueArn',
] as const;
/** Those of SQS that are settings of the broker's queue; the rest the door keeps itself. */
const IN_SETTINGS: ReadonlySet<string> = new Set([
  'DelaySeconds',
  'MessageRetentionPeriod',
  'VisibilityTimeout',
  'RedrivePolicy',
  'FifoQueue',
  'ContentBasedDeduplication',
  'DeduplicationScope',
]);
/** Length of a FIFO queue's deduplication interval. */
const DEDUP_MS = 300_000;

export const isAttributeName = (name: string): boolean =>
  name === 'All' || Object.hasOwn(RULES, name) || READ_ONLY.some((each) => each === name);

const ruleOf = (name: string): Rule | undefined =>
  // A key of the table, by the check before it.
  Object.hasOwn(RULES, name) ? RULES[name as AttributeName] : undefined;

const invalid = (name: string, reason = ''): SqsError =>
  new SqsError('InvalidAttributeValue', `Invalid value for the parameter ${name}.${reason && ` Reason: ${reason}`}`);

export const unknownAttribute = (name: string): SqsError =>
  new SqsError('InvalidAttributeName', `Unknown Attribute ${name}.`);

/** Attributes of a request in canonical text; an empty text stays one. InvalidAttributeName, InvalidAttributeValue. */
export function checkAttributes(given: Attributes, isFifo: boolean): Map<string, string> {
  const checked = new Map<string, string>();
  for (const [name, value] of given) {
    const rule = ruleOf(name);
    if (rule === undefined || ('isFifo' in rule && rule.isFifo && !isFifo)) throw unknownAttribute(name);
    checked.set(name, checkValue(name, value, rule));
  }
  return checked;
}

/** The rules that are about more than one attribute; `attributes` are all that will be in force. */
export function checkTogether(attributes: Attributes, given: Attributes): void {
  if (attributes.get('FifoThroughputLimit') === 'perMessageGroupId') {
    if ((attributes.get('DeduplicationScope') ?? 'queue') !== 'messageGroup') {
      throw invalid(
        'FifoThroughputLimit',
        'The perMessageGroupId value is allowed only when the value for DeduplicationScope is messageGroup.',
      );
    }
  }
  if (given.get('SqsManagedSseEnabled') === 'true' && given.get('KmsMasterKeyId')) {
    throw new SqsError(
      'InvalidAttributeValue',
      'You can use one type of server-side encryption (SSE) at one time. You can either enable KMS SSE or SQS SSE.',
    );
  }
}

function checkValue(name: string, value: string, rule: Rule): string {
  switch (rule.kind) {
    case 'number': {
      const number = /^\d{1,10}$/.test(value) ? Number(value) : Number.NaN;
      if (number >= rule.min && number <= rule.max) return String(number);
      throw invalid(name);
    }
    case 'flag':
      if (/^(true|false)$/i.test(value)) return value.toLowerCase();
      throw invalid(name);
    case 'choice':
      if (rule.values.includes(value)) return value;
      throw invalid(name);
    case 'text':
      if (value !== '') rule.check?.(value);
      return value;
  }
}

/** InvalidAttributeValue if it is no JSON object. */
function parsePolicy(text: string): void {
  try {
    const policy: unknown = JSON.parse(text);
    if (typeof policy === 'object' && policy !== null && !Array.isArray(policy)) return;
  } catch {
    // Said below.
  }
  throw invalid('Policy');
}

/** What of the attributes are settings; those that are not given are left out. An empty text takes the setting back. */
export function settingsOf(attributes: Attributes): Map<string, string | undefined> {
  const settings = new Map<string, string | undefined>();
  for (const [name, value] of attributes) {
    const rule = ruleOf(name);
    if (rule?.kind === 'number' && rule.setting !== undefined) settings.set(rule.setting, String(Number(value) * 1000));
  }
  const redrive = attributes.get('RedrivePolicy');
  if (redrive !== undefined) {
    const policy = redrive === '' ? undefined : parseRedrivePolicy(redrive);
    settings.set('receive.limit', policy === undefined ? undefined : String(policy.maxReceiveCount));
    settings.set('receive.dead.letter.queue', policy?.target);
  }
  return settings;
}

/** Settings of a queue that SQS makes, over its attributes. */
export function settingsOfNew(attributes: Attributes, kind: 'standard' | 'fifo' | 'attached'): Map<string, string> {
  const all = new Map(attributes);
  for (const name of ['VisibilityTimeout', 'MessageRetentionPeriod'] as const) {
    // What is in a topic that was there before stays as long as the topic says.
    const isTopics = kind === 'attached' && name === 'MessageRetentionPeriod';
    if (!all.has(name) && !isTopics) all.set(name, String(RULES[name].default));
  }
  const settings = new Map<string, string>();
  for (const [name, value] of settingsOf(all)) if (value !== undefined) settings.set(name, value);
  if (kind === 'fifo') {
    settings.set('ordered', 'true');
    settings.set('dedup.window.ms', String(DEDUP_MS));
    settings.set('dedup.by', dedupBy(attributes));
  } else settings.set('fair', 'true');
  return settings;
}

/** The setting that the two attributes make together. */
export function dedupBy(attributes: Attributes): string {
  const by = attributes.get('ContentBasedDeduplication') === 'true' ? 'content' : 'id';
  return attributes.get('DeduplicationScope') === 'messageGroup' ? `group-${by}` : by;
}

/** Those that the door keeps itself. */
export function keptAttributes(attributes: Attributes): Map<string, string> {
  return new Map([...attributes].filter(([name]) => !IN_SETTINGS.has(name)));
}

export interface DescribedQueue {
  readonly settings: QueueSettings;
  readonly isFifo: boolean;
  /** Those that the door keeps. */
  readonly kept: Attributes;
  readonly deadLetterArn: string | undefined;
}

/** All attributes that can be set, as they are. */
export function attributesOf({ settings, isFifo, kept, deadLetterArn }: DescribedQueue): Map<string, string> {
  const attributes = new Map<string, string>();
  for (const [name, rule] of Object.entries<Rule>(RULES)) {
    if ('isFifo' in rule && rule.isFifo && !isFifo) continue;
    const value = kept.get(name) ?? inForce(rule, settings);
    if (value !== undefined && value !== '') attributes.set(name, value);
  }
  if (isFifo) {
    attributes.set('FifoQueue', 'true');
    const by = settings['dedup.by'];
    attributes.set('ContentBasedDeduplication', String(by === 'content' || by === 'group-content'));
    attributes.set('DeduplicationScope', by.startsWith('group-') ? 'messageGroup' : 'queue');
  }
  if (settings['receive.limit'] > 0 && deadLetterArn !== undefined) {
    const policy = { deadLetterTargetArn: deadLetterArn, maxReceiveCount: settings['receive.limit'] };
    attributes.set('RedrivePolicy', JSON.stringify(policy));
  }
  if (attributes.has('KmsMasterKeyId')) {
    if (!kept.has('SqsManagedSseEnabled')) attributes.set('SqsManagedSseEnabled', 'false');
  } else attributes.delete('KmsDataKeyReusePeriodSeconds');
  return attributes;
}

function inForce(rule: Rule, settings: QueueSettings): string | undefined {
  if (rule.kind === 'number') {
    if (rule.setting === undefined) return String(rule.default);
    const ms = Number(settings[rule.setting]);
    // No TTL is the longest that SQS has; what another door has set in other units is rounded.
    return String(ms < 0 ? rule.max : Math.min(rule.max, Math.ceil(ms / 1000)));
  }
  return 'default' in rule ? rule.default : undefined;
}
