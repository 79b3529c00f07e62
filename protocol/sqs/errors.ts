/**
 * Errors as SQS clients know them: name in the JSON protocol, code in the query protocol (also in the header
 * `x-amzn-query-error` of a JSON answer) and HTTP status. The first part is the service model's, the second the common
 * errors of AWS's query APIs and what SQS answers without having it in its model.
 */

interface ErrorForm {
  readonly query: string;
  readonly status: number;
}
const form = (status: number, query: string): ErrorForm => ({ query, status });
const own = (status: number, name: string): ErrorForm => form(status, `AWS.SimpleQueueService.${name}`);

export const sqsErrors = {
  BatchEntryIdsNotDistinct: own(400, 'BatchEntryIdsNotDistinct'),
  BatchRequestTooLong: own(400, 'BatchRequestTooLong'),
  EmptyBatchRequest: own(400, 'EmptyBatchRequest'),
  InvalidAddress: form(404, 'InvalidAddress'),
  InvalidAttributeName: form(400, 'InvalidAttributeName'),
  InvalidAttributeValue: form(400, 'InvalidAttributeValue'),
  InvalidBatchEntryId: own(400, 'InvalidBatchEntryId'),
  InvalidIdFormat: form(400, 'InvalidIdFormat'),
  InvalidMessageContents: form(400, 'InvalidMessageContents'),
  InvalidSecurity: form(403, 'InvalidSecurity'),
  KmsAccessDenied: form(400, 'KMS.AccessDeniedException'),
  KmsDisabled: form(400, 'KMS.DisabledException'),
  KmsInvalidKeyUsage: form(400, 'KMS.InvalidKeyUsageException'),
  KmsInvalidState: form(400, 'KMS.InvalidStateException'),
  KmsNotFound: form(400, 'KMS.NotFoundException'),
  KmsOptInRequired: form(403, 'KMS.OptInRequired'),
  KmsThrottled: form(400, 'KMS.ThrottlingException'),
  MessageNotInflight: own(400, 'MessageNotInflight'),
  OverLimit: form(403, 'OverLimit'),
  PurgeQueueInProgress: own(403, 'PurgeQueueInProgress'),
  QueueDeletedRecently: own(400, 'QueueDeletedRecently'),
  QueueDoesNotExist: own(400, 'NonExistentQueue'),
  QueueNameExists: form(400, 'QueueAlreadyExists'),
  ReceiptHandleIsInvalid: form(404, 'ReceiptHandleIsInvalid'),
  RequestThrottled: form(403, 'RequestThrottled'),
  ResourceNotFoundException: form(404, 'ResourceNotFoundException'),
  TooManyEntriesInBatchRequest: own(400, 'TooManyEntriesInBatchRequest'),
  UnsupportedOperation: own(400, 'UnsupportedOperation'),

  AccessDenied: form(403, 'AccessDenied'),
  IncompleteSignature: form(400, 'IncompleteSignature'),
  InternalFailure: form(500, 'InternalFailure'),
  InvalidAction: form(400, 'InvalidAction'),
  InvalidClientTokenId: form(403, 'InvalidClientTokenId'),
  InvalidParameterCombination: form(400, 'InvalidParameterCombination'),
  InvalidParameterValue: form(400, 'InvalidParameterValue'),
  MalformedQueryString: form(404, 'MalformedQueryString'),
  MissingAction: form(400, 'MissingAction'),
  MissingAuthenticationToken: form(403, 'MissingAuthenticationToken'),
  MissingParameter: form(400, 'MissingParameter'),
  RequestEntityTooLarge: form(413, 'RequestEntityTooLarge'),
  RequestExpired: form(400, 'RequestExpired'),
  SerializationException: form(400, 'SerializationException'),
  ServiceUnavailable: form(503, 'ServiceUnavailable'),
  SignatureDoesNotMatch: form(403, 'SignatureDoesNotMatch'),
  UnknownOperationException: form(404, 'UnknownOperationException'),
} as const satisfies Record<string, ErrorForm>;

export type SqsErrorCode = keyof typeof sqsErrors;

/** What a client is told; anything else that is thrown is InternalFailure. */
export class SqsError extends Error {
  override readonly name = 'SqsError';
  readonly code: SqsErrorCode;

  constructor(code: SqsErrorCode, message: string, options?: ErrorOptions) {
    super(message, options);
    this.code = code;
  }

  get status(): number {
    return sqsErrors[this.code].status;
  }
  /** In the query protocol and in `x-amzn-query-error`. */
  get queryCode(): string {
    return sqsErrors[this.code].query;
  }
  /** Whose fault it is: the client's but for the statuses of servers. */
  get isSenderFault(): boolean {
    return this.status < 500;
  }
}

export const missing = (name: string): SqsError =>
  new SqsError('MissingParameter', `The request must contain the parameter ${name}.`);

/** The words of a value out of range. */
export const invalidValue = (name: string, value: unknown, reason: string): SqsError =>
  new SqsError('InvalidParameterValue', `Value ${String(value)} for parameter ${name} is invalid. Reason: ${reason}`);
