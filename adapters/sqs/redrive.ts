/** RedrivePolicy and RedriveAllowPolicy: JSON in texts of attributes. Refusals as SQS words them. */
import { invalidValue, type SqsError } from '../../protocol/sqs/errors.ts';
import { queueOfArn } from './addresses.ts';

const RECEIVES_MAX = 1000;
const SOURCES_MAX = 10;

export interface RedrivePolicy {
  readonly deadLetterTargetArn: string;
  /** Name of the queue. */
  readonly target: string;
  readonly maxReceiveCount: number;
}

export interface RedriveAllow {
  readonly permission: 'allowAll' | 'denyAll' | 'byQueue';
  /** Names of queues, of `byQueue`. */
  readonly sources: readonly string[];
}

function parseObject(name: string, text: string): Readonly<Record<string, unknown>> {
  try {
    const parsed: unknown = JSON.parse(text);
    // An object, by the check.
    if (typeof parsed === 'object' && parsed !== null && !Array.isArray(parsed))
      return parsed as Record<string, unknown>;
  } catch {
    // Said below.
  }
  throw invalidValue(name, text, 'Redrive policy is not a valid JSON map.');
}

export function parseRedrivePolicy(text: string): RedrivePolicy {
  const refuse = (reason: string): SqsError => invalidValue('RedrivePolicy', text, reason);
  const { deadLetterTargetArn, maxReceiveCount, ...rest } = parseObject('RedrivePolicy', text);
  if (deadLetterTargetArn === undefined) {
    throw refuse('Redrive policy does not contain mandatory attribute: deadLetterTargetArn.');
  }
  if (maxReceiveCount === undefined)
    throw refuse('Redrive policy does not contain mandatory attribute: maxReceiveCount.');
  const [unknown] = Object.keys(rest);
  if (unknown !== undefined)
    throw refuse(`Only following attributes are supported: [deadLetterTargetArn, maxReceiveCount].`);
  // Both as number and as text, as SDKs and templates write it.
  const count = /^\d{1,6}$/.test(String(maxReceiveCount)) ? Number(maxReceiveCount) : 0;
  if (count < 1 || count > RECEIVES_MAX) {
    throw refuse(
      `Invalid value for maxReceiveCount: ${String(maxReceiveCount)}, valid values are from 1 to ${RECEIVES_MAX} both inclusive.`,
    );
  }
  const target = typeof deadLetterTargetArn === 'string' ? queueOfArn(deadLetterTargetArn) : undefined;
  if (target === undefined || typeof deadLetterTargetArn !== 'string')
    throw refuse('Invalid value for deadLetterTargetArn.');
  return { deadLetterTargetArn, target, maxReceiveCount: count };
}

export function parseRedriveAllow(text: string): RedriveAllow {
  const refuse = (reason: string): SqsError => invalidValue('RedriveAllowPolicy', text, reason);
  const { redrivePermission: permission, sourceQueueArns: arns } = parseObject('RedriveAllowPolicy', text);
  if (permission !== 'allowAll' && permission !== 'denyAll' && permission !== 'byQueue') {
    throw refuse('Amazon SQS can only accept allowAll, denyAll and byQueue as redrivePermission.');
  }
  if (permission !== 'byQueue') {
    if (arns !== undefined) throw refuse('sourceQueueArns can only be given with redrivePermission byQueue.');
    return { permission, sources: [] };
  }
  if (!Array.isArray(arns) || arns.length === 0)
    throw refuse('sourceQueueArns must be given with redrivePermission byQueue.');
  if (arns.length > SOURCES_MAX) throw refuse(`At most ${SOURCES_MAX} sourceQueueArns can be given.`);
  const sources = arns.map((arn: unknown) => {
    const name = typeof arn === 'string' ? queueOfArn(arn) : undefined;
    if (name === undefined) throw refuse(`Invalid ARN: ${String(arn)}.`);
    return name;
  });
  return { permission, sources };
}
