/**
 * Which queue a request means and whether its user may do that with it: one permission model for all doors
 * (`broker/access.ts`), and the policy of the queue beside it.
 */
import type { ActionName } from '../../protocol/sqs/actions.ts';
import { SqsError } from '../../protocol/sqs/errors.ts';
import { type Access, type Operation, principalOf } from '../../broker/access.ts';
import { queueOfArn } from './addresses.ts';
import type { Call } from './call.ts';
import { verdict } from './permissions.ts';
import type { QueueBook, SqsQueue } from './queue-book.ts';

const OPERATIONS: Readonly<Record<ActionName, Operation>> = {
  AddPermission: 'ALTER',
  CancelMessageMoveTask: 'READ',
  ChangeMessageVisibility: 'READ',
  ChangeMessageVisibilityBatch: 'READ',
  CreateQueue: 'CREATE',
  DeleteMessage: 'READ',
  DeleteMessageBatch: 'READ',
  DeleteQueue: 'DELETE',
  GetQueueAttributes: 'DESCRIBE',
  GetQueueUrl: 'DESCRIBE',
  ListDeadLetterSourceQueues: 'DESCRIBE',
  ListMessageMoveTasks: 'DESCRIBE',
  ListQueueTags: 'DESCRIBE',
  ListQueues: 'DESCRIBE',
  PurgeQueue: 'READ',
  ReceiveMessage: 'READ',
  RemovePermission: 'ALTER',
  SendMessage: 'WRITE',
  SendMessageBatch: 'WRITE',
  SetQueueAttributes: 'ALTER',
  StartMessageMoveTask: 'READ',
  TagQueue: 'ALTER',
  UntagQueue: 'ALTER',
};
/** Batches are allowed with what they are batches of. */
const BATCH = 'Batch';

export class Gate {
  readonly #book: QueueBook;
  readonly #access: Access;

  constructor(book: QueueBook, access: Access) {
    this.#book = book;
    this.#access = access;
  }

  /** The queue that the request is about. AccessDenied, QueueDoesNotExist. */
  queue(call: Call, action: ActionName): SqsQueue {
    const name = call.queue ?? '';
    this.check(call, action, name);
    return this.#book.get(name);
  }

  checkArn(call: Call, action: ActionName, arn: string): void {
    this.check(call, action, queueOfArn(arn) ?? '');
  }

  /** AccessDenied. */
  check(call: Call, action: ActionName, queue: string): void {
    if (this.allows(call, action, queue)) return;
    throw new SqsError(
      'AccessDenied',
      `User: arn:aws:iam::${call.account}:user/${call.user} is not authorized to perform: sqs:${action} on resource: ${call.arnOf(queue)}`,
    );
  }

  allows({ user, account }: Call, action: ActionName, queue: string): boolean {
    if (user === undefined) return true;
    const policy = this.#book.find(queue)?.facts?.attributes.get('Policy');
    const single = action.endsWith(BATCH) ? action.slice(0, -BATCH.length) : action;
    const said = verdict(policy, { user, account, action: single });
    if (said !== undefined) return said === 'allow';
    return this.#access.authorize(principalOf(user), OPERATIONS[action], 'QUEUE', queue);
  }
}
