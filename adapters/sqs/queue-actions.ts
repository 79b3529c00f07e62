/** Actions that are about queues: their life, attributes, tags, permissions, lists, and tasks that move their messages. */
import { type Input, limits } from '../../protocol/sqs/actions.ts';
import { invalidValue, SqsError } from '../../protocol/sqs/errors.ts';
import type { Clock } from '../../storage/clock.ts';
import type { Options } from '../../broker/config.ts';
import type { Call } from './call.ts';
import type { Gate } from './gate.ts';
import type { Handlers } from './handlers.ts';
import type { MoveTasks } from './move-tasks.ts';
import { withoutPermission, withPermission } from './permissions.ts';
import { isAttributeName, unknownAttribute } from './queue-attributes.ts';
import type { QueueBook, SqsQueue } from './queue-book.ts';

/** Of the quotas page. */
const PURGE_MS = 60_000;
const NO_TEXTS: ReadonlyMap<string, string> = new Map();

export interface QueueActionsParts {
  readonly clock: Clock;
  readonly options: Options;
  readonly book: QueueBook;
  readonly gate: Gate;
  readonly tasks: MoveTasks;
}

type QueueHandlers = Pick<
  Handlers,
  | 'AddPermission'
  | 'CancelMessageMoveTask'
  | 'CreateQueue'
  | 'DeleteQueue'
  | 'GetQueueAttributes'
  | 'GetQueueUrl'
  | 'ListDeadLetterSourceQueues'
  | 'ListMessageMoveTasks'
  | 'ListQueueTags'
  | 'ListQueues'
  | 'PurgeQueue'
  | 'RemovePermission'
  | 'SetQueueAttributes'
  | 'StartMessageMoveTask'
  | 'TagQueue'
  | 'UntagQueue'
>;

export function queueActions({ clock, options, book, gate, tasks }: QueueActionsParts): QueueHandlers {
  /** Name → when it was purged; only where the rules of time are kept. */
  const purged = new Map<string, number>();
  /** What a change of the policy leaves. */
  const setPolicy = async (target: SqsQueue, policy: string): Promise<object> => {
    book.setAttributes(target, new Map([['Policy', policy]]));
    await book.durable();
    return {};
  };
  const policyOf = ({ facts }: SqsQueue): string | undefined => facts?.attributes.get('Policy');
  const taskDurable = (): Promise<void> => new Promise((resolve) => tasks.whenDurable(resolve));

  return {
    async CreateQueue({ QueueName: name, Attributes: attributes = NO_TEXTS, tags = NO_TEXTS }, call) {
      gate.check(call, 'CreateQueue', name);
      book.create(name, attributes, tags);
      await book.durable();
      return { QueueUrl: call.urlOf(name) };
    },

    async DeleteQueue(_, call) {
      book.delete(gate.queue(call, 'DeleteQueue'));
      await book.durable();
      return {};
    },

    async GetQueueUrl({ QueueName: name }, call) {
      gate.check(call, 'GetQueueUrl', name);
      book.get(name);
      // It may have been made in this moment.
      await book.durable();
      return { QueueUrl: call.urlOf(name) };
    },

    GetQueueAttributes({ AttributeNames: names = [] }, call) {
      const target = gate.queue(call, 'GetQueueAttributes');
      for (const name of names) if (!isAttributeName(name)) throw unknownAttribute(name);
      if (names.length === 0) return {};
      const all = book.attributes(target, call);
      if (names.includes('All')) return { Attributes: all };
      const wanted = new Map([...all].filter(([name]) => names.includes(name)));
      return wanted.size === 0 ? {} : { Attributes: wanted };
    },

    async SetQueueAttributes({ Attributes: attributes }, call) {
      const target = gate.queue(call, 'SetQueueAttributes');
      book.setAttributes(target, attributes);
      await book.durable();
      return {};
    },

    async PurgeQueue(_, call) {
      const { queue } = gate.queue(call, 'PurgeQueue');
      const nowMs = clock.now();
      if (options['sqs.strict']) {
        for (const [name, purgedMs] of purged) if (nowMs - purgedMs >= PURGE_MS) purged.delete(name);
        if (purged.has(queue.name)) {
          throw new SqsError(
            'PurgeQueueInProgress',
            `Only one PurgeQueue operation on ${queue.name} is allowed every 60 seconds.`,
          );
        }
        purged.set(queue.name, nowMs);
      }
      queue.purge({ isInFlightToo: true });
      await book.durable();
      return {};
    },

    ListQueues(input, call) {
      const { QueueNamePrefix: prefix, NextToken, MaxResults } = input;
      const names = book.names(prefix).filter((name) => gate.allows(call, 'ListQueues', name));
      const { page, token } = pageOf(names, NextToken, MaxResults);
      return {
        ...(page.length === 0 ? {} : { QueueUrls: page.map((name) => call.urlOf(name)) }),
        ...(token === undefined ? {} : { NextToken: token }),
      };
    },

    ListDeadLetterSourceQueues({ NextToken, MaxResults }, call) {
      const { queue } = gate.queue(call, 'ListDeadLetterSourceQueues');
      const { page, token } = pageOf(book.sourcesOf(queue.name), NextToken, MaxResults);
      return { queueUrls: page.map((name) => call.urlOf(name)), ...(token === undefined ? {} : { NextToken: token }) };
    },

    ListQueueTags(_, call) {
      const { facts } = gate.queue(call, 'ListQueueTags');
      return facts === undefined || facts.tags.size === 0 ? {} : { Tags: facts.tags };
    },

    async TagQueue({ Tags }, call) {
      book.tag(gate.queue(call, 'TagQueue'), Tags);
      await book.durable();
      return {};
    },

    async UntagQueue({ TagKeys }, call) {
      book.untag(gate.queue(call, 'UntagQueue'), TagKeys);
      await book.durable();
      return {};
    },

    AddPermission(input, call) {
      const target = gate.queue(call, 'AddPermission');
      return setPolicy(target, withPermission(policyOf(target), call.arnOf(target.queue.name), input));
    },

    RemovePermission({ Label }, call) {
      const target = gate.queue(call, 'RemovePermission');
      return setPolicy(target, withoutPermission(policyOf(target), call.arnOf(target.queue.name), Label));
    },

    async StartMessageMoveTask(input, call) {
      const { source, target } = tasks.names(input);
      gate.check(call, 'StartMessageMoveTask', source);
      if (target !== undefined) gate.check(call, 'SendMessage', target);
      const output = tasks.start(input);
      await taskDurable();
      return output;
    },

    ListMessageMoveTasks(input: Input<'ListMessageMoveTasks'>, call: Call) {
      const output = tasks.list(input, call);
      gate.checkArn(call, 'ListMessageMoveTasks', input.SourceArn);
      return output;
    },

    async CancelMessageMoveTask(input, call) {
      const source = tasks.sourceOf(input.TaskHandle);
      if (source !== undefined) gate.check(call, 'CancelMessageMoveTask', source);
      const output = tasks.cancel(input);
      await taskDurable();
      return output;
    },
  };
}

/** Names after the one that the token stands for; a token for the rest only if a page was asked for. */
function pageOf(
  names: readonly string[],
  token: string | undefined,
  size: number | undefined,
): { page: readonly string[]; token: string | undefined } {
  if (size !== undefined && (size < 1 || size > limits.listMax)) {
    throw invalidValue('MaxResults', size, `Must be between 1 and ${limits.listMax}, if provided.`);
  }
  if (token !== undefined && size === undefined) {
    throw new SqsError(
      'InvalidParameterValue',
      'MaxResults is a mandatory parameter when you provide a value for NextToken.',
    );
  }
  const after = token === undefined ? '' : Buffer.from(token, 'base64').toString();
  if (token !== undefined && Buffer.from(after).toString('base64') !== token) {
    throw new SqsError('InvalidParameterValue', 'Invalid or expired next token.');
  }
  const rest = names.filter((name) => name > after);
  const page = rest.slice(0, size ?? limits.listMax);
  const isMore = size !== undefined && rest.length > page.length;
  return { page, token: isMore ? Buffer.from(page.at(-1) ?? '').toString('base64') : undefined };
}
