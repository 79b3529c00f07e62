/** What a client of SQS is told of any failure. */
import { type ErrorCode, MillraceError } from '../../protocol/errors.ts';
import { SqsError, type SqsErrorCode } from '../../protocol/sqs/errors.ts';

const CODES: Partial<Record<ErrorCode, SqsErrorCode>> = {
  QUEUE_NOT_FOUND: 'QueueDoesNotExist',
  UNKNOWN_TOPIC_OR_PARTITION: 'QueueDoesNotExist',
  QUEUE_DIFFERS: 'QueueNameExists',
  TOPIC_ALREADY_EXISTS: 'QueueNameExists',
  QUEUE_IN_USE: 'UnsupportedOperation',
  INVALID_RECORD_STATE: 'MessageNotInflight',
  INVALID_CONFIG: 'InvalidAttributeValue',
  INVALID_RECORD: 'InvalidParameterValue',
  INVALID_REQUEST: 'InvalidParameterValue',
  INVALID_TOPIC_EXCEPTION: 'InvalidParameterValue',
  MESSAGE_TOO_LARGE: 'InvalidParameterValue',
  RECORD_LIST_TOO_LARGE: 'InvalidParameterValue',
  POLICY_VIOLATION: 'OverLimit',
  THROTTLING_QUOTA_EXCEEDED: 'RequestThrottled',
  KAFKA_STORAGE_ERROR: 'ServiceUnavailable',
  STOPPING: 'ServiceUnavailable',
};

/** Undefined: it is none that can be expected. */
export function sqsErrorOf(error: unknown): SqsError | undefined {
  if (error instanceof SqsError) return error;
  const code = error instanceof MillraceError ? CODES[error.code] : undefined;
  if (code === undefined) return undefined;
  const text = code === 'QueueDoesNotExist' ? 'The specified queue does not exist.' : (error as MillraceError).message;
  return new SqsError(code, text, { cause: error });
}
