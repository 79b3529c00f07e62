/**
 * Every error the broker answers, in one table: this is the only place that knows how a code looks in Kafka, AMQP and
 * SQS and whether a client may retry. Kafka's numbers are those of `org.apache.kafka.common.protocol.Errors`.
 *
 * Three kinds of failure: a broken invariant is a plain assertion and ends the process; a peer's mistake is a
 * `ProtocolError`; an expected failure is a `MillraceError` with a code from this table.
 */

/** The peer sent what its protocol does not allow; its connection (or channel) ends. */
export class ProtocolError extends Error {
  override readonly name = 'ProtocolError';
}

export interface ErrorRow {
  /** Kafka's error number. */
  readonly kafka: number;
  /** Whether the same request may succeed later without change. */
  readonly isRetriable: boolean;
  /** What it means, for people. */
  readonly text: string;
}

const row = (kafka: number, isRetriable: boolean, text: string): ErrorRow => ({ kafka, isRetriable, text });

/** Code → row. Codes are Kafka's names where Kafka has the error. */
export const errors = {
  UNKNOWN_SERVER_ERROR: row(-1, false, 'The broker failed in a way it did not expect; its log says more.'),
  NONE: row(0, false, 'No error.'),
  OFFSET_OUT_OF_RANGE: row(1, false, 'The offset is below the start or above the end of the partition.'),
  CORRUPT_MESSAGE: row(2, true, 'The batch fails its checksum, has an invalid size or is otherwise corrupt.'),
  UNKNOWN_TOPIC_OR_PARTITION: row(3, true, 'There is no such topic or partition.'),
  INVALID_FETCH_SIZE: row(4, false, 'The requested fetch size is invalid.'),
  LEADER_NOT_AVAILABLE: row(5, true, 'The partition has no leader yet.'),
  NOT_LEADER_OR_FOLLOWER: row(6, true, 'This broker does not lead the partition.'),
  REQUEST_TIMED_OUT: row(7, true, 'The request did not finish within its timeout.'),
  MESSAGE_TOO_LARGE: row(10, false, 'The batch is larger than max.message.bytes allows.'),
  OFFSET_METADATA_TOO_LARGE: row(12, false, 'The metadata of the committed offset is larger than allowed.'),
  COORDINATOR_LOAD_IN_PROGRESS: row(14, true, 'The coordinator is loading its state.'),
  COORDINATOR_NOT_AVAILABLE: row(15, true, 'The coordinator is not available.'),
  NOT_COORDINATOR: row(16, true, 'This broker does not coordinate the group.'),
  INVALID_TOPIC_EXCEPTION: row(17, false, 'The topic name is not allowed.'),
  RECORD_LIST_TOO_LARGE: row(18, false, 'The batch is larger than the segment size allows.'),
  INVALID_REQUIRED_ACKS: row(21, false, 'acks must be -1 (all), 0 or 1.'),
  ILLEGAL_GENERATION: row(22, false, 'The group is at another generation.'),
  INCONSISTENT_GROUP_PROTOCOL: row(23, false, "The member's protocols do not fit those of the group."),
  INVALID_GROUP_ID: row(24, false, 'The group id is not allowed.'),
  UNKNOWN_MEMBER_ID: row(25, false, 'The group has no such member.'),
  INVALID_SESSION_TIMEOUT: row(26, false, 'The session timeout is outside the allowed range.'),
  REBALANCE_IN_PROGRESS: row(27, false, 'The group is rebalancing; join again.'),
  INVALID_COMMIT_OFFSET_SIZE: row(28, false, 'The committed offset data is too large.'),
  TOPIC_AUTHORIZATION_FAILED: row(29, false, 'Access to the topic is denied.'),
  GROUP_AUTHORIZATION_FAILED: row(30, false, 'Access to the group is denied.'),
  CLUSTER_AUTHORIZATION_FAILED: row(31, false, 'Access to the cluster is denied.'),
  INVALID_TIMESTAMP: row(32, false, 'The timestamp of a record is outside the allowed range.'),
  UNSUPPORTED_SASL_MECHANISM: row(33, false, 'The SASL mechanism is not offered.'),
  ILLEGAL_SASL_STATE: row(34, false, 'The request does not fit the state of the SASL handshake.'),
  UNSUPPORTED_VERSION: row(35, false, 'This version of the request is not served.'),
  TOPIC_ALREADY_EXISTS: row(36, false, 'The topic exists already.'),
  INVALID_PARTITIONS: row(37, false, 'The number of partitions is not allowed.'),
  INVALID_REPLICATION_FACTOR: row(38, false, 'The replication factor is not 1 (or -1): there is one node.'),
  INVALID_REPLICA_ASSIGNMENT: row(39, false, 'The replica assignment is not allowed.'),
  INVALID_CONFIG: row(40, false, 'The configuration is not allowed.'),
  NOT_CONTROLLER: row(41, true, 'This broker is not the controller.'),
  INVALID_REQUEST: row(42, false, 'The request contradicts itself or its protocol.'),
  UNSUPPORTED_FOR_MESSAGE_FORMAT: row(43, false, 'The message format does not support the request.'),
  POLICY_VIOLATION: row(44, false, 'A policy refuses the request.'),
  OUT_OF_ORDER_SEQUENCE_NUMBER: row(45, false, 'The producer sent a batch out of order.'),
  DUPLICATE_SEQUENCE_NUMBER: row(46, false, 'The producer sent a batch twice.'),
  INVALID_PRODUCER_EPOCH: row(47, false, 'The producer has an old epoch.'),
  INVALID_TXN_STATE: row(48, false, 'The transaction is in a state that does not allow this.'),
  INVALID_PRODUCER_ID_MAPPING: row(49, false, 'The producer id does not belong to this transactional id.'),
  INVALID_TRANSACTION_TIMEOUT: row(50, false, 'The transaction timeout is longer than allowed.'),
  CONCURRENT_TRANSACTIONS: row(51, true, 'The transaction is being changed by another request.'),
  TRANSACTIONAL_ID_AUTHORIZATION_FAILED: row(53, false, 'Access to the transactional id is denied.'),
  SECURITY_DISABLED: row(54, false, 'Security features are off.'),
  OPERATION_NOT_ATTEMPTED: row(55, false, 'An earlier failure kept the operation from being tried.'),
  KAFKA_STORAGE_ERROR: row(56, true, 'The disk is full or failed; nothing was stored.'),
  LOG_DIR_NOT_FOUND: row(57, false, 'There is no such log directory.'),
  SASL_AUTHENTICATION_FAILED: row(58, false, 'SASL authentication failed.'),
  UNKNOWN_PRODUCER_ID: row(59, false, 'The producer id is not known any more.'),
  REASSIGNMENT_IN_PROGRESS: row(60, false, 'Partitions are being reassigned.'),
  NON_EMPTY_GROUP: row(68, false, 'The group has members.'),
  GROUP_ID_NOT_FOUND: row(69, false, 'There is no such group.'),
  FETCH_SESSION_ID_NOT_FOUND: row(70, true, 'The fetch session is not known any more.'),
  INVALID_FETCH_SESSION_EPOCH: row(71, true, 'The epoch of the fetch session is not the next one.'),
  LISTENER_NOT_FOUND: row(72, true, 'The listener is not known.'),
  TOPIC_DELETION_DISABLED: row(73, false, 'Topics may not be deleted here.'),
  FENCED_LEADER_EPOCH: row(74, true, 'The leader epoch is older than the partition’s.'),
  UNKNOWN_LEADER_EPOCH: row(75, true, 'The leader epoch is newer than the partition’s.'),
  UNSUPPORTED_COMPRESSION_TYPE: row(76, false, 'The compression type is not allowed in this version of the request.'),
  STALE_BROKER_EPOCH: row(77, false, 'The broker epoch has changed.'),
  OFFSET_NOT_AVAILABLE: row(78, true, 'The offset is not yet available.'),
  MEMBER_ID_REQUIRED: row(79, false, 'Join again with the member id in this answer.'),
  GROUP_MAX_SIZE_REACHED: row(81, false, 'The group has its maximum of members.'),
  FENCED_INSTANCE_ID: row(82, false, 'Another member uses the same group.instance.id.'),
  ELIGIBLE_LEADERS_NOT_AVAILABLE: row(83, true, 'No eligible leader is available.'),
  ELECTION_NOT_NEEDED: row(84, true, 'The partition has its leader.'),
  GROUP_SUBSCRIBED_TO_TOPIC: row(86, false, 'A member of the group subscribes to the topic.'),
  INVALID_RECORD: row(87, false, 'A record of the batch is not valid.'),
  UNSTABLE_OFFSET_COMMIT: row(88, true, 'There are offsets of an open transaction.'),
  THROTTLING_QUOTA_EXCEEDED: row(89, true, 'The quota is used up.'),
  PRODUCER_FENCED: row(90, false, 'A newer producer uses the same transactional id.'),
  RESOURCE_NOT_FOUND: row(91, false, 'There is no such resource.'),
  DUPLICATE_RESOURCE: row(92, false, 'The request names a resource twice.'),
  INCONSISTENT_VOTER_SET: row(94, false, 'The set of voters does not fit.'),
  INVALID_UPDATE_VERSION: row(95, false, 'The feature version is not allowed.'),
  FEATURE_UPDATE_FAILED: row(96, false, 'The features could not be updated.'),
  UNKNOWN_TOPIC_ID: row(100, true, 'There is no topic with this id.'),
  INCONSISTENT_TOPIC_ID: row(103, true, 'The topic has another id.'),
  FETCH_SESSION_TOPIC_ID_ERROR: row(106, true, 'The fetch session mixes topic names and ids.'),
  OFFSET_MOVED_TO_TIERED_STORAGE: row(109, false, 'The offset is in tiered storage.'),
  FENCED_MEMBER_EPOCH: row(110, false, 'The member has an old epoch.'),
  UNRELEASED_INSTANCE_ID: row(111, false, 'Another member still holds this group.instance.id.'),
  UNSUPPORTED_ASSIGNOR: row(112, false, 'The assignor is not known.'),
  STALE_MEMBER_EPOCH: row(113, false, 'The member epoch is old.'),
  MISMATCHED_ENDPOINT_TYPE: row(114, false, 'The request was meant for another kind of node.'),
  UNSUPPORTED_ENDPOINT_TYPE: row(115, false, 'There is no such kind of node.'),
  UNKNOWN_SUBSCRIPTION_ID: row(117, false, 'The client metrics subscription is not known.'),
  TELEMETRY_TOO_LARGE: row(118, false, 'The client metrics are too large.'),
  INVALID_RECORD_STATE: row(121, false, 'The message is not in flight for this consumer.'),
  SHARE_SESSION_NOT_FOUND: row(122, true, 'The share session is not open; open another.'),
  INVALID_SHARE_SESSION_EPOCH: row(123, true, 'The share session is at another epoch; open another.'),
  SHARE_SESSION_LIMIT_REACHED: row(133, true, 'There are as many share sessions as there may be.'),
  INVALID_REGULAR_EXPRESSION: row(128, false, 'The regular expression of the subscription is not allowed.'),
  REBOOTSTRAP_REQUIRED: row(
    129,
    false,
    'The client meant another node or cluster; it must ask its bootstrap servers again.',
  ),
  QUEUE_NOT_FOUND: row(69, false, 'There is no such queue.'),
  QUEUE_DIFFERS: row(42, false, 'A queue of this name exists with other settings.'),
  QUEUE_IN_USE: row(23, false, 'Another consumer has the queue for itself.'),
  USER_NOT_FOUND: row(91, false, 'There is no such user.'),
  VHOST_NOT_FOUND: row(91, false, 'There is no such vhost.'),
  /** Not on any wire: the process refuses to start. */
  DATA_DIR_LOCKED: row(-1, false, 'Another process uses the data folder.'),
  DATA_DIR_FORMAT: row(-1, false, 'The data folder was written by a version that this one cannot read.'),
  DATA_DIR_CORRUPT: row(-1, false, 'A file of the data folder does not hold what it must.'),
  INVALID_OPTION: row(-1, false, 'An option or its value is not known.'),
  STOPPING: row(-1, true, 'The broker is stopping.'),
} as const satisfies Record<string, ErrorRow>;

export type ErrorCode = keyof typeof errors;

/** An expected failure. `code` is its row in `errors`; `message` says what was expected, what was found and where. */
export class MillraceError extends Error {
  override readonly name = 'MillraceError';
  readonly code: ErrorCode;

  constructor(code: ErrorCode, message: string = errors[code].text, options?: ErrorOptions) {
    super(message, options);
    this.code = code;
  }
}

/** Kafka's number for any thrown value: that of a `MillraceError`, else UNKNOWN_SERVER_ERROR. */
export function kafkaCode(error: unknown): number {
  return error instanceof MillraceError ? errors[error.code].kafka : errors.UNKNOWN_SERVER_ERROR.kafka;
}
