/**
 * The policy of a queue: AddPermission and RemovePermission write statements into it, and for users whom the broker knows it
 * is looked at beside their own permissions: a Deny always counts, an Allow gives what the user has not. Statements with
 * conditions, or of principals that are not here, are kept and say nothing.
 */
import { type Input, limits } from '../../protocol/sqs/actions.ts';
import { invalidValue, SqsError } from '../../protocol/sqs/errors.ts';

const ACTIONS_MAX = 7;
const LABEL = /^[A-Za-z0-9_-]{1,80}$/;
const ACCOUNT = /^\d{12}$/;
/** Those that another account may be allowed; the rest are the owner's. */
const SHARED: ReadonlySet<string> = new Set([
  '*',
  'ChangeMessageVisibility',
  'DeleteMessage',
  'GetQueueAttributes',
  'GetQueueUrl',
  'ListDeadLetterSourceQueues',
  'PurgeQueue',
  'ReceiveMessage',
  'SendMessage',
]);

interface Statement {
  readonly Sid?: unknown;
  readonly Effect?: unknown;
  readonly Principal?: unknown;
  readonly Action?: unknown;
  readonly Condition?: unknown;
}
interface Policy {
  readonly Version: unknown;
  readonly Id: unknown;
  readonly Statement: readonly Statement[];
}

function parse(text: string | undefined, arn: string): Policy {
  const empty = { Version: '2012-10-17', Id: `${arn}/SQSDefaultPolicy`, Statement: [] };
  if (text === undefined || text === '') return empty;
  // An object, as it was checked when it came.
  const policy = JSON.parse(text) as Partial<Policy>;
  const { Statement: statements = [] } = policy;
  return { ...empty, ...policy, Statement: Array.isArray(statements) ? statements : [statements as Statement] };
}

/** The policy with a statement more. */
export function withPermission(text: string | undefined, arn: string, input: Input<'AddPermission'>): string {
  const { Label: label, AWSAccountIds: accounts, Actions: names } = input;
  if (!LABEL.test(label)) {
    throw invalidValue(
      'Label',
      label,
      'Can only include alphanumeric characters, hyphens, or underscores. 1 to 80 in length.',
    );
  }
  for (const account of accounts) {
    if (!ACCOUNT.test(account)) throw invalidValue('PrincipalId', account, 'Unable to verify.');
  }
  for (const name of names) {
    if (!SHARED.has(name)) {
      throw invalidValue('ActionName', `SQS:${name}`, 'Only the queue owner is allowed to invoke this action.');
    }
  }
  if (names.length > ACTIONS_MAX) {
    throw new SqsError('OverLimit', `${names.length} Actions were found, maximum allowed is ${ACTIONS_MAX}.`);
  }
  const policy = parse(text, arn);
  if (policy.Statement.some(({ Sid }) => Sid === label)) throw invalidValue('Label', label, 'Already exists.');
  if (policy.Statement.length >= limits.permissionsMax) {
    throw new SqsError('OverLimit', `A policy has at most ${limits.permissionsMax} statements.`);
  }
  const principals = accounts.map((account) => `arn:aws:iam::${account}:root`);
  const qualified = names.map((name) => `SQS:${name}`);
  const statement = {
    Sid: label,
    Effect: 'Allow',
    Principal: { AWS: principals.length === 1 ? principals[0] : principals },
    Action: qualified.length === 1 ? qualified[0] : qualified,
    Resource: arn,
  };
  return JSON.stringify({ ...policy, Statement: [...policy.Statement, statement] });
}

/** The policy without the statement; empty if none is left. */
export function withoutPermission(text: string | undefined, arn: string, label: string): string {
  const policy = parse(text, arn);
  const statements = policy.Statement.filter(({ Sid }) => Sid !== label);
  if (statements.length === policy.Statement.length) {
    throw invalidValue('Label', label, "can't find label on existing policy.");
  }
  return statements.length === 0 ? '' : JSON.stringify({ ...policy, Statement: statements });
}

/** What the policy says of this user and action; undefined: nothing. */
export function verdict(
  text: string | undefined,
  { user, account, action }: { user: string; account: string; action: string },
): 'allow' | 'deny' | undefined {
  if (text === undefined || text === '') return undefined;
  const known = new Set(['*', account, `arn:aws:iam::${account}:root`, `arn:aws:iam::${account}:user/${user}`]);
  let isAllowed = false;
  for (const { Effect, Principal, Action, Condition } of parse(text, '').Statement) {
    if (Condition !== undefined || !textsOf(Action).some((each) => isMatch(each, action))) continue;
    const principals = textsOf(
      typeof Principal === 'object' && Principal !== null && 'AWS' in Principal ? Principal.AWS : Principal,
    );
    if (!principals.some((each) => known.has(each))) continue;
    if (Effect === 'Deny') return 'deny';
    if (Effect === 'Allow') isAllowed = true;
  }
  return isAllowed ? 'allow' : undefined;
}

function textsOf(value: unknown): string[] {
  if (typeof value === 'string') return [value];
  return Array.isArray(value) ? value.filter((each) => typeof each === 'string') : [];
}

function isMatch(pattern: string, action: string): boolean {
  const wanted = pattern.toLowerCase();
  const name = `sqs:${action}`.toLowerCase();
  if (wanted === '*' || wanted === name) return true;
  return wanted.endsWith('*') && name.startsWith(wanted.slice(0, -1));
}
