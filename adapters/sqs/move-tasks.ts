/**
 * Message move tasks: a dead-letter queue's messages go back to where they came from, or elsewhere. They are the
 * broker's jobs (`broker/queue-jobs.ts`) in SQS's words. A handle names the job and its source; it is shown while the task runs.
 */
import { type Input, limits, type MoveTask, type Output } from '../../protocol/sqs/actions.ts';
import { invalidValue, SqsError } from '../../protocol/sqs/errors.ts';
import type { Job, QueueJobs } from '../../broker/queue-jobs.ts';
import { queueOfArn } from './addresses.ts';
import type { Call } from './call.ts';
import type { QueueBook } from './queue-book.ts';

const STATUSES = { running: 'RUNNING', done: 'COMPLETED', cancelled: 'CANCELLED', failed: 'FAILED' } as const;

export interface MoveTasksParts {
  readonly book: QueueBook;
  readonly jobs: QueueJobs;
}

export class MoveTasks {
  readonly #parts: MoveTasksParts;

  constructor(parts: MoveTasksParts) {
    this.#parts = parts;
  }

  /** Names of the queues that a start is about; `target` undefined: where each message came from. */
  names({ SourceArn, DestinationArn }: Input<'StartMessageMoveTask'>): { source: string; target: string | undefined } {
    const source = this.#queueOf(SourceArn, 'SourceArn');
    return {
      source,
      target: DestinationArn === undefined ? undefined : this.#queueOf(DestinationArn, 'DestinationArn'),
    };
  }

  start(input: Input<'StartMessageMoveTask'>): Output<'StartMessageMoveTask'> {
    const { book, jobs } = this.#parts;
    const { source, target } = this.names(input);
    if (book.sourcesOf(source).length === 0) {
      throw invalidValue('SourceArn', input.SourceArn, 'Source queue must be configured as a Dead Letter Queue.');
    }
    if (target === source) {
      throw invalidValue('DestinationArn', input.DestinationArn, 'Source and destination must be two queues.');
    }
    const { MaxNumberOfMessagesPerSecond: rate } = input;
    if (rate !== undefined && (rate < 1 || rate > limits.moveRateMax)) {
      const reason = `Value must be between 1 and ${limits.moveRateMax}, if provided.`;
      throw invalidValue('MaxNumberOfMessagesPerSecond', rate, reason);
    }
    if (jobs.runningOn(source) !== undefined) {
      throw new SqsError(
        'UnsupportedOperation',
        'There is already a task running. Only one active task is allowed for a source queue arn at a given time.',
      );
    }
    const job = jobs.start({ kind: target === undefined ? 'redrive' : 'move', source, target, ratePerSecond: rate });
    return { TaskHandle: handleOf(job, input.SourceArn) };
  }

  list({ SourceArn, MaxResults = 1 }: Input<'ListMessageMoveTasks'>, call: Call): Output<'ListMessageMoveTasks'> {
    const source = this.#queueOf(SourceArn, 'SourceArn');
    if (MaxResults < 1 || MaxResults > limits.moveTasksListed) {
      throw invalidValue(
        'MaxResults',
        MaxResults,
        `Value must be between 1 and ${limits.moveTasksListed}, if provided.`,
      );
    }
    const tasks = this.#tasksOf(source).slice(0, MaxResults);
    if (tasks.length === 0) return {};
    return { Results: tasks.map((job) => this.#shown(job, SourceArn, call)) };
  }

  #tasksOf(source: string): readonly Job[] {
    return this.#parts.jobs.all().filter((job) => job.source === source && job.kind !== 'replay' && !job.isDryRun);
  }

  cancel({ TaskHandle }: Input<'CancelMessageMoveTask'>): Output<'CancelMessageMoveTask'> {
    const { jobs } = this.#parts;
    const job = this.#jobOf(TaskHandle);
    if (job === undefined) throw new SqsError('ResourceNotFoundException', 'Task does not exist.');
    if (job.status !== 'running') {
      throw new SqsError('UnsupportedOperation', 'Only active tasks can be cancelled.');
    }
    jobs.cancel(job.id);
    return { ApproximateNumberOfMessagesMoved: job.movedCount };
  }

  /** Name of the queue of a task, if there is such a task. */
  sourceOf(handle: string): string | undefined {
    return this.#jobOf(handle)?.source;
  }

  whenDurable(callback: () => void): void {
    this.#parts.jobs.whenDurable(callback);
  }

  #jobOf(handle: string): Job | undefined {
    const [, id, source] = /^(\d{1,15}) (.+)$/.exec(Buffer.from(handle, 'base64').toString()) ?? [];
    const job = id === undefined ? undefined : this.#parts.jobs.get(Number(id));
    return job !== undefined && queueOfArn(source) === job.source ? job : undefined;
  }

  #shown(job: Job, sourceArn: string, call: Call): MoveTask {
    const isRunning = job.status === 'running';
    const left = job.ranges.reduce((sum, { next, end }) => sum + Math.max(0, end - next), 0);
    return {
      ...(isRunning ? { TaskHandle: handleOf(job, sourceArn) } : {}),
      Status: STATUSES[job.status],
      SourceArn: sourceArn,
      ...(job.target === null ? {} : { DestinationArn: call.arnOf(job.target) }),
      ...(job.ratePerSecond === null ? {} : { MaxNumberOfMessagesPerSecond: job.ratePerSecond }),
      ApproximateNumberOfMessagesMoved: job.movedCount,
      ApproximateNumberOfMessagesToMove: job.movedCount + left,
      ...(job.error === null ? {} : { FailureReason: job.error }),
      StartedTimestamp: job.startedMs,
    };
  }

  /** ResourceNotFoundException, InvalidParameterValue. */
  #queueOf(arn: string, parameter: string): string {
    const name = queueOfArn(arn);
    if (name === undefined) throw invalidValue(parameter, arn, 'The ARN is not that of an SQS queue.');
    if (this.#parts.book.find(name) !== undefined) return name;
    throw new SqsError(
      'ResourceNotFoundException',
      `The resource that you specified for the ${parameter} parameter doesn't exist.`,
    );
  }
}

function handleOf({ id }: Job, sourceArn: string): string {
  return Buffer.from(`${id} ${sourceArn}`).toString('base64');
}
